"""1.2 How well does the assignment's first network do? 451 paintings, 11 painters.

python -m experiments.part1_baseline                      # drawn paintings
python -m experiments.part1_baseline --data.root DIR      # one subfolder per painter

2 cores: 8 s with one seed. Validation accuracy .589 ± .035 over 5 seeds; published .494
and .549.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, Table
from jaxvision.report.markdown import Block, Section, Text
from jaxvision.report.markdown import Table as MarkdownTable
from jaxvision.settings import AugmentConfig, OptimConfig, Recipe, ScheduleConfig

if TYPE_CHECKING:
    from jaxvision.results import Results

PART1 = Recipe(
    "simple_cnn",
    method="scratch",
    image_size=50,
    scaling="half",
    augment=AugmentConfig(),
    optim=OptimConfig("adam", 1e-4),
    schedule=ScheduleConfig(),
    batch_size=16,
    select="last",
)
"""What all of part 1 trains with where nothing else is said."""

FIRST = PART1.replace(epochs=50)
"""The assignment's network as its code comes."""

SPLIT = SplitConfig(0.8, 0.2, 0.0)

SEEDS = (0, 1, 2, 3, 4)


def as_built(**networks: Recipe) -> Callable[["Results"], Sequence[Section]]:
    """A section with the layers of each network, by its name with underscores."""

    def sections(results: "Results") -> Sequence[Section]:
        from jaxvision.models import Network
        from jaxvision.models.summary import as_table, summarize_model
        from jaxvision.recipe import make_card, make_start

        blocks: list[Block] = []
        for name, recipe in networks.items():
            start = make_start(recipe)
            model = make_card(start, results.dataset.classes).create_model()
            assert isinstance(model, Network)
            shape = (*start.preprocessing.size, start.preprocessing.channels)
            layers = summarize_model(model, shape)
            names = [layer.layer for layer in layers if layer.parameters]
            convolutions = sum(layer.startswith("conv") for layer in names)
            text = (
                f"The {name.replace('_', ' ')}: {len(names)} layers with weights, "
                f"{convolutions} convolutional and {len(names) - convolutions} dense; "
                "ReLU in between, and a softmax."
            )
            blocks += [Text(text), MarkdownTable(*as_table(layers))]
        return [Section("The network as built", blocks)]

    return sections


EXPERIMENT = Experiment(
    name="part1_baseline",
    section="1.2",
    title="The first network",
    question="What is the assignment's network, and how well does it do?",
    chapter="part-1",
    dataset="artists",
    tables={
        "baseline": Table(
            {"baseline": FIRST}, about="The network of the assignment's code."
        )
    },
    sweep=True,
    split=SPLIT,
    seeds=SEEDS,
    sections=as_built(first_network=FIRST),
    published=published("1.2"),
    reference="Two convolutions and two dense layers, Adam at 1e-4, batches of 16, 50 "
    "epochs; 91 validation images, one run.",
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
