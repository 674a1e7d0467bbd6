"""Whole experiments from the start of their process: to a first step, to the report.

Fine-tuning has a plain PyTorch script beside it, see `torch_finetune`.
"""

import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Result, Timing

ROOT = Path(__file__).resolve().parents[1]

FINETUNE = (
    "experiments.part2_finetune",
    "--backbone",
    "efficientnet_lite0",
    "--image-size",
    "128",
    "--seeds",
    "0",
)

EXPERIMENTS = {
    "part1_baseline": ("experiments.part1_baseline", "--seeds", "0"),
    "part2_mlp": ("experiments.part2_mlp", "--seeds", "0"),
    "part2_features": (
        "experiments.part2_features",
        *FINETUNE[1:],
    ),
    "part2_finetune": (*FINETUNE, "--epochs", "2"),
}
"""On the images that come with the project."""

_FIRST_STEP = """
import os, runpy, sys
from jaxvision.report.progress import TrainingProgress

def on_step(self, step, images, metrics):
    if metrics is not None:  # the first that is computed
        os._exit(0)

TrainingProgress.on_step = on_step
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Ends an experiment as soon as it shows what a training step has given."""


def first_step(*, quick: bool) -> Result:
    """Seconds until fine-tuning shows its first step: cold, and with compiled programs
    kept from an earlier start."""
    rounds = 1 if quick else 3
    command = [sys.executable, "-c", _FIRST_STEP, *FINETUNE]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        # Draws the images and converts the weights, which is another matter.
        _seconds_of(command, folder)
        cold, warm = [], []
        for _ in range(rounds):
            shutil.rmtree(cache / "xla")
            cold.append(_seconds_of(command, folder))
            # It ended before evaluation was compiled, as a whole run does not.
            _seconds_of(command, folder)
            warm.append(_seconds_of(command, folder))
        size = sum(p.stat().st_size for p in (cache / "xla").rglob("*") if p.is_file())
    return Result(
        "Start",
        "Seconds from the start of the process to the first training step of "
        "`part2_finetune` (EfficientNet-Lite0 at 128×128, batch 32). Cold: everything "
        f"is compiled. Warm: compiled programs are read, {size / 1e6:.0f} MB.",
        ("start", "seconds"),
        [[name, _seconds(s)] for name, s in (("cold", cold), ("warm", warm))],
        [{"start": "cold", "seconds": cold}, {"start": "warm", "seconds": warm}],
    )


def finetuning(*, quick: bool, faces: Path | None = None) -> Result:
    """Fine-tuning from the start of the process to the report, beside PyTorch: cold,
    with nothing cached, and warm, the same command again.

    Args:
      quick: one round of the three, not two; of 2 epochs.
      faces: FaceScrub's six people, one subfolder per person; None: the drawn faces.
    """
    epochs, size = (2, 96) if quick else (8, 160)
    found: dict[str, list[_Finetuning]] = {"cold": [], "PyTorch": [], "warm": []}
    for _ in range(1 if quick else 2):
        with tempfile.TemporaryDirectory() as folder:
            options = (faces, Path(folder), epochs, size)
            found["cold"].append(_ours(*options))
            found["PyTorch"].append(_theirs(*options))
            found["warm"].append(_ours(*options))
    return _beside_torch(
        "Fine-tuning, from start to end",
        "From the start of the process to its end: `part2_finetune` with its report, "
        f"and a plain PyTorch script (EfficientNet-Lite0 at {size}×{size}, {epochs} "
        "epochs, batch 32, one seed, the same images in the same splits; two loader "
        "workers, channels_last, AdamW), in turn. Cold: nothing is cached. Warm: the "
        "same command again. Processor seconds are those of all threads and processes.",
        found,
    )


def memory(*, quick: bool, faces: Path | None = None) -> Result:
    """Peak memory of an epoch of fine-tuning at 224 pixels, beside PyTorch.

    Args:
      quick: plays no part.
      faces: as of `finetuning`.
    """
    del quick
    with tempfile.TemporaryDirectory() as folder:
        options = (faces, Path(folder), 1, 224)
        ours, theirs = _ours(*options), _theirs(*options)
    return _beside_torch(
        "Fine-tuning, peak memory",
        "The largest resident memory of the process, compiling included, in one epoch "
        "of EfficientNet-Lite0 at 224×224, batch 32; else as above. That of PyTorch is "
        "without its loader workers.",
        {"cold": [ours], "PyTorch": [theirs]},
    )


