"""Settings of the report on changed images.

They stand apart from what reads them: help need not wait for JAX.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from jaxvision.config import Bounds


@dataclasses.dataclass(frozen=True)
class RobustnessConfig:
    """Measures a trained network, all its seeds, under blur, rotation, noise, …"""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    compare: Path | None = None
    """Folder of a second network, such as one that was trained with augmentation."""
    split: Literal["train", "val", "test"] = "val"
    """Which part of the images."""
    root: Path | None = None
    """Folder of the images, where it has moved; they are matched by name."""
    transforms: tuple[str, ...] = ()
    """Names of changes; none: those of the assignment."""
    image: str | None = None
    """The image on the contact sheet, as its path in the folder; none: the first
    that the network classifies correctly."""
    label: str = "trained"
    """Name of the network in figures and tables."""
    compare_label: str = "compared"
    """Name of the second network."""
    seed: Annotated[int, Bounds(0)] = 0
    """Of the places, directions and signs of the changes."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""


@dataclasses.dataclass(frozen=True)
class RobustnessOptions:
    """Under which changes the networks of an experiment are measured."""

    transforms: tuple[str, ...] = ()
    """Names of changes; none: those of the assignment."""
