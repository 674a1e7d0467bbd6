"""Whole experiments from the start of their process: to a first step, to the report."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
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
    command = [sys.executable, "-c", _FIRST_STEP, *FINETUNE, "--head-epochs", "0"]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        # Draws the images and converts the weights, which is another matter.
        _seconds_of(command, folder)
        cold, warm = [], []
        for _ in range(rounds):
            shutil.rmtree(cache / "xla")
            cold.append(_seconds_of(command, folder))
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
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAXVISION_CACHE": str(Path(folder) / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return seconds


def _seconds(seconds: list[float]) -> str:
    timing = Timing(tuple(seconds))
    low, high = timing.quartiles
    return f"{timing.median:.1f} ({low:.1f}–{high:.1f})"
