"""Part 2.3: what hidden units look for, as images.

python -m experiments.part2_weights                       # drawn faces, a try-out
python -m experiments.part2_weights --data.root DIR       # one subfolder per person
"""

import dataclasses
from pathlib import Path

from experiments.common import run_cli
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    Table,
    TableRow,
    effects_section,
    run_study,
    table_findings,
)
from jaxvision.data.dataset import DataConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.optim import OptimConfig
from jaxvision.preprocessing import Preprocessing
from jaxvision.train.sweep import Configuration

IMAGES = Preprocessing(size=(28, 28), resize_mode="stretch")
"""As in part 2.1: 28×28, values from -1 to 1."""

HIDDEN = (300, 800)

PENALTY = 0.01
"""Factor of the L2 term where there is one."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Trains four perceptrons and shows the weights of their hidden units."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each: seed of the split, the initialization and the order."""
    checkpoints: Path = Path("checkpoints")
    """Finished networks are kept in its subfolder `part2` and not trained again."""
    person: str | None = None
    """Class whose most weighted units are shown; none: the first."""
    units: tuple[int, ...] = ()
    """Further units, by index; none: the first and the middle one."""


def table() -> Table:
    rows = [
        TableRow(
            f"{hidden} hidden, {'L2' if penalty else 'no L2'}",
            Configuration(
                "mlp",
                {"hidden": hidden},
                OptimConfig("adam", 1e-3, schedule="cosine", weight_decay=penalty),
                epochs=50,
                batch_size=32,
                augment=AugmentConfig(horizontal_flip=0.5, translation=0.05),
            ),
            save=True,
        )
        for hidden in HIDDEN
        for penalty in (0.0, PENALTY)
    ]
    about = "One hidden layer on raw pixels, of two widths, without and with L2."
    return Table("2.3", "weights", about, tuple(rows))


def find(config: Config, study: Study) -> Findings:
    from experiments.weights_report import add_images, choose_person
    from jaxvision.explain.weights import check_units

    # Before anything is trained.
    person = choose_person(study.dataset, config.person)
    check_units(config.units, min(HIDDEN))
    findings = table_findings(study, [table()])
    findings.sections.append(effects_section(findings, [table()], "2.3 effects"))
    add_images(findings, study, person, config.units)
    return findings


def main(config: Config) -> Published:
    study = Study(config, IMAGES, demo_kind="faces", part="part2")
    return run_study(
        "part2_weights",
        config,
        title="Part 2.3: weights as images",
        question="What do the hidden units of a perceptron look for, and what do more "
        "of them and an L2 term change?",
        find=lambda study: find(config, study),
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
