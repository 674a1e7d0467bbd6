"""Beyond part 1: a network that knows ImageNet on the same paintings, 5-fold.

python -m experiments.part1_transfer                      # drawn paintings
python -m experiments.part1_transfer --data.root DIR      # one subfolder per painter
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.common import FEATURES, BackboneName, run_cli
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    run_study,
)
from jaxvision.data.transforms import AugmentConfig
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.data.dataset import Dataset
    from jaxvision.models import Network
    from jaxvision.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Head:
    """What is trained on the features.

    hidden: units of its hidden layers.
    views: versions of each image that it learns from and whose logits are averaged:
        the image itself, then random ones.
    """

    hidden: tuple[int, ...] = ()
    views: int = 1


HEADS = {
    "last layer": Head(),
    "hidden layer of 300": Head((300,)),
    "last layer, 4 views": Head(views=4),
    "hidden layer of 300, 4 views": Head((300,), views=4),
}

VIEWS = AugmentConfig(horizontal_flip=0.5, resized_crop=0.5)
"""How the views beyond the first are made."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Trains heads on features of a pretrained network, every image left out once."""

    backbone: BackboneName = "efficientnet_lite0"
    """Pretrained network; efficientnet_lite0 comes with the package."""
    weights: Path | None = None
    """File with the backbone's weights, in place of a download."""
    image_size: int = 224
    """Height and width of the network's input, in pixels."""
    folds: int = 5
    """Parts of the images; each is named by a head that was trained on the others."""
    batch_size: int = 32
    """Images a step."""
    optim: OptimConfig = dataclasses.field(
        default_factory=lambda: OptimConfig(
            "adamw", 3e-3, schedule="cosine", weight_decay=0.01
        )
    )
    head_epochs: int = 60
    """Epochs of each head."""


