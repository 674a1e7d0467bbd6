"""How well does a VGG tell faces from comics? 20,000 images, two classes.

python -m experiments.comics_baseline                     # drawn faces and comics
python -m experiments.comics_baseline --data.root DIR     # two subfolders of images
python -m experiments.comics_baseline --image-size 48 --epochs 6 --data.limit 250

2 cores: one epoch of 1,600 images of 96 pixels takes 1.4 min.
"""

from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, SearchRange
from jaxvision.settings import AugmentConfig, OptimConfig, Recipe, ScheduleConfig

VGG = Recipe(
    "vgg13_bn",
    method="scratch",
    # The report's framework has a momentum of .99, which needs more steps than a few
    # hundred images give.
    options={"dropout_rate": 0.2, "bn_momentum": 0.9},
    image_size=96,
    gray=True,
    scaling="unit",
    augment=AugmentConfig(),
    binary=True,
    optim=OptimConfig("adam", 1e-3),
    schedule=ScheduleConfig(),
    epochs=12,
)

SPLIT = SplitConfig(0.8, 0.1, 0.1)

SEARCH_SPACE = {
    "optim.learning_rate": SearchRange(1e-5, 1e-2, log=True),
    "dropout_rate": SearchRange(0.0, 0.5),
}

SMALL = (
    "--image-size 48 --epochs 12 --batch-size 8 --data.limit 120 "
    "--augment.horizontal-flip 0.5 --schedule.kind cosine"
)
"""Few images of half the height and width, in small steps."""

EXPERIMENT = Experiment(
    name="comics_baseline",
    section="Comics",
    title="Baseline",
    question="How well does a VGG with batch norm tell faces from comics?",
    chapter="comics",
    dataset="comics",
    recipe=VGG,
    split=SPLIT,
    search_space=SEARCH_SPACE,
    published=published("Comics"),
    reference="VGG13 with batch norm, Adam at 1e-3, dropout .2, 12 epochs.",
    laptop=(SMALL,),
)

if __name__ == "__main__":
    main(EXPERIMENT)
