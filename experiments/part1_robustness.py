"""1.7 What do changed images do to the best network? 451 paintings, 11 painters.

python -m experiments.part1_robustness                    # drawn paintings
python -m experiments.part1_robustness --data.root DIR    # one subfolder per painter

2 cores: 3 min or less with 3 seeds, once `part1_tuning` has trained the networks.
Augmentation buys most for zoom, blur, less contrast and small translations, and nothing
for inversion.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.part1_baseline import SEEDS, SPLIT
from experiments.part1_tuning import BEST_ROWS
from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table
from jaxvision.robustness.config import RobustnessOptions

if TYPE_CHECKING:
    from jaxvision.data.dataset import Dataset
    from jaxvision.report.markdown import Section
    from jaxvision.results import Results


def check(dataset: "Dataset", options: RobustnessOptions) -> None:
    from jaxvision.robustness.measure import ASSIGNMENT, strengths_of

    del dataset
    strengths_of(options.transforms or ASSIGNMENT)


def changes(results: "Results") -> "Sequence[Section]":
    from jaxvision.robustness.report import robustness_sections

    return robustness_sections(results)


EXPERIMENT = Experiment(
    name="part1_robustness",
    section="1.7",
    title="Changed images",
    question="What do changed images do to the best network?",
    chapter="part-1",
    dataset="artists",
    tables={
        "": Table(
            BEST_ROWS,
            about="The best network of 1.6, without and with augmentation.",
            save=tuple(BEST_ROWS),
        )
    },
    options=RobustnessOptions,
    sweep=True,
    split=SPLIT,
    seeds=SEEDS,
    check=check,
    sections=changes,
    published=published("1.7"),
    reference="Validation accuracy under jitter, flips, rotation, blur and others, of "
    "other networks and with changes that PyTorch drew.",
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
