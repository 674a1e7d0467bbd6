"""Part 1.3: max pooling after each convolution.

python -m experiments.part1_pooling                       # drawn paintings
python -m experiments.part1_pooling --data.root DIR       # one subfolder per painter
"""

import dataclasses

from experiments.common import run_cli
from experiments.part1_baseline import simple_cnn
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

POOLS = ((2, 2), (2, 1), (3, 2), (3, 1))
"""Kernel and stride."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Trains the first network without and with pooling, for 50 epochs."""


def tables() -> tuple[Table, ...]:
    rows = [TableRow("no pooling", simple_cnn())] + [
        TableRow(
            f"kernel {kernel}, stride {stride}",
            simple_cnn(pool_kernel=kernel, pool_stride=stride),
        )
        for kernel, stride in POOLS
    ]
    about = "Max pooling after each convolution's ReLU, of several sizes and strides."
    return (Table("1.3", "pooling", about, tuple(rows)),)


def find(study: Study) -> Findings:
    findings = table_findings(study, tables())
    findings.sections.append(effects_section(findings, tables(), "1.3 its effect"))
    networks = summary_section(study, tables()[0].rows, "1.3 the networks as built")
    findings.sections.append(networks)
    return findings


def main(config: Config, study: Study | None = None) -> Published:
    return run_study(
        "part1_pooling",
        config,
        title="Part 1.3: pooling",
        question="What does max pooling do to training and validation accuracy?",
        find=find,
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
