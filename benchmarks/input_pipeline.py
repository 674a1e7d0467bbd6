"""Images a second from JPEG 1024×1024 to 96×96 gray, beside a PyTorch DataLoader.

    python -m benchmarks.input_pipeline --root DIR      # images that are there

Every contestant reads the same files with the same number of workers: processes where
it prepares and in PyTorch, threads where jaxvision feeds training.
"""

import dataclasses
import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from benchmarks.harness import Result, Timing, time_in_turn, times
from jaxvision.cli.flags import run as run_command
from jaxvision.config import Bounds, check
from jaxvision.data import DataConfig, decode, load_dataset
from jaxvision.data.demo import DemoConfig, write_demo
from jaxvision.data.folder import index_folder
from jaxvision.data.prepare import PrepareConfig, prepare
from jaxvision.data.workers import map_in_order
from jaxvision.preprocessing import Preprocessing
from jaxvision.report.markdown import Section, Table, Text
from jaxvision.storage import cache_folder

PREPROCESSING = Preprocessing((96, 96), "stretch", gray=True)
BATCH_SIZE = 32
IMAGES = cache_folder() / "benchmarks" / "comics-1024"
"""Where images are drawn if none are given; they stay for the next time."""

TORCH = "PyTorch DataLoader, every epoch"
TORCH_COLOR = "PyTorch DataLoader, resized before it is made gray"
BOUND = "decoder alone (libjpeg-turbo, from memory)"
PREPARED = "training from the prepared set"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read, and with how many workers."""

    root: Path | None = None
    """Folder with one subfolder per class; by default drawn comics."""
    workers: Annotated[int, Bounds(1)] | None = None
    """Of each contestant; by default one a CPU core."""
    quick: bool = False
    """Fewer images and rounds."""


def run(*, quick: bool, root: Path | None = None, workers: int | None = None) -> Result:
    """Measures all of them in turn.

    Args:
      quick: fewer images and rounds.
      root: folder with one subfolder per class; default: drawn comics.
      workers: of each contestant; default: one a CPU core.
    """
    workers = workers or os.cpu_count() or 1
    if root is None:
        count = 60 if quick else 600
        root = IMAGES.with_name(f"{IMAGES.name}-{count}")
        write_demo(DemoConfig("comics", root, count=count, size=1024))
    paths = [root / image for image in index_folder(root).images]
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared")
        prepare(_prepared(root, prepared, workers))
        # Long enough to be measured, and so that beginning does not count.
        epochs = max(1, 10_000 // len(paths))
        contestants = {
            TORCH: partial(_torch_epoch, paths, workers),
            TORCH_COLOR: partial(_torch_epoch, paths, workers, gray_first=False),
            "preparation": partial(_prepare, root, Path(folder, "again"), workers),
            "first epoch from the folder, decoded first": partial(
                _train, DataConfig(root, num_threads=workers), 1
            ),
            "first epoch from the folder, decoded while training": partial(
                _train,
                DataConfig(root, num_threads=workers, decode="while_training"),
                1,
            ),
            PREPARED: partial(
                _train, DataConfig(prepared, num_threads=workers), epochs
            ),
            BOUND: partial(_decode_alone, [p.read_bytes() for p in paths], workers),
        }
        timings = time_in_turn(
            contestants,
            budget_seconds=1 if quick else 300,
            least_rounds=1 if quick else 3,
            most_rounds=5,
        )
    images = {name: epochs if name == PREPARED else 1 for name in contestants}
    return _result(
        {
            name: Timing(tuple(s / images[name] for s in timing.seconds))
            for name, timing in timings.items()
        },
        paths,
        workers,
    )


def _result(timings: Mapping[str, Timing], paths: list[Path], workers: int) -> Result:
    count = len(paths)
    rows, figures = [], []
    for name, timing in timings.items():
        low, high = (count / seconds for seconds in reversed(timing.quartiles))
        ratio = timings[TORCH].ratio_to(timing)
        of_bound = timings[BOUND].ratio_to(timing)
        rows.append(
            [
                name,
                f"{count / timing.median:.0f} ({low:.0f}–{high:.0f})",
                f"{count / timing.median / workers:.0f}",
                times(ratio),
                "–" if name == PREPARED else f"{100 * of_bound:.0f} %",
            ]
        )
        figures.append(
            {
                "name": name,
                "images": count,
                "workers": workers,
                "seconds": list(timing.seconds),
                "images_per_second": count / timing.median,
                "times_torch": ratio,
                "of_decoder": of_bound,
            }
        )
    size = sum(path.stat().st_size for path in paths) / count
    with Image.open(paths[0]) as image:
        shape = f"{image.width}×{image.height}"
    notes = (
        f"{count} JPEGs of {shape} and {size / 1e3:.0f} KB on average, read from the "
        f"page cache, to 96×96 gray in batches of {BATCH_SIZE}; {workers} workers "
        "each: processes for PyTorch and for the preparation, threads for jaxvision's "
        "training input. PyTorch decodes with Pillow as torchvision's ImageFolder "
        "does, at full scale; jaxvision at the smallest of libjpeg-turbo's scales that "
        "leaves twice the pixels wanted. The decoder alone is Pillow's decoding at "
        "that scale of files in memory, without hashing, resizing or batches. Every "
        "time includes starting the workers and reading the list of images."
    )
    header = ["", "images/s (quartiles)", "a worker", "times PyTorch", "of decoder"]
    return Result("Input pipeline", notes, header, rows, figures)


def _train(config: DataConfig, epochs: int) -> None:
    """What training waits for: finding, decoding and splitting, then every batch."""
    dataset = load_dataset(config).decode(PREPROCESSING)
    indices = np.arange(len(dataset.images))
    batches = dataset.batches(indices, batch_size=BATCH_SIZE, train=True)
    with batches.iterate() as iterator:
        for _ in range(epochs * batches.steps_per_epoch):
            next(iterator)


def _prepared(root: Path, out: Path, workers: int) -> PrepareConfig:
    size = PREPROCESSING.size
    return PrepareConfig(root, out, size, gray=True, processes=workers)


def _prepare(root: Path, out: Path, workers: int) -> None:
    prepare(_prepared(root, out, workers))
    shutil.rmtree(out)


def _decode_alone(files: list[bytes], workers: int) -> None:
    """Pillow's decoder, at the scale that jaxvision uses, and nothing else."""
    with ThreadPoolExecutor(workers) as pool:
        for _ in map_in_order(pool, _decode, files, ahead=4 * workers):
            pass


