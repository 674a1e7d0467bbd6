"""Part 1.2: the assignment's first network, as it is built and as it learns.

python -m experiments.part1_baseline                      # drawn paintings
python -m experiments.part1_baseline --data.root DIR      # one subfolder per painter
"""

import dataclasses
from typing import TYPE_CHECKING

from experiments.common import run_cli
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    Table,
    TableRow,
    run_study,
    summary_section,
    table_findings,
)
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.train.sweep import Configuration

ADAM = OptimConfig("adam", 1e-4)
"""The optimizer that the assignment's code comes with."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Trains two convolutions and two dense layers, for 50 epochs."""


def simple_cnn(optim: OptimConfig = ADAM, **options: object) -> "Configuration":
    """The assignment's network and training; what differs is given."""
    from jaxvision.train.sweep import Configuration

    names = {field.name for field in dataclasses.fields(Configuration)}
    changes = {name: options.pop(name) for name in names & set(options)}
    return dataclasses.replace(
        Configuration("simple_cnn", options, optim, epochs=50, batch_size=16), **changes
    )


def tables() -> tuple[Table, ...]:
    row = TableRow("baseline", simple_cnn())
    about = "What does the network of the assignment's code learn?"
    return (Table("1.2", "baseline", about, (row,)),)


def find(study: Study) -> Findings:
    findings = table_findings(study, tables())
    summary = summary_section(study, tables()[0].rows, "1.2 the network as built")
    findings.sections.insert(0, summary)
    return findings


def main(config: Config, study: Study | None = None) -> Published:
    return run_study(
        "part1_baseline",
        config,
        title="Part 1.2: the first network",
        question="How many layers are there, what are they, how is the network "
        "trained, and what do its training and validation accuracy say?",
        find=find,
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