@dataclasses.dataclass(frozen=True)
class _Finetuning:
    """What a process that fine-tunes took, and reached."""

    seconds: float
    processor_seconds: float
    peak_mb: float
    test_accuracy: float


def _ours(faces: Path | None, folder: Path, epochs: int, size: int) -> _Finetuning:
    data = []
    if faces is not None:
        data = ["--data.root", str(faces.resolve())]
        data += ["--data.split.train-per-class", "70"]
    command = [sys.executable, "-m", *FINETUNE, *data]
    command += ["--image-size", str(size), "--epochs", str(epochs)]
    usage, printed = _run(command, folder)
    results = folder / printed.split()[-1] / "results.json"
    figures = json.loads(results.read_text("utf-8"))["figures"]
    return _Finetuning(*usage, figures["test_accuracy"]["mean"])


def _theirs(faces: Path | None, folder: Path, epochs: int, size: int) -> _Finetuning:
    """On the images and splits of the run of ours that lies in the folder."""
    (splits,) = folder.glob("checkpoints/part2_finetune/*/seed-0/splits.csv")
    card = json.loads((splits.parent / "card.json").read_text("utf-8"))
    command = [sys.executable, "-m", "benchmarks.torch_finetune"]
    command += ["--root", card["data"]["root"], "--splits", str(splits)]
    command += ["--image-size", str(size), "--epochs", str(epochs)]
    usage, printed = _run(command, folder)
    return _Finetuning(*usage, float(printed.split()[-1]))


def _beside_torch(
    heading: str, notes: str, found: Mapping[str, Sequence[_Finetuning]]
) -> Result:
    names = [field.name for field in dataclasses.fields(_Finetuning)]
    rows, figures = [], []
    torch = found["PyTorch"]
    for name, several in found.items():
        values = {key: [getattr(one, key) for one in several] for key in names}
        medians = {key: statistics.median(column) for key, column in values.items()}
        ratios = [
            mine.seconds / theirs.seconds
            for mine, theirs in zip(several, torch, strict=True)
        ]
        rows.append(
            [
                name,
                _seconds(values["seconds"]),
                f"{statistics.median(ratios):.2f}",
                f"{medians['processor_seconds']:.1f}",
                f"{medians['peak_mb']:.0f}",
                f"{medians['test_accuracy']:.3f}",
            ]
        )
        figures.append({"start": name, **values})
    header = (
        "", "seconds", "of PyTorch's", "processor seconds", "peak MB", "test accuracy",
    )  # fmt: skip
    return Result(heading, notes, header, rows, figures)


def experiments(*, quick: bool) -> Result:
    """Seconds of whole experiments, from the start of the process to their report."""
    names = ["part1_baseline", "part2_features"] if quick else list(EXPERIMENTS)
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            command = [sys.executable, "-m", *EXPERIMENTS[name]]
            # Each finished run is another's folder but for the cache: nothing that
            # one of them trained or computed is read by the next.
            seconds = []
            for _ in range(2):
                for left in ("checkpoints", "runs", "cache/features"):
                    shutil.rmtree(Path(folder) / left, ignore_errors=True)
                seconds.append(_seconds_of(command, folder))
            first, second = seconds
            rows.append([name, f"{first:.1f}", f"{second:.1f}"])
            figures.append({"experiment": name, "seconds": seconds})
    return Result(
        "Whole experiments",
        "Seconds from the start of the process to the written report, one seed, on the "
        "images that come with the project: the first time in a fresh folder "
        "(images are drawn, weights converted, programs compiled), and again.",
        ("experiment", "first", "again"),
        rows,
        figures,
    )


def _seconds_of(command: Sequence[str], folder: str) -> float:
    """Wall time of a process that works in `folder` alone."""
    (seconds, *_), _ = _run(command, Path(folder))
    return seconds


def _run(
    command: Sequence[str], folder: Path
) -> tuple[tuple[float, float, float], str]:
    """Runs a process that works in `folder` alone.

    Returns:
      Its wall time and processor time in seconds and its peak memory in MB, and what it
      printed.

    Raises:
      RuntimeError: it failed; with what it printed to stderr.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAXVISION_CACHE": str(Path(folder) / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=err
        )
        # `Popen.wait` keeps what the process has used to itself.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            err.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{err.read()[-2000:]}")
        out.seek(0)
        printed = out.read()
    processor = usage.ru_utime + usage.ru_stime
    return (seconds, processor, usage.ru_maxrss / 1000), printed


def _seconds(seconds: list[float]) -> str:
    timing = Timing(tuple(seconds))
    low, high = timing.quartiles
    return f"{timing.median:.1f} ({low:.1f}–{high:.1f})"
