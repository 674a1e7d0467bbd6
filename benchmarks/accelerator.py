"""On an accelerator: images a second, share of the peak, models a second."""

import dataclasses
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import Result, time_in_turn
from benchmarks.networks import CASES, Case, count_work, make_problem, our_step
from experiments.part1_baseline import PART1
from jaxvision.data.dataset import load_dataset
from jaxvision.data.demo import DemoConfig, write_demo
from jaxvision.models import MODELS
from jaxvision.recipe import make_start
from jaxvision.training.sweep import run_sweep

PEAKS = {
    # Dense bfloat16 products, float32 products, in 1e12 operations a second, from the
    # makers' data sheets; float32 in the matrix units (TF32) where the default uses it.
    "A100": (312, 156),
    "H100": (989, 495),
    "H200": (989, 495),
    "L4": (121, 60),
    "T4": (65, 8.1),
    "TPU v4": (275, None),
    "TPU v5 lite": (197, None),
}
"""By a part of `jax.Device.device_kind`."""


def here() -> bool:
    """Whether jax computes on something else than a CPU."""
    return jax.default_backend() != "cpu"


def throughput(
    *, quick: bool, names: tuple[str, ...] = (), batch_size: int = 256
) -> Result:
    """Training steps in bfloat16 and float32 on images that lie on the device."""
    device = jax.devices()[0]
    rows, figures = [], []
    for name in names or CASES:
        if name not in MODELS:
            continue
        case = dataclasses.replace(CASES[name], batch_size=batch_size)
        for dtype in (jnp.bfloat16, jnp.float32):
            figure = _throughput(name, case, dtype, quick)
            share = _share(figure["flops_per_second"], dtype, device.device_kind)
            figures.append({**figure, "share_of_peak": share})
            rows.append(
                [
                    name,
                    figure["dtype"],
                    "×".join(map(str, (batch_size, *case.image_shape))),
                    f"{figure['images_per_second']:,.0f}",
                    f"{figure['flops_per_second'] / 1e12:.2f}",
                    f"{100 * figure['share_of_product_rate']:.1f} %",
                    "–" if share is None else f"{100 * share:.1f} %",
                ]
            )
            gc.collect()
            jax.clear_caches()
    return Result(
        "Training on the accelerator",
        f"{device.device_kind}. Images a second of the experiments' training step; "
        "operations are counted from the layers (two for each multiply-add, forward "
        "and backward); shares are of a large matrix product measured here in the same "
        "dtype, and of the data sheet's peak.",
        (
            "network",
            "dtype",
            "batch",
            "images/s",
            "1e12 operations/s",
            "of the product rate",
            "of the peak",
        ),
        rows,
        figures,
    )


def _throughput(name: str, case: Case, dtype: Any, quick: bool) -> dict:
    problem = make_problem(name, case)
    backbone = problem.model.backbone.clone(dtype=dtype)
    problem = dataclasses.replace(problem, model=problem.model.clone(backbone=backbone))
    _, work = count_work(problem)
    contestants = {
        "step": our_step(problem),
        # What fills an accelerator takes a CPU, where this is only tried, minutes.
        "product": _Product(dtype, 8192 if here() else 512),
    }
    timings = time_in_turn(contestants, budget_seconds=2 if quick else 10)
    flops = work.flops / timings["step"].median
    product_flops = 2 * contestants["product"].size ** 3 / timings["product"].median
    return {
        "network": name,
        "dtype": np.dtype(dtype).name,
        "batch_size": case.batch_size,
        "seconds": list(timings["step"].seconds),
        "images_per_second": case.batch_size / timings["step"].median,
        "flops_per_second": flops,
        "share_of_product_rate": flops / product_flops,
    }


class _Product:
    """A large matrix product."""

    def __init__(self, dtype: Any, size: int) -> None:
        self.size = size
        # Not all the same number: chips draw less power on those, and run faster.
        self._a = jax.random.normal(jax.random.key(0), (size, size), dtype)
        self._dot = jax.jit(jnp.dot)

    def __call__(self) -> None:
        self._dot(self._a, self._a).block_until_ready()


def _share(flops: float, dtype: Any, device_kind: str) -> float | None:
    for kind, peaks in PEAKS.items():
        if kind in device_kind:
            peak = peaks[0 if dtype == jnp.bfloat16 else 1]
            return None if peak is None else flops / (peak * 1e12)
    return None


def sweep(*, quick: bool) -> Result:
    """Models a second of a sweep: `simple_cnn` on drawn paintings, many at once."""
    epochs, counts = (2, (1, 8)) if quick else (50, (1, 16, 64, 256))
    rows, figures = [], []
    with tempfile.TemporaryDirectory() as folder:
        count = 24 if quick else None
        write_demo(DemoConfig("paintings", Path(folder), count=count, processes=1))
        start = make_start(PART1.replace(epochs=epochs))
        dataset = load_dataset(folder).decode(start.preprocessing)
        for count in counts:
            seeds = dict.fromkeys(range(count), dataset)
            began = time.perf_counter()
            run_sweep([start], seeds, models_at_once=count)
            seconds = time.perf_counter() - began
            rows.append([count, f"{seconds:.1f}", f"{count / seconds:.2f}"])
            figures.append({"models": count, "seconds": seconds, "epochs": epochs})
    return Result(
        "Sweeps",
        f"`simple_cnn`, {epochs} epochs of {len(dataset.splits['train'])} drawn "
        "paintings of 50×50 in batches of 16: this many models at once, compiling "
        "included.",
        ("models", "seconds", "models/s"),
        rows,
        figures,
    )
