"""2.3 What do a perceptron's hidden units look for? FaceScrub, 40 people.

python -m experiments.part2_weights                       # drawn faces
python -m experiments.part2_weights --data.root DIR       # one subfolder per person

Images of the weights of 300 and 800 hidden units, without and with L2, over 3 seeds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table
from jaxvision.explain.config import WeightsOptions
from jaxvision.settings import AugmentConfig, OptimConfig, Recipe, ScheduleConfig

if TYPE_CHECKING:
    from jaxvision.data.dataset import Dataset
    from jaxvision.report.markdown import Section
    from jaxvision.results import Results

HIDDEN = (300, 800)

PENALTY = 0.01
"""Factor of the L2 term where there is one."""

ROWS = {
    f"{hidden} hidden, {'L2' if penalty else 'no L2'}": Recipe(
        "mlp",
        method="scratch",
        options={"hidden": hidden},
        image_size=28,
        augment=AugmentConfig(horizontal_flip=0.5, translation=0.05),
        optim=OptimConfig("adam", 1e-3, weight_decay=penalty),
        schedule=ScheduleConfig("cosine"),
        epochs=50,
        select="last",
    )
    for hidden in HIDDEN
    for penalty in (0.0, PENALTY)
}


def check(dataset: "Dataset", options: WeightsOptions) -> None:
    from jaxvision.explain.weights import check_options

    check_options(dataset, options, min(HIDDEN))


def pictures(results: "Results") -> "Sequence[Section]":
    from jaxvision.explain.weights_report import weights_sections

    return weights_sections(results)


EXPERIMENT = Experiment(
    name="part2_weights",
    section="2.3",
    title="Weights as images",
    question="What do hidden units look for?",
    chapter="part-2",
    dataset="faces",
    tables={
        "weights": Table(
            ROWS,
            about="One hidden layer on raw pixels, of two widths, without and with L2.",
            save=tuple(ROWS),
        )
    },
    options=WeightsOptions,
    sweep=True,
    check=check,
    sections=pictures,
    published=published("2.3"),
    reference="300 and 800 hidden units with L2: images of two units each, in which "
    "outlines of heads, eyes and mouths were seen.",
)

if __name__ == "__main__":
    main(EXPERIMENT)
