"""Seconds an image for each way to explain a network's answer.

python -m benchmarks.explain                      # EfficientNet-Lite0, batches of 8
python -m benchmarks.explain --rounds 3 --methods gradient grad_cam

Compiling is measured apart, by the first call; programs of earlier runs are not used.
"""

import dataclasses
import statistics
import time
from typing import Annotated

from jaxvision.cli.flags import run
from jaxvision.config import Bounds, check


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    batch_size: Annotated[int, Bounds(1)] = 8
    """Images at once."""
    rounds: Annotated[int, Bounds(1)] = 5
    """Measurements of each method, at most, of which the median counts."""
    budget: float = 60.0
    """Seconds after which a method is not measured again."""
    methods: tuple[str, ...] = ()
    """Names of `jaxvision.explain.methods.METHODS`; none: all of them."""


def main(config: Config) -> None:
    import jax
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from jaxvision.explain.methods import METHODS, TrainedNetwork, find_method
    from jaxvision.models import create_model
    from jaxvision.pretrained import load
    from jaxvision.pretrained.golden import drawn_image

    check(config)
    methods = {name: find_method(name) for name in config.methods or METHODS}
    pretrained = load("efficientnet_lite0")
    source = pretrained.source
    model = create_model(source.model, source.num_classes)
    network = TrainedNetwork(model, pretrained.variables, source.preprocessing)
    image = drawn_image(source.preprocessing.size[0])
    images = np.stack([np.roll(image, 9 * n, 1) for n in range(config.batch_size)])
    device = jax.devices()[0].device_kind
    table = Table(title=f"{source.name}, batches of {config.batch_size}, on {device}")
    for name in ("method", "seconds an image", "lowest", "highest", "first call, s"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method in methods.values():

        def seconds(method=method) -> float:
            began = time.perf_counter()
            jax.block_until_ready(method.explain(network, images, 1))
            return time.perf_counter() - began

        first = seconds()
        each: list[float] = []
        while len(each) < config.rounds and sum(each) < config.budget:
            each.append(seconds())
        figures = (statistics.median(each), min(each), max(each))
        cells = [f"{figure / config.batch_size:.3f}" for figure in figures]
        table.add_row(method.name, *cells, f"{first:.1f}")
    Console().print(table)


if __name__ == "__main__":
    run(Config, main, None, "python -m benchmarks.explain", __doc__)