def _decode(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    width, height = (decode.DRAFT_MARGIN * s for s in PREPROCESSING.size)
    image.draft("L", (width, height))
    image.load()


class _TorchImages:
    """A map-style data set as torchvision's ImageFolder with the same transforms.

    gray_first: Grayscale before Resize, which is the quicker order, and ours.
    """

    def __init__(self, paths: list[Path], *, gray_first: bool = True) -> None:
        self._paths = paths
        self._gray_first = gray_first

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        with open(self._paths[index], "rb") as file:
            image = Image.open(file).convert("RGB")
        if self._gray_first:
            image = image.convert("L")
        height, width = PREPROCESSING.size
        image = image.resize((width, height), Image.Resampling.BILINEAR).convert("L")
        return np.array(image)[None]


def _torch_epoch(paths: list[Path], workers: int, *, gray_first: bool = True) -> None:
    from torch.utils.data import DataLoader

    # A map-style set is whatever has a length and items; the type wants a subclass.
    images: Any = _TorchImages(paths, gray_first=gray_first)
    loader = DataLoader(
        images, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers
    )
    for _ in loader:
        pass


def main(options: Options) -> None:
    """Prints the table."""
    check(options)
    result = run(quick=options.quick, root=options.root, workers=options.workers)
    blocks = [Table(result.header, result.rows), Text(result.notes)]
    print(Section(result.heading, blocks).render())


if __name__ == "__main__":
    run_command(Options, main, None, "python -m benchmarks.input_pipeline", __doc__)
