"""Prado: what each measure of the report's training brings, left out one at a time.

python -m experiments.prado_ablation                      # drawn paintings, a try-out
python -m experiments.prado_ablation --data.root DIR      # one subfolder per painter
python -m experiments.prado_ablation --data.root DIR --image-size 64 --epochs 15
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from experiments.common import run_cli
from experiments.comparison import Compared, Way, run_comparison
from experiments.prado_scratch import (
    AUGMENT,
    Network,
    PradoConfig,
    costs,
    from_scratch,
)
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError

if TYPE_CHECKING:
    from jaxvision.report import markdown

REFERENCE = "as in the report"
"""The way that the others leave something out of."""


@dataclasses.dataclass(frozen=True)
class Config(PradoConfig):
    """Trains one network in ways that differ from the report's by one measure each."""

    augment: AugmentConfig = AUGMENT
    network: Network = "mobilenet_prado"
    """Which of the three from scratch; the default is the quickest."""
    ways: tuple[str, ...] = ()
    """Only these ways, by the names in the report; none: all. The report's own way is
    among them always."""


def changes(config: Config) -> dict[str, dict[str, object]]:
    """What each way has another setting of."""
    augment, optim = config.augment, config.optim
    replace = dataclasses.replace
    return {
        REFERENCE: {},
        "no class weights": {"class_weights": False},
        "no output biases": {"output_biases": False},
        "no weights, no biases": {"class_weights": False, "output_biases": False},
        "no PCA color": {"augment": replace(augment, pca_color=0.0)},
        "PCA color per pixel": {"augment": replace(augment, pca_per_pixel=True)},
        "no flips": {"augment": replace(augment, horizontal_flip=0.0)},
        "constant learning rate": {"optim": replace(optim, schedule="constant")},
    }


def make_ways(config: Config) -> list[Way]:
    """The report's way, and those that are asked for."""
    every = changes(config)
    if unknown := [name for name in config.ways if name not in every]:
        raise InputError(
            f"--ways {unknown[0]!r}: no such way; there are: {', '.join(every)}"
        )
    costs(config.network, config.image_size)  # refuses images that are too small
    wanted = {REFERENCE, *(config.ways or every)}
    ways = []
    for name, change in every.items():
        if name in wanted:
            own = dataclasses.replace(config, **change)
            task = partial(from_scratch, own, config.network)
            ways.append(Way(name, own, task, select=own.select))
    return ways


def effects(compared: Sequence[Compared]) -> "list[markdown.Section]":
    """Every way against the report's, seed by seed."""
    from experiments.comparison import spread
    from jaxvision.report import markdown

    reference, *others = compared
    if not others:
        return []
    held_out = "test" if "test_accuracy" in reference.measurements else "val"
    metrics = [
        f"{held_out}_{name}" for name in ("accuracy", "balanced_accuracy", "macro_f1")
    ]

    def change(one: Compared, metric: str) -> str:
        ours, theirs = one.measurements[metric], reference.measurements[metric]
        pairs = zip(ours.values, theirs.values, strict=True)
        return spread(dataclasses.replace(ours, values=[a - b for a, b in pairs]))

    rows = [[one.way.name, *(change(one, name) for name in metrics)] for one in others]
    header = ["", *(f"change of {name.replace('_', ' ')}" for name in metrics)]
    count = len(reference.histories)
    note = (
        f"*Against “{REFERENCE}”, seed by seed: mean ± sd of {count} difference(s). "
        "A change of less than its sd can be chance.*"
    )
    blocks = [markdown.Table(header, rows), markdown.Text(note)]
    return [markdown.Section("What leaving it out changes", blocks)]


def main(config: Config) -> None:
    run_comparison(
        "prado_ablation",
        config.limited(),
        title="Prado: what each measure brings",
        question="What do class weights, output biases, color augmentation, mirror "
        "images and a falling learning rate bring?",
        make_ways=make_ways,
        sections=effects,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
