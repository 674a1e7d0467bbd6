"""Part 1.2 whole, beside the way that the assignment does it, process after process.

python -m benchmarks.assignment --root DIR     # one subfolder per painter

The assignment's way is PyTorch with a `Dataset` that opens, resizes and normalizes each
image whenever it is asked for, a `DataLoader` in the same process, 50 epochs with a
pass over the validation images after each. Ours is `experiments.part1_baseline` with
one seed, from process start to the written report. They take turns.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from jaxvision.cli.flags import run
from jaxvision.config import Bounds, check

EPOCHS, BATCH_SIZE, LEARNING_RATE, SIZE = 50, 16, 1e-4, 50


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train on, and how often."""

    root: Path
    """Folder with one subfolder per painter."""
    rounds: Annotated[int, Bounds(1)] = 3
    """Of both, of which the median counts."""


def train_with_torch(root: Path) -> None:
    """Trains the assignment's network; prints its last validation accuracy."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, random_split

    class Paintings(Dataset):
        def __init__(self) -> None:
            painters = sorted(path for path in root.iterdir() if path.is_dir())
            self.classes = len(painters)
            self.items = [
                (path, label)
                for label, painter in enumerate(painters)
                for path in sorted(painter.iterdir())
            ]

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            path, label = self.items[index]
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIZE, SIZE))
            pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)
            return pixels.float() / 255 - 0.5, label

    torch.manual_seed(0)
    paintings = Paintings()
    count = round(0.8 * len(paintings))
    train, val = random_split(paintings, [count, len(paintings) - count])
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1600, 64),
        nn.ReLU(),
        nn.Linear(64, paintings.classes),
    )
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    loss_of = nn.CrossEntropyLoss()
    right = 0
    for _ in range(EPOCHS):
        model.train()
        for images, labels in DataLoader(train, BATCH_SIZE, shuffle=True):
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in DataLoader(val, BATCH_SIZE):
                right += int((model(images).argmax(1) == labels).sum())
    print(right / len(val))


_TORCH = """
import pathlib, sys
from benchmarks.assignment import train_with_torch

train_with_torch(pathlib.Path(sys.argv[1]))
"""


def seconds_of(command: list[str], folder: str) -> float:
    """Wall time of a process, from its start to its end."""
    here = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": here}
    began = time.perf_counter()
    subprocess.run(
        command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def main(options: Options) -> None:
    """Prints a line a round, then the medians as JSON."""
    check(options)
    root = options.root.resolve()
    theirs = [sys.executable, "-c", _TORCH, str(root)]
    ours = [sys.executable, "-m", "experiments.part1_baseline", "--seeds", "0"]
    ours += ["--data.root", str(root)]
    pairs = []
    for _ in range(options.rounds):
        # A new folder each time: finished networks would be read, not trained.
        with tempfile.TemporaryDirectory() as folder:
            pairs.append((seconds_of(ours, folder), seconds_of(theirs, folder)))
            print(f"jaxvision {pairs[-1][0]:.1f} s, torch {pairs[-1][1]:.1f} s")
    print(
        json.dumps(
            {
                "jaxvision_seconds": statistics.median(a for a, _ in pairs),
                "torch_seconds": statistics.median(b for _, b in pairs),
                "ratio": statistics.median(b / a for a, b in pairs),
                "rounds": len(pairs),
            }
        )
    )


if __name__ == "__main__":
    run(Options, main, None, "python -m benchmarks.assignment", __doc__)
