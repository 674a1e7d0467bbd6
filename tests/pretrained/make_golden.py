"""Writes the golden files: what the original implementations answer, from torch.

    python tests/pretrained/make_golden.py

Needs torch and efficientnet-lite-pytorch (the extra `parity`). Writes
`golden_<network>.npz` beside this file and prints the few answers that
`jaxvision/pretrained/golden.py` keeps. The tests compare with these files where torch
is not installed.
"""

from pathlib import Path

import numpy as np
from drawn_inputs import alexnet_state_dict, normalized_images
from torch_references import alexnet, answer, convolutions, efficientnet_lite

from jaxvision.pretrained.golden import golden_places

HERE = Path(__file__).parent


def main() -> None:
    for i in range(3):
        name = f"efficientnet_lite{i}"
        logits = answer(efficientnet_lite(name), normalized_images(name))
        np.savez_compressed(HERE / f"golden_{name}.npz", logits=logits)
        _print(name, logits[0])
    for name in ("alexnet_features", "vgg16_features"):
        image = normalized_images(name)[:1]
        _print(name, answer(convolutions(name), image)[0].mean((1, 2)))
    logits = answer(alexnet(alexnet_state_dict()), normalized_images("alexnet"))
    np.savez_compressed(HERE / "golden_alexnet.npz", logits=logits)


def _print(name: str, answers: np.ndarray) -> None:
    places = golden_places(len(answers))
    print(name, tuple(round(float(answers[i]), 5) for i in places))


if __name__ == "__main__":
    main()
