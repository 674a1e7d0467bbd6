"""How well do features of ImageNet tell painters apart? 451 paintings, 11 painters.

python -m experiments.part1_transfer                      # drawn paintings
python -m experiments.part1_transfer --data.root DIR      # one subfolder per painter

Heads on features of a pretrained network, 5-fold: every painting is classified by a
head that was trained on the other folds. 2 cores: 3 min or less with 3 seeds and
`--backbones` without a name. Accuracy .865 ± .008 of the last layer alone, .901 ± .006
of a hidden layer of 300 on 4 views (5 seeds).

Beside it other networks whose weights come inside packages (extra `classics`), their
last layers and Gram matrices of a convolution: style tells painters apart. Ridge
regression on Lite2's Gram matrix: .954 ± .007 (5 seeds). The layers were chosen on
folds of other seeds, but of the same paintings, so this is slightly optimistic.

What its parts bring, seed by seed (± two standard errors): with the mean in place of
the Gram matrix -.041 ± .010, Lite2's last layer alone -.070 ± .012, Lite1 in place of
Lite2 -.007 ± .005, Lite0 -.012 ± .006, an earlier layer (block4d) -.012 ± .005,
logistic regression in place of ridge -.012 ± .005; 320 pixels bring +.001 ± .005.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.part1_baseline import SEEDS
from jaxvision.cli.experiment import main
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, Table
from jaxvision.errors import InputError
from jaxvision.pretrained.sources import SOURCES
from jaxvision.settings import AugmentConfig, OptimConfig, Recipe, ScheduleConfig

if TYPE_CHECKING:
    from jaxvision.report.markdown import Section
    from jaxvision.results import Results

HEAD = Recipe(
    "efficientnet_lite0",
    method="features",
    # Of the views beyond the first.
    augment=AugmentConfig(horizontal_flip=0.5, resized_crop=0.5),
    optim=OptimConfig("adamw", 3e-3, weight_decay=0.01),
    schedule=ScheduleConfig("cosine"),
    epochs=60,
    select="last",
)

HIDDEN = {"head_hidden": (300,), "head_dropout": 0.5}

GRAM = {
    "efficientnet_lite0": "block5c",
    "efficientnet_lite1": "block5d",
    "efficientnet_lite2": "block5d",
    "alexnet_features": "conv3",
    "vgg16_features": "conv5_1",
}
"""The layer of each network whose Gram matrix is taken."""

LARGE = "efficientnet_lite2"
"""The network whose Gram matrix is tried in several ways."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Which networks."""

    backbones: tuple[str, ...] = tuple(GRAM)
    """Pretrained networks to compare, of those whose weights come inside packages; what
    is not installed is left out."""


def heads(recipe: Recipe, options: Options) -> dict[str, Table]:
    for name in options.backbones:
        if name not in GRAM:
            raise InputError(
                f"there are: {', '.join(GRAM)}", setting="backbones", value=name
            )
    tables = {
        "transfer": Table(
            {
                "last layer": recipe,
                "hidden layer of 300": recipe.replace(**HIDDEN),
                "last layer, 4 views": recipe.replace(views=4),
                "hidden layer of 300, 4 views": recipe.replace(views=4, **HIDDEN),
            },
            about="Heads on the last features of a frozen network, on images as they "
            "are or on 4 views of each.",
        )
    }
    layers = {
        f"{name}, {what}": recipe.replace(
            network=name, weights=None, stop_at=SOURCES[name].last_layer, **changes
        )
        for name in options.backbones
        for what, changes in {"last layer": {}, "hidden layer of 300": HIDDEN}.items()
        if name != HEAD.network
    }
    gram = {
        f"{name}, Gram of {layer}": recipe.replace(
            network=name, weights=None, stop_at=layer, pooling="gram"
        )
        for name, layer in GRAM.items()
        if name in options.backbones
    }
    solved = {
        f"last layer, {solver}": recipe.replace(solver=solver)
        for solver in ("ridge", "logistic")
    }
    solved |= {
        f"{row}, ridge": one.replace(solver="ridge") for row, one in gram.items()
    }
    tables["solved"] = Table(
        solved,
        about="Heads that are solved at once, with the penalty that is best on "
        "left-out training images: ridge and logistic regression.",
    )
    if (row := f"{LARGE}, Gram of {GRAM[LARGE]}") in gram:
        tables["variants"] = Table(
            {
                f"{row}, logistic": gram[row].replace(solver="logistic"),
                f"{row}, ridge, 320 pixels": gram[row].replace(
                    solver="ridge", image_size=320
                ),
            },
            about="The best of these Gram matrices in other ways.",
        )
    if layers:
        tables["backbones"] = Table(
            layers, about="Heads on the last layers that the files of others hold."
        )
    if gram:
        tables["gram"] = Table(
            gram,
            about="Heads on how strongly each two channels of a convolution occur "
            "together, wherever in the image.",
        )
    return tables


def sections(results: "Results") -> "Sequence[Section]":
    return [*together(results), *confusion(results)]


def together(results: "Results") -> "Sequence[Section]":
    """The mean of the logits of all ridge regressions on Gram matrices, where there are
    several."""
    from jaxvision.report.formats import format_mean_sd
    from jaxvision.report.markdown import Section, Text
    from jaxvision.report.run_folder import Measurement

    rows = [
        trials
        for (table, _), trials in results.trials.items()
        if table == "solved" and trials[0].recipe.options.get("pooling") == "gram"
    ]
    if len(rows) < 2:
        return []
    accuracies = [
        float(
            np.mean(
                np.mean([trial.held_out.logits for trial in trials], 0).argmax(-1)
                == trials[0].held_out.labels
            )
        )
        for trials in zip(*rows, strict=True)
    ]
    found = Measurement(
        "together/fold_accuracy",
        accuracies,
        list(results.config.seeds),
        table="solved",
        row="together",
        metric="fold_accuracy",
        split="fold",
    )
    text = (
        f"The mean of the logits of the {len(rows)} ridge regressions on Gram matrices "
        f"at the usual image size: accuracy **{format_mean_sd(found.mean, found.sd)}**."
    )
    return [Section("Together", [Text(text)], measurements=[found])]


def confusion(results: "Results") -> "Sequence[Section]":
    """What the best head takes for what, over all seeds."""
    from jaxvision import plotting
    from jaxvision.report.markdown import Image, Section

    run, trials, classes = results.run, results.trials, results.dataset.classes
    best = max(trials, key=lambda key: results.measurements[key]["fold_accuracy"].mean)
    matrix = np.sum([trial.held_out.confusion_matrix for trial in trials[best]], axis=0)
    figure = plotting.confusion_matrix(matrix, classes, demo=results.dataset.is_demo)
    run.save_figure("confusion_matrix", figure)
    image = Image(
        "confusion_matrix.png",
        "For each painter, how many images were given each name.",
        f"Head: {best[1]}; all seeds, counted together.",
    )
    return [Section("Confusion matrix", [image])]


EXPERIMENT = Experiment(
    name="part1_transfer",
    section="",
    title="Painters by transfer",
    question="And a network that knows ImageNet, on the same paintings?",
    chapter="beyond",
    dataset="artists",
    recipe=HEAD,
    tables=heads,
    options=Options,
    # Nothing to validate by: the heads have nothing to choose.
    split=SplitConfig(1.0, 0.0, 0.0),
    seeds=SEEDS,
    folds=5,
    sections=sections,
    variants=("network",),
    laptop=("--seeds 0 1 2 --backbones alexnet_features",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
