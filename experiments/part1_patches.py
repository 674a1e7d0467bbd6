"""How far does one layer of patches go, without training? 451 paintings, 11 painters.

python -m experiments.part1_patches                       # drawn paintings
python -m experiments.part1_patches --data.root DIR       # one subfolder per painter

Filters are whitened patches of the training images; their Gram matrix goes into a ridge
regression (`jaxvision/models/patches.py`). Nothing is trained by gradient. The settings
were chosen on the splits of other seeds, of the same paintings.

2 cores, loaded: 47 min of processor time with 5 seeds, most of it for the 12 views and
the changed images. Validation accuracy at 50×50: .848 ± .014, with random filters .712
± .047; changed images .625 ± .015, and .780 ± .019 (unchanged .844 ± .027) with 12
changed views of each. At 64×64 .875 ± .040, at 128×128 .873 ± .042.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.part1_baseline import SEEDS, SPLIT
from experiments.part1_robustness import check
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table
from jaxvision.robustness.config import RobustnessOptions
from jaxvision.settings import AugmentConfig, Recipe

if TYPE_CHECKING:
    from jaxvision.report.markdown import Section
    from jaxvision.results import Results

PATCHES = Recipe(
    "patches",
    {"filters": 128, "kernel": 4},
    method="scratch",
    solver="ridge",
    image_size=50,
    # The image and its mirror image.
    views=2,
    augment=AugmentConfig(horizontal_flip=1.0),
)

CHANGED = PATCHES.replace(
    views=12,
    augment=AugmentConfig(
        resized_crop=0.3,
        horizontal_flip=0.5,
        vertical_flip=0.2,
        invert=0.15,
        trivial=1.0,
    ),
)
"""Learns from changed images too."""

LARGE = PATCHES.replace(image_size=128, kernel=6)

ROWS = {
    "patches": PATCHES,
    "one view": PATCHES.replace(views=1),
    "64 filters": PATCHES.replace(filters=64),
    "mean in place of Gram matrix": PATCHES.replace(pooling="mean"),
    "random filters": PATCHES.replace(
        network="simple_cnn", options={"stop_at": "conv1", "pooling": "gram"}
    ),
    "12 changed views": CHANGED,
}


MEASURED = ("patches", "12 changed views")
"""The rows that are shown changed images."""


def changes(results: "Results") -> "Sequence[Section]":
    from jaxvision.robustness.report import robustness_sections

    return robustness_sections(results, MEASURED)


EXPERIMENT = Experiment(
    name="part1_patches",
    section="",
    title="Painters by patches",
    question="How far does one layer of patches go, without training?",
    chapter="beyond",
    dataset="artists",
    tables={
        "50": Table(
            ROWS,
            about="Images of 50×50: filters of 4×4 pixels, their Gram matrix, ridge "
            "regression on an image and its mirror image; each row changes one thing.",
            reference="patches",
            save=MEASURED,
        ),
        "128": Table(
            {
                "128×128": LARGE,
                "128×128, mean in place of Gram matrix": LARGE.replace(pooling="mean"),
                "64×64": LARGE.replace(image_size=64),
            },
            about="Larger images: filters of 6×6 pixels.",
            reference="128×128",
        ),
    },
    options=RobustnessOptions,
    split=SPLIT,
    seeds=SEEDS,
    check=check,
    sections=changes,
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
