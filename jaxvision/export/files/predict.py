"""Classifies images: python predict.py [--unknown] a.jpg b.jpg

With --unknown an image that is probably of none of the classes is answered "unknown".
Needs onnxruntime, NumPy and Pillow.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FOLDER = Path(__file__).parent
ABOUT = json.loads((FOLDER / "labels.json").read_text("utf-8"))
SESSION = onnxruntime.InferenceSession(FOLDER / "model.onnx")


def read(path: str) -> np.ndarray:
    """An image as the network takes it: uint8 [H, W, C]."""
    want = ABOUT["preprocessing"]
    image = ImageOps.exif_transpose(Image.open(path))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    image = image.convert("L" if want["gray"] else "RGB")
    (height, width), (wide, high) = want["size"], image.size
    scale = min(width / wide, height / high)  # pad
    inner = max(1, round(wide * scale)), max(1, round(high * scale))
    if want["resize_mode"] == "stretch":
        inner = width, height
    elif want["resize_mode"] == "crop":
        side, short = want["resize"], min(image.size)
        inner = int(side * wide / short), int(side * high / short)
    image = image.resize(inner, Image.Resampling[want["interpolation"].upper()])
    left, top = before(inner[0] - width), before(inner[1] - height)
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(image).reshape(height, width, -1)


def before(spare: int) -> int:
    """Where to cut what is too large; below zero, black is added to what is small."""
    return round(spare / 2) if spare > 0 else int(spare / 2)


def predict(image: np.ndarray) -> np.ndarray:
    """Probabilities of the labels: float32 [K]."""
    (given,) = SESSION.get_inputs()
    count = given.shape[0] if isinstance(given.shape[0], int) else 1
    (found,) = SESSION.run(["probabilities"], {given.name: np.stack([image] * count)})
    return np.asarray(found)[0]


if __name__ == "__main__":
    paths = [argument for argument in sys.argv[1:] if argument != "--unknown"]
    least = ABOUT["threshold"] if "--unknown" in sys.argv else 0.0
    if "--unknown" in sys.argv and not least:
        sys.exit("--unknown: the network has no threshold; leave it out")
    for path in paths:
        probabilities = predict(read(path))
        best = probabilities.argmax()
        label, probability = ABOUT["labels"][best], probabilities[best]
        answer = label if probability >= least else f"unknown, nearest is {label}"
        print(f"{path}: {answer} {probability:.3f}")
