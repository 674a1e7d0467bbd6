"""One seed of an experiment: a network trained on images, or a head on features."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from experiments.common import FEATURES, RunConfig, SeedRun, TransferConfig
from jaxvision.classifier import (
    Classifier,
    ModelCard,
    class_means,
    load_classifier,
)
from jaxvision.config import to_plain
from jaxvision.data.dataset import Dataset
from jaxvision.data.loader import Batches
from jaxvision.errors import InputError
from jaxvision.metrics import (
    Loss,
    balanced_class_weights,
    class_frequencies,
    make_cross_entropy,
)
from jaxvision.models import Network
from jaxvision.optim import OptimConfig, make_optimizer, schedule_factor
from jaxvision.preprocessing import Preprocessing
from jaxvision.pretrained import Pretrained, choose_backbone, fit_into, load
from jaxvision.report.progress import Progress
from jaxvision.storage import write_json
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.color import (
    ColorComponents,
    color_components,
    make_color_augment,
)
from jaxvision.training.loop import Row, Select, fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables, set_output_biases
from jaxvision.transfer import extract_features, fit_head, head_alone, join
from jaxvision.typing import PyTree

COLORS = "colors.json"
"""Principal colors of a seed's training images, in its checkpoint folder."""


def make_network(
    run: SeedRun,
    name: str,
    pretrained: Pretrained | None = None,
    binary: bool = False,
    **options: Any,
) -> tuple[Network, dict[str, PyTree]]:
    """A network for the run's classes and its first variables.

    Its card is written now: what an interrupted run leaves can be used too.

    Args:
      run: the seed.
      name: in `jaxvision.models.MODELS`.
      pretrained: values for the backbone; None: all fresh.
      binary: whether two classes are told apart by one logit, that of the second:
        the loss is then binary cross-entropy.
      **options: further arguments of `create_model`.

    Raises:
      InputError: one logit, but not two classes.
    """
    dataset, config = run.dataset, run.config
    if binary and len(dataset.classes) != 2:
        raise InputError(
            f"{dataset.root}: {len(dataset.classes)} classes "
            f"({', '.join(dataset.classes)}), but one logit tells exactly two apart; "
            "give a folder with two subfolders of images"
        )
    options = {**options, "dtype": config.dtype}
    card = ModelCard(
        model=name,
        options=options,
        classes=dataset.classes,
        preprocessing=dataset.preprocessing,
        weights="fresh" if pretrained is None else pretrained.source.origin,
        data={
            "name": dataset.name,
            "root": str(dataset.root.resolve()),
            "is_demo": dataset.is_demo,
        },
        seed=run.seed,
        batch_size=config.batch_size,
        binary=binary,
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    card.write(run.folder)
    model = card.create_model()
    channels = 1 if dataset.preprocessing.gray else 3
    shape = (*dataset.preprocessing.size, channels)
    if pretrained is None:
        variables = init_variables(model, run.seed, shape)
    else:
        template = init_variables(model, run.seed, shape, only=["head"])
        variables, _ = fit_into(pretrained.variables, template)
    if config.output_biases:
        labels = dataset.labels[dataset.splits["train"]]
        frequencies = class_frequencies(labels, len(dataset.classes))
        variables = set_output_biases(variables, frequencies)
    return model, variables


@dataclasses.dataclass(frozen=True)
class Start:
    """Where transfer learning begins.

    pretrained: the backbone's weights.
    preprocessing: theirs, in the config's geometry.
    notes: for the report, what was chosen and why.
    """

    pretrained: Pretrained
    preprocessing: Preprocessing
    notes: str


def choose_start(config: TransferConfig) -> Start:
    """Chooses and loads the backbone; weights and preprocessing go together."""
    choice = choose_backbone(config.backbone)
    print(f"backbone: {choice.name}, because {choice.reason}")
    pretrained = load(choice.name, weights=config.weights)
    source = pretrained.source
    origin = config.weights or source.origin
    return Start(
        pretrained,
        dataclasses.replace(
            source.preprocessing,
            size=(config.image_size, config.image_size),
            resize_mode=config.resize_mode,
        ),
        f"Backbone `{choice.name}`, because {choice.reason}. Weights: {origin}; "
        f"license: {source.license}.",
    )


def train_network(
    run: SeedRun,
    model: Network,
    variables: dict[str, PyTree],
    *,
    frozen: Collection[str] = (),
    select: Select = "best",
) -> Classifier:
    """Trains on images, augmented anew in every epoch.

    Args:
      frozen: parts that are not trained.
      select: as in `fit`.
    """
    config, dataset = run.config, run.dataset
    runner = Runner.all_devices()
    options = {"batch_size": config.batch_size, "seed": run.seed, **runner.shard}
    train = dataset.batches("train", train=True, augment=config.augment, **options)
    val = dataset.batches("val", train=False, **options)
    lengths = {"steps_per_epoch": train.steps_per_epoch, "epochs": config.epochs}
    tx = make_optimizer(config.optim, **lengths)
    factor = schedule_factor(config.optim, **lengths)
    peak = config.optim.learning_rate
    colors = None
    if config.augment.pca_color:
        colors = make_color_augment(
            training_colors(run),
            config.augment.pca_color,
            per_pixel=config.augment.pca_per_pixel,
        )
    fit(
        model,
        tx,
        make_loss(config, dataset.labels[dataset.splits["train"]]),
        create_state(variables, tx, seed=run.seed, frozen=frozen),
        train,
        normalize=dataset.preprocessing.normalize,
        epochs=config.epochs,
        val=val,
        select=select,
        patience=config.patience,
        checkpoints=CheckpointFolder(run.folder),
        save_seconds=config.save_seconds,
        augment=colors,
        learning_rate_at=lambda step: peak * float(factor(step)),
        callback=run.callback,
        runner=runner,
    )
    return load_classifier(run.folder)


def training_colors(run: SeedRun) -> ColorComponents:
    """The principal colors of the training images, normalized; kept with the run."""
    dataset = run.dataset
    components = color_components(
        dataset.preprocessing.normalize(dataset.image(index))
        for index in dataset.splits["train"]
    )
    write_json(run.folder / COLORS, to_plain(components))
    return components


def train_head(
    run: SeedRun,
    model: Network,
    variables: dict[str, PyTree],
    *,
    epochs: int,
    optim: OptimConfig,
    select: Select = "best",
    in_history: bool = True,
) -> tuple[dict[str, PyTree], dict[str, float]]:
    """Trains the head on features of the frozen backbone, which is run once.

    Args:
      epochs, optim, select: of the head, as in `fit`.
      in_history: whether the epochs belong to the run's history.

    Returns:
      The whole network's variables and the row of the best epoch.
    """
    config, dataset = run.config, run.dataset
    with Progress("features", unit="images") as progress:
        features = extract_features(
            model,
            variables,
            dataset,
            batch_size=config.batch_size,
            cache=FEATURES,
            progress=progress,
        )
    variables, result = fit_head(
        model,
        variables,
        features,
        dataset,
        optim=optim,
        loss=make_loss(config, dataset.labels[dataset.splits["train"]]),
        epochs=epochs,
        batch_size=config.batch_size,
        seed=run.seed,
        select=select,
        patience=config.patience,
        checkpoints=CheckpointFolder(run.folder / "head"),
        save_seconds=config.save_seconds,
        callback=run.callback if in_history else None,
    )
    return variables, result.history[max(result.best_epoch, 1) - 1]


def evaluate_on_features(
    classifier: Classifier, dataset: Dataset, split: str
) -> tuple[Row, np.ndarray]:
    """As `Classifier.evaluate`, by way of the features that `train_head` kept:
    the backbone is not run again."""
    card, labels = classifier.card, dataset.labels
    features = extract_features(
        classifier.model,
        classifier.variables,
        dataset,
        batch_size=card.batch_size,
        cache=FEATURES,
    )
    batches = Batches.of_arrays(
        features,
        labels,
        dataset.splits[split],
        batch_size=card.batch_size,
        seed=card.seed,
        train=False,
        **Runner.all_devices().shard,
    )
    head = dataclasses.replace(
        classifier,
        model=head_alone(classifier.model),
        variables=join({}, classifier.variables),
    )
    row, logits = head.evaluate_batches(batches, normalize=lambda x: x)
    return {**row, **class_means(labels[dataset.splits[split]], logits)}, logits


def save_network(
    run: SeedRun, variables: dict[str, PyTree], row: dict[str, float]
) -> Classifier:
    """Writes a network whose head was trained on features as the run's best."""
    checkpoints = CheckpointFolder(run.folder)
    checkpoints.save("best", int(row["step"]), variables, row)
    checkpoints.wait()
    return load_classifier(run.folder)


def make_loss(config: RunConfig, labels: np.ndarray) -> Loss:
    """Cross-entropy as the config has it; `labels` `[n]` of the training images."""
    weights = None
    if config.class_weights:
        weights = balanced_class_weights(labels, int(labels.max()) + 1)
    return make_cross_entropy(
        class_weights=weights, label_smoothing=config.label_smoothing
    )
