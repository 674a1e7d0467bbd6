"""Peak memory of preparing and of training with few and with many images.

    python -m benchmarks.input_memory --root DIR --counts 2000 20000

Every figure is the peak resident memory of a process of its own, from the system's
accounts (`ru_maxrss`). Training is an epoch of a small network on 96×96 gray images,
so that what grows with the images is not hidden by the network.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from benchmarks.harness import Result
from jaxvision.cli.flags import run as run_command
from jaxvision.config import Bounds, check
from jaxvision.data import DataConfig, load_dataset
from jaxvision.data.folder import index_folder
from jaxvision.data.prepare import PrepareConfig, prepare
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.report.markdown import Section, Table, Text

PREPROCESSING = Preprocessing((96, 96), "stretch", gray=True, mean=(0.0,), std=(255.0,))
CACHE_MB = 64
"""Of decoded images that training from a folder may hold: below what 20,000 take."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to read, and how much of it."""

    root: Path
    """Folder with one subfolder per class, with at least the most images asked for."""
    counts: tuple[Annotated[int, Bounds(1)], ...] = (2000, 20000)
    """Numbers of images."""
    processes: Annotated[int, Bounds(1)] = os.cpu_count() or 1
    """That prepare."""


def run(root: Path, counts: Sequence[int], processes: int) -> Result:
    """Measures all of them, one process after the other.

    Args:
      root: folder with at least the largest of `counts` images, evenly of its
        classes; links to its files are made beside it for a while.
      counts: numbers of images.
      processes: that prepare.
    """
    rows, figures = [], []
    with tempfile.TemporaryDirectory(dir=root.resolve().parent) as folder:
        for count in counts:
            images, out = Path(folder, f"{count}"), Path(folder, f"{count}-prepared")
            _link(root, images, count)
            measured = {
                "prepare": _peaks("prepare", images, out, processes),
                "train, folder": _peaks("train", images, CACHE_MB),
                "train, prepared": _peaks("train", out, CACHE_MB),
            }
            for name, (own, worker) in measured.items():
                rows.append(
                    [name, count, f"{own:.0f}", f"{worker:.0f}" if worker else "–"]
                )
                figures.append(
                    {"what": name, "images": count, "mib": own, "worker_mib": worker}
                )
    notes = (
        f"MiB at the peak, of the process itself and of the largest of {processes} "
        "that it started to decode. What grows with the images is the list of them: "
        "path, digest, label and place, also in the manifest that is written and read "
        f"as a whole. Training from a folder holds decoded images up to {CACHE_MB} "
        "MiB (`--data.cache-mb`), 9 KiB each, beyond that none. Training is an epoch "
        "of a small network."
    )
    header = ["", "images", "MiB", "a worker, MiB"]
    return Result("Memory", notes, header, rows, figures)


def _link(root: Path, out: Path, count: int) -> None:
    """The first images of each class, as hard links."""
    folder_index = index_folder(root)
    each = count // len(folder_index.classes)
    taken = dict.fromkeys(range(len(folder_index.classes)), 0)
    for image, label in zip(folder_index.images, folder_index.labels, strict=True):
        if taken[label] < each:
            taken[label] += 1
            (out / image).parent.mkdir(parents=True, exist_ok=True)
            os.link(root / image, out / image)
    if min(taken.values()) < each:
        raise InputError(f"{root}: has fewer than {each} images of a class")


def _peaks(what: str, *arguments: object) -> tuple[float, float]:
    """MiB of a process and of the largest that it started."""
    command = [sys.executable, "-c", _MEASURE, what]
    done = subprocess.run(
        [*command, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    own, worker = json.loads(done.stdout.splitlines()[-1])
    return own, worker


_MEASURE = """
import sys
from benchmarks.input_memory import measure

measure(*sys.argv[1:])
"""


def _prepare(root: str, out: str, processes: str) -> None:
    prepare(
        PrepareConfig(
            Path(root),
            Path(out),
            PREPROCESSING.size,
            gray=True,
            processes=int(processes),
        )
    )


def _train(root: str, cache_mb: str) -> None:
    from jaxvision.metrics import make_cross_entropy
    from jaxvision.models import create_model
    from jaxvision.optim import OptimConfig, make_optimizer
    from jaxvision.training.loop import fit
    from jaxvision.training.state import create_state, init_variables

    config = DataConfig(Path(root), cache_mb=int(cache_mb))
    dataset = load_dataset(config).decode(PREPROCESSING)
    batches = dataset.batches("train", batch_size=32, train=True)
    model = create_model("simple_cnn", len(dataset.classes))
    steps = batches.steps_per_epoch
    tx = make_optimizer(OptimConfig(), steps_per_epoch=steps, epochs=1)
    variables = init_variables(model, 0, (*PREPROCESSING.size, 1))
    fit(
        model,
        tx,
        make_cross_entropy(),
        create_state(variables, tx, seed=0),
        batches,
        val=dataset.batches("val", batch_size=32, train=False),
        normalize=PREPROCESSING.normalize,
        epochs=1,
    )


MEASURED: dict[str, Callable[..., None]] = {"prepare": _prepare, "train": _train}


def measure(what: str, *arguments: str) -> None:
    """Does one of `MEASURED`, and prints what it took."""
    MEASURED[what](*arguments)
    own, worker = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps([own, worker]))


def main(options: Options) -> None:
    """Prints the table."""
    check(options)
    result = run(options.root, options.counts, options.processes)
    blocks = [Table(result.header, result.rows), Text(result.notes)]
    print(Section(result.heading, blocks).render())


if __name__ == "__main__":
    run_command(Options, main, None, "python -m benchmarks.input_memory", __doc__)
