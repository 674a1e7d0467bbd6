"""Part 1.5: kernels, strides, depth, padding, shape, dense layers.

python -m experiments.part1_architecture                  # drawn paintings
python -m experiments.part1_architecture --data.root DIR
"""

import dataclasses
from typing import TYPE_CHECKING

from experiments.common import run_cli
from experiments.part1_baseline import ADAM, simple_cnn
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    Table,
    TableRow,
    effects_section,
    run_study,
    summary_section,
    table_findings,
)
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.train.sweep import Configuration


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Changes the network's architecture, one thing at a time, for 10 epochs."""


def convnet(
    optim: OptimConfig = ADAM, batch_size: int = 16, epochs: int = 10, **options: object
) -> "Configuration":
    """Three 3×3 convolutions of 16, 32 and 64 filters, each pooled; one dense layer."""
    from jaxvision.train.sweep import Configuration

    return Configuration(
        "convnet", options, optim, epochs=epochs, batch_size=batch_size
    )


def tables() -> tuple[Table, ...]:
    pooled = {"pool_kernel": 2, "pool_stride": 1, "epochs": 10}
    shapes = {"pyramid": 16, "flat": 32, "inverse": 64}
    two = "The assignment's two blocks, pools of kernel 2 and stride 1"
    three = "Three blocks of 3×3 convolutions and 2×2 pools"
    return (
        Table(
            "1.5",
            "kernel",
            f"{two}; convolutions of stride 1 with larger and larger kernels.",
            tuple(
                TableRow(f"kernel {k}", simple_cnn(kernel_size=k, stride=1, **pooled))
                for k in (3, 5, 7)
            ),
        ),
        Table(
            "1.5",
            "stride",
            f"{two}; 5×5 convolutions that skip more and more pixels.",
            tuple(
                TableRow(f"stride {s}", simple_cnn(kernel_size=5, stride=s, **pooled))
                for s in (1, 2, 3, 4)
            ),
        ),
        Table(
            "1.5",
            "depth",
            f"{three}: fewer of them, and one more; filters double.",
            tuple(
                TableRow(f"{n} block{'s' if n > 1 else ''}", convnet(blocks=n))
                for n in (1, 2, 3, 4)
            ),
        ),
        Table(
            "1.5",
            "padding",
            f"{three}: nothing added at the borders, or as much as keeps the size.",
            tuple(TableRow(p, convnet(padding=p)) for p in ("valid", "same")),
        ),
        Table(
            "1.5",
            "shape",
            f"{three}: filters that double (16, 32, 64), stay (32) or halve "
            "(64, 32, 16).",
            tuple(
                TableRow(name, convnet(shape=name, filters=filters))
                for name, filters in shapes.items()
            ),
        ),
        Table(
            "1.5",
            "dense_depth",
            f"{three}, then hidden dense layers, each half as wide as the one before.",
            tuple(TableRow(f"{n} dense", convnet(dense_layers=n)) for n in range(1, 5)),
        ),
    )


def find(study: Study) -> Findings:
    findings = table_findings(study, tables())
    findings.sections.append(
        effects_section(findings, tables(), "1.5 the largest increases and decreases")
    )
    rows = [TableRow("three blocks", convnet())]
    networks = summary_section(study, rows, "1.5 the three blocks as built")
    findings.sections.append(networks)
    return findings


def main(config: Config, study: Study | None = None) -> Published:
    return run_study(
        "part1_architecture",
        config,
        title="Part 1.5: architecture",
        question="What is the effect of larger filters, larger strides, greater depth, "
        "padding, more dense layers, and of a pyramid beside a flat network and one of "
        "the opposite shape?",
        find=find,
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
