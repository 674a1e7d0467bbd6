"""Which images, how they are divided, and what they may cost."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from jaxvision.config import Bounds, make_paths
from jaxvision.data.splits import SplitConfig

DemoKind = Literal["comics", "faces", "paintings"]
"""The sets that `jaxvision.data.demo` draws."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, how they are divided, and what they may cost."""

    root: Path | None = None
    """Folder with one subfolder per class, or with `train` and `test` of which each is
    such a folder, or one that `jaxvision data prepare` wrote; or a CSV of labels. None:
    the built-in drawn set."""
    labels: Path | None = None
    """CSV with the columns path and label, and perhaps split, of images anywhere below
    `root`; that is the CSV's own folder if it is not given."""
    split: SplitConfig = SplitConfig()
    folds: Annotated[int, Bounds(2)] | None = None
    """Cross-validation: so many parts of the images, each classified by a network that
    was trained on the others. Of those, some are left out to validate by, in the ratio
    of `split.train` to `split.val`. None: the splits alone."""
    splits: Path | None = None
    """A splits.csv of an earlier run, to be used again exactly, in place of `split`."""
    corrections: Path | None = None
    """CSV with the columns path, action and label, as the page of `jaxvision serve`
    writes it: images of another class (label), or to be left out (bad). The files stay
    as they are."""
    pairs: bool = True
    """Two classes of images with the same names are split by pair, so that a face
    and its own comic stay on one side; no: each image by itself."""
    on_bad: Literal["skip", "error"] = "skip"
    """An image that can't be decoded is left out and listed, or ends the run."""
    limit: Annotated[int, Bounds(1)] | None = None
    """At most this many images of each class, for trials."""
    largest_classes: Annotated[int, Bounds(2)] | None = None
    """Only this many classes: those with the most images."""
    decode: Literal["first", "while_training"] = "first"
    """first: all images before training, and the bad ones are left out before they
    are divided; while_training: each when it is first needed, so that an accelerator
    works meanwhile, but a bad one ends the run. A prepared set needs neither."""
    cache_mb: Annotated[int, Bounds(0)] = 1024
    """Decoded images are held in memory up to this many MiB, beyond it in a file."""
    cache_dir: Path | None = None
    """Folder of that file; the system's temporary folder if none."""
    num_threads: Annotated[int, Bounds(0)] = 4
    """Threads that decode images and make batches; the batches don't depend on it."""
    num_workers: Annotated[int, Bounds(0)] = 0
    """Processes that make batches, each with `num_threads`; 0: none but this one."""

    def __post_init__(self) -> None:
        make_paths(self)