def fold_logits(
    config: Config,
    model: "Network",
    variables: "PyTree",
    dataset: "Dataset",
    features: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[N, K]` of every image by the head that has not seen it, and the folds.

    Args:
      model, variables: the whole network, its head fresh.
      features: `[V, N, F]` float32 of the backbone, for each view of each image.
      seed: of the folds, the order and dropout.
    """
    from jaxvision.data.splits import make_folds
    from jaxvision.metrics import make_cross_entropy
    from jaxvision.transfer import fit_head, head_alone

    fold = make_folds(
        config.folds,
        seed=seed,
        images=dataset.images,
        labels=dataset.labels.tolist(),
        groups=dataset.groups,
    )
    logits = np.zeros((len(fold), len(dataset.classes)), np.float32)
    head, views = head_alone(model), len(features)
    labels, fold_of_view = np.tile(dataset.labels, views), np.tile(fold, views)
    rows = features.reshape(-1, features.shape[-1])
    for number in range(config.folds):
        train = np.flatnonzero(fold_of_view != number).astype(np.int32)
        splits = {"train": train, "val": train[:0], "test": train[:0]}
        trained, _ = fit_head(
            model,
            variables,
            rows,
            dataclasses.replace(dataset, labels=labels, splits=splits),
            optim=config.optim,
            loss=make_cross_entropy(),
            # As many steps, however many views there are.
            epochs=-(-min(config.head_epochs, config.epochs or 10**6) // views),
            batch_size=config.batch_size,
            seed=seed,
        )
        parts = {
            name: {part: v for part, v in tree.items() if part == "head"}
            for name, tree in trained.items()
        }
        held_out = features[:, fold == number]
        named = head.apply(parts, held_out.reshape(-1, held_out.shape[-1]), train=False)
        logits[fold == number] = np.reshape(
            named, (views, -1, len(dataset.classes))
        ).mean(0)
    return logits, fold


def find(config: Config, study: Study) -> Findings:
    """All heads, all seeds."""
    from jaxvision.models import create_model
    from jaxvision.pretrained import fit_into, load
    from jaxvision.report.progress import Progress
    from jaxvision.train.state import init_variables
    from jaxvision.transfer import extract_features

    dataset, pretrained = study.dataset, load(config.backbone, weights=config.weights)
    findings = Findings([], {}, [])
    shape = (config.image_size, config.image_size, 3)
    logits: dict[str, list[np.ndarray]] = {name: [] for name in HEADS}
    folds: list[np.ndarray] = []
    views: list[np.ndarray] = []
    done, total = 0, len(config.seeds) * len(HEADS)
    with Progress("heads", unit="heads") as progress:
        for seed in config.seeds:
            for name, head in HEADS.items():
                model = create_model(
                    pretrained.source.model,
                    len(dataset.classes),
                    head_hidden=head.hidden,
                    head_dropout=0.5 if head.hidden else 0.0,
                )
                template = init_variables(model, seed, shape, only=["head"])
                variables, _ = fit_into(pretrained.variables, template)
                while len(views) < head.views:
                    views.append(
                        extract_features(
                            model,
                            variables,
                            dataset,
                            augment=VIEWS if views else None,
                            seed=len(views),
                            cache=FEATURES,
                        )
                    )
                features = np.stack(views[: head.views])
                found, fold = fold_logits(
                    config, model, variables, dataset, features, seed
                )
                logits[name].append(found)
                done += 1
                progress(done, total)
            folds.append(fold)
    _add_findings(findings, config, study, logits, folds)
    return findings


def _add_findings(
    findings: Findings,
    config: Config,
    study: Study,
    logits: dict[str, list[np.ndarray]],
    folds: list[np.ndarray],
) -> None:
    """Accuracy of each head over all images, a table, a confusion matrix."""
    from jaxvision import plotting
    from jaxvision.metrics import confusion_matrix
    from jaxvision.report import markdown
    from jaxvision.report.formats import format_mean_sd
    from jaxvision.report.run_folder import Measurement

    dataset, labels = study.dataset, study.dataset.labels
    right = {
        name: [float(np.mean(one.argmax(-1) == labels)) for one in several]
        for name, several in logits.items()
    }
    for name, values in right.items():
        findings.measurements.append(
            Measurement(
                f"transfer/{name}/fold_accuracy", values, config.seeds, split="val"
            )
        )
    findings.headline.extend(m.name for m in findings.measurements)
    measured = dict(zip(right, findings.measurements, strict=True))
    best = max(measured, key=lambda name: measured[name].mean)
    matrix = sum(
        confusion_matrix(labels, one.argmax(-1), len(dataset.classes))
        for one in logits[best]
    )
    findings.figures["transfer_confusion"] = plotting.confusion_matrix(
        matrix, dataset.classes, demo=dataset.is_demo
    )
    findings.csv["predictions"] = (
        ["head", "seed", "fold", "image", "true", "predicted"],
        [
            [name, seed, int(fold[i]), image, dataset.classes[labels[i]],
             dataset.classes[int(one[i].argmax())]]
            for name, several in logits.items()
            for seed, fold, one in zip(config.seeds, folds, several, strict=True)
            for i, image in enumerate(dataset.images)
        ],
    )  # fmt: skip
    rows = [[name, format_mean_sd(m.mean, m.sd)] for name, m in measured.items()]
    optim = config.optim
    findings.sections.append(
        markdown.Section(
            "Transfer",
            [
                markdown.Table(["head", f"accuracy, {config.folds}-fold"], rows),
                markdown.Text(
                    f"*Mean ± sample standard deviation over {len(config.seeds)} "
                    f"seed(s) ({', '.join(map(str, config.seeds))}). For each seed the "
                    f"{len(labels)} images are dealt into {config.folds} folds, "
                    "painters evenly, and every image is named by a head that was "
                    "trained on the other folds. Features: the last layer of "
                    f"`{config.backbone}`, whose weights do not change, on images of "
                    f"{config.image_size}×{config.image_size} in that network's own "
                    f"normalization. Heads: {optim.optimizer}, learning rate "
                    f"{optim.learning_rate:g}, schedule {optim.schedule}, weight decay "
                    f"{optim.weight_decay:g}, {config.head_epochs} epochs (on several "
                    "views as many fewer), batch size "
                    f"{config.batch_size}, dropout 0.5 after a hidden layer; the last "
                    "epoch counts, nothing is chosen by the images left out. Views: "
                    "the image and random ones, mirrored with a probability of "
                    f"{VIEWS.horizontal_flip:g} and with up to "
                    f"{VIEWS.resized_crop:g} of the area cut away; logits of an "
                    "image's views are averaged.*"
                ),
                markdown.Image(
                    "transfer_confusion.png",
                    "For each painter, how many images were given each name.",
                    f"Head: {best}; all folds of all seeds, counted together.",
                ),
            ],
        )
    )


def main(config: Config) -> Published:
    from jaxvision.pretrained import SOURCES, choose_backbone

    name = choose_backbone(config.backbone).name
    config = dataclasses.replace(config, backbone=name)
    size = (config.image_size, config.image_size)
    source = SOURCES[name].preprocessing
    study = Study(config, dataclasses.replace(source, size=size, resize_mode="stretch"))
    return run_study(
        "part1_transfer",
        config,
        title="Beyond part 1: transfer",
        question="How well does a network that was trained on ImageNet tell painters "
        "apart, once a new head is trained on its features?",
        find=lambda study: find(config, study),
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
