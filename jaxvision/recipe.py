"""A recipe decides a trained classifier completely; `train` and `finetune` follow it.

    data = load_dataset("photos/")
    classifier = train(data, Recipe("efficientnet_lite0", epochs=5), seed=0)

Two equal recipes on the same images with the same seed give the same bits.
"""

import contextlib
import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from optax import GradientTransformation

from jaxvision import config
from jaxvision.classifier import (
    CARD,
    SPLITS,
    Classifier,
    Evaluation,
    ModelCard,
    load_classifier,
)
from jaxvision.config import Bounds, to_plain
from jaxvision.data.dataset import Dataset, DecodedDataset
from jaxvision.data.loader import Batches
from jaxvision.data.splits import read_splits
from jaxvision.errors import InputError
from jaxvision.metrics import (
    Loss,
    balanced_class_weights,
    class_frequencies,
    fit_temperature,
    fit_threshold,
    make_cross_entropy,
    negative_log_likelihood,
    summarize,
)
from jaxvision.models import Network, check_fits
from jaxvision.optim import make_optimizer, schedule_factor
from jaxvision.preprocessing import Preprocessing
from jaxvision.pretrained import (
    Pretrained,
    Source,
    check_has_layers,
    choose_backbone,
    find_source,
    fresh_layers,
    load,
)
from jaxvision.report.formats import format_names
from jaxvision.report.progress import Progress, TrainingProgress
from jaxvision.settings import OptimConfig, Recipe, ScheduleConfig
from jaxvision.storage import cache_folder, write_json, writing
from jaxvision.training.checkpoint import CheckpointFolder, training_alone
from jaxvision.training.color import (
    ColorComponents,
    color_components,
    make_color_augment,
)
from jaxvision.training.distributed import broadcast, is_main_process
from jaxvision.training.loop import Callback, Callbacks, Steps, fit_steps
from jaxvision.training.mixing import make_mix
from jaxvision.training.parallel import Runner
from jaxvision.training.state import (
    TrainState,
    create_state,
    init_variables,
    set_output_biases,
    variable_shapes,
)
from jaxvision.training.step import Smaller, TrainStep, make_train_step
from jaxvision.transfer import (
    extract_features,
    fit_head,
    head_alone,
    head_logits,
    init_pretrained,
    join,
    solve_head,
    unchanged,
)
from jaxvision.typing import Batch, Metrics, PyTree, Row

COLORS = "colors.json"
"""Principal colors of a seed's training images, in its checkpoint folder."""

PREFERRED = {
    "features": ("alexnet", "alexnet_features", "efficientnet_lite0"),
    "head": ("alexnet", "efficientnet_lite0"),
    "full": ("alexnet", "efficientnet_lite0"),
}
"""What the network "auto" is by method, the first of them within reach."""

MOST_FILLED = 1024
"""A batch may be this large though there are fewer training images."""

FEW_IMAGES = 10
"""Fewer validation images than this are doubtful."""

SCALINGS = {"signed": (127.5, 127.5), "half": (127.5, 255.0), "unit": (0.0, 255.0)}
"""Mean and deviation of each scaling, on the scale 0 to 255."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a recipe's training begins.

    recipe: with its network chosen, where that was "auto".
    preprocessing: of the images.
    weights: where the first weights come from, in words.
    reason: why this network, in words; it follows "because".
    """

    recipe: Recipe
    preprocessing: Preprocessing
    weights: str = "fresh"
    reason: str = ""

    def load_weights(self) -> Pretrained | None:
        """The pretrained weights; None for fresh ones.

        Raises:
          InputError: they are out of reach, or the file is not what it should be.
        """
        if not self.recipe.pretrained:
            return None
        return load(self.recipe.network, weights=self.recipe.weights)


def make_start(recipe: Recipe) -> Start:
    """Checks a recipe, chooses its network and says how its images are made.

    Reads no image and no weights.

    Raises:
      InputError: a value out of range, an unknown network, layer or option, images too
        small for the network, or settings that exclude each other.
    """
    config.check(recipe)
    if recipe.solved and recipe.options.get("head_hidden"):
        raise InputError(
            "solves one dense layer: drop `head_hidden`, or take gradient",
            setting="solver",
            value=recipe.solver,
        )
    size = (recipe.image_size, recipe.image_size)
    if not recipe.pretrained:
        if recipe.weights is not None:
            raise InputError(
                "not used with `method` scratch: choose another method, or drop it",
                setting="weights",
            )
        start = Start(recipe, _fresh_preprocessing(recipe, size))
    else:
        choice = choose_backbone(recipe.network, PREFERRED[recipe.method])
        source = find_source(choice.name)
        recipe = _ending(recipe.replace(network=choice.name), source)
        fresh = fresh_layers(source, recipe.options.get("stop_at"))
        start = Start(
            recipe,
            dataclasses.replace(
                source.preprocessing, size=size, resize_mode=recipe.resize_mode
            ),
            str(recipe.weights or source.origin)
            + (f"; fresh: {', '.join(fresh)}" if fresh else ""),
            choice.reason,
        )
    model = make_card(start, ("first", "second")).create_model()
    check_fits(model, (*size, start.preprocessing.channels))
    if not recipe.on_features:
        _check_stages(start, model)
    return start


def _check_stages(start: Start, model: Network) -> None:
    """Raises `InputError` for smaller sizes that are none, or that the network cannot
    be trained at."""
    recipe, channels = start.recipe, start.preprocessing.channels

    def parameters(size: int) -> PyTree:
        image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
        variables = jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x, train=False), image
        )
        return jax.tree.map(lambda leaf: leaf.shape, variables)

    for size in recipe.progressive_sizes:
        if size >= recipe.image_size:
            raise InputError(
                f"must be below `image_size` {recipe.image_size}",
                setting="progressive_sizes",
                value=size,
            )
        try:
            check_fits(model, (size, size, channels))
        except InputError as error:
            raise InputError(
                str(error), setting="progressive_sizes", value=size
            ) from None
        if parameters(size) != parameters(recipe.image_size):
            raise InputError(
                f"{recipe.network} takes images of one size: a dense layer has weights "
                "for every place in them; choose a network that averages over places, "
                "or `pooling` mean with `stop_at` a convolution",
                setting="progressive_sizes",
                value=size,
            )


def _ending(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with the layer that its head stands on, which the weights must have.

    With method full the network is whole, and begins anew with what they lack.

    Raises:
      InputError: the weights lack that layer.
    """
    if recipe.method == "full":
        return recipe
    stop_at = recipe.options.get("stop_at")
    if stop_at is None:
        default = source.features_layer if recipe.method == "features" else None
        stop_at = default or source.last_layer
        return recipe if stop_at is None else recipe.replace(stop_at=stop_at)
    check_has_layers(source, stop_at)
    return recipe


def train(
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    measure_train: bool = False,
) -> Classifier:
    """Trains a classifier by a recipe and measures it on what was held out.

    Args:
      data: labeled images; divided anew for the seed, unless they came with splits.
      recipe: how to train.
      seed: of the split, the initialization, the order of the images and dropout.
      folder: checkpoint folder of the training. One that was stopped is continued from
        there, exactly; a finished one is read, or goes on where the recipe has more
        epochs now; see `train_seed`. None: nothing is kept beyond what
        `Classifier.save` writes.
      callbacks: told of every step and epoch.
      progress: whether to show bars on stderr.
      measure_train: whether to measure it on the training images too, as they are;
        where there are no others it is.

    Returns:
      The network of the epoch that the recipe selects; its accuracies are in
      `card.recorded`.

    Raises:
      InputError: bad settings, images or weights, or another process trains in
        `folder`; before training starts.
      Interrupted: on Ctrl-C or SIGTERM, after saving into `folder`.
    """
    start = make_start(recipe)
    config.check_number("seed", seed, Bounds(0, 2**32 - 1))
    if data.config.folds is not None:
        raise InputError(
            "a training gives one network: call cross_validate, or load the images "
            "without folds",
            setting="data.folds",
            value=data.config.folds,
        )
    with Progress("reading images", unit="images", enabled=progress) as report:
        dataset = data.with_seed(seed).decode(start.preprocessing, progress=report)
    if progress:
        for doubt in doubts(start, dataset):
            print(f"warning: {doubt}", file=sys.stderr)
    pretrained = start.load_weights()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="jaxvision-")
            )
        stack.enter_context(training_alone(Path(folder)))
        bars = TrainingProgress(enabled=progress)
        stack.enter_context(bars)
        classifier, _ = train_seed(
            start,
            dataset,
            pretrained,
            seed=seed,
            folder=Path(folder),
            callback=Callbacks(bars, *callbacks),
            progress=progress,
            measure_train=measure_train,
        )
    return classifier


def finetune(
    data: Dataset, network: str = "efficientnet_lite0", **settings: Any
) -> Classifier:
    """Fine-tunes a pretrained network on labeled images.

    Args:
      data: the images.
      network: pretrained weights, a name in `jaxvision.pretrained.SOURCES`, or "auto".
      **settings: fields of `Recipe`, options of the network, and the arguments of
        `train`.

    Returns:
      As `train`.

    Raises:
      As `train`.
    """
    names = ("seed", "folder", "callbacks", "progress", "measure_train")
    options = {name: settings.pop(name) for name in names if name in settings}
    return train(data, Recipe(network).replace(**settings), **options)


def train_seed(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    *,
    seed: int,
    folder: Path,
    callback: Callback,
    save_seconds: float = 30.0,
    progress: bool = True,
    measure: bool = True,
    measure_train: bool = False,
) -> tuple[Classifier, dict[str, Evaluation]]:
    """Trains one seed, or what is left of it, and measures the network.

    A seed that was trained for fewer epochs than the recipe has goes on to those, and
    is measured again: with the bits of as many epochs at once, but for a cosine
    schedule, which follows the curve of the new number from there on.

    Args:
      start: of the recipe.
      dataset: in the split of the seed and in the start's preprocessing.
      pretrained: the weights of the start.
      seed: of all that is random.
      folder: checkpoint folder; a finished seed is read from it.
      callback: told of every step and epoch.
      save_seconds: time between two saves while training.
      progress: whether to show bars.
      measure: False: the network is not measured, and not recorded as finished.
      measure_train: as of `train`.

    Returns:
      The network, and its evaluation on each split that is measured.

    Raises:
      InputError: as `train`; it was trained for more epochs than the recipe has.
    """
    finished = _is_finished(folder, start.recipe.epochs)
    begun = (folder / SPLITS).is_file()
    dataset = as_begun(dataset, folder)
    if finished:
        classifier = load_classifier(folder)
    else:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not begun:
            dataset.write_splits(folder / SPLITS)
        run = _Training(
            start, dataset, pretrained, seed, folder, callback, save_seconds, progress
        )
        classifier = run.run()
    if not measure:
        return classifier, {}
    evaluations = {
        split: evaluate_split(start, classifier, dataset, split)
        for split in _measured(dataset, train=measure_train)
    }
    if not finished:
        classifier, evaluations = calibrate(classifier, evaluations, folder)
    return classifier, evaluations


def _measured(dataset: DecodedDataset, *, train: bool) -> list[str]:
    """The splits that a network is measured on: those that have images, the training
    split if `train`, or if there are no others."""
    filled = [split for split, indices in dataset.splits.items() if len(indices)]
    held_out = [split for split in filled if split != "train"]
    return filled if train or not held_out else held_out


def calibrate(
    classifier: Classifier, evaluations: Mapping[str, Evaluation], folder: Path
) -> tuple[Classifier, dict[str, Evaluation]]:
    """Fits the temperature and the threshold of "unknown" to the validation images,
    where there are any, and records what the network does on every split.

    Args:
      classifier: trained and measured, not yet recorded.
      evaluations: by split.
      folder: of its checkpoint.

    Returns:
      The network and its evaluations, with both.
    """
    temperature, threshold = 1.0, 0.0
    if (val := evaluations.get("val")) is not None:
        temperature = fit_temperature(val.logits, val.labels)
        threshold = fit_threshold(val.with_temperature(temperature).probabilities)
    fitted = {"temperature": temperature, "threshold": threshold}
    found = {
        split: dataclasses.replace(one, **fitted) for split, one in evaluations.items()
    }
    figures = {split: one.row for split, one in found.items()}
    return classifier.record(figures, folder, **fitted), found


def as_begun(dataset: DecodedDataset, folder: Path) -> DecodedDataset:
    """The images in the splits that a training began with, if it has begun.

    Args:
      folder: its checkpoint folder.

    Raises:
      InputError: images of it have changed since or are gone.
    """
    if (folder / SPLITS).is_file():
        return dataset.with_splits(read_splits(folder / SPLITS))
    return dataset


def losses_at_rates(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    rates: Iterable[float],
    *,
    seed: int,
    folder: Path,
    progress: bool = True,
) -> Generator[float]:
    """Begins the training of a seed, each step at another learning rate.

    Args:
      start, dataset, pretrained, seed, progress: as of `train_seed`.
      rates: of the steps; schedule and learning rate of the recipe play no part.
      folder: an empty one, for what training writes before its first step.

    Yields:
      The mean loss of each batch before its step, not finite where it has diverged; on
      one device.

    Raises:
      InputError: as `train`.
    """
    run = _Training(
        start, dataset, pretrained, seed, folder, Callbacks(), 30.0, progress
    )
    yield from run.losses_at(rates)


def losses_at_constant_rates(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    rates: Sequence[float],
    *,
    steps: int,
    seed: int,
    folder: Path,
    progress: bool = True,
) -> np.ndarray:
    """Begins the training of a seed at each of several learning rates, all at once.

    Args:
      start, dataset, pretrained, seed, folder, progress: as of `losses_at_rates`.
      rates: of the R trainings, each constant.
      steps: how many each of them takes.

    Returns:
      `[steps, R]` float64, the mean loss of each batch before its step, not finite
      where it has diverged; on one device, which holds R networks.

    Raises:
      InputError: as `train`.
    """
    run = _Training(
        start, dataset, pretrained, seed, folder, Callbacks(), 30.0, progress
    )
    return run.losses_at_constant(rates, steps)


class _Training:
    """The training of one seed."""

    def __init__(
        self,
        start: Start,
        dataset: DecodedDataset,
        pretrained: Pretrained | None,
        seed: int,
        folder: Path,
        callback: Callback,
        save_seconds: float,
        progress: bool,
    ) -> None:
        self._recipe = start.recipe
        self._dataset = dataset
        self._pretrained = pretrained
        self._seed = seed
        self._folder = folder
        self._callback = callback
        self._save_seconds = save_seconds
        self._progress = progress
        self._runner = Runner.all_devices()
        labels = dataset.labels[dataset.splits["train"]]
        check_classes(start.recipe, dataset)
        self._card = make_card(start, dataset.classes).of_training(dataset, seed)
        # Written now: what an interrupted training leaves can be used too.
        self._card.write(folder)
        self._model: Network = self._card.create_model()
        self._loss = make_loss(start.recipe, labels, len(dataset.classes))

    def run(self) -> Classifier:
        recipe = self._recipe
        if recipe.method == "full":
            # While the head is drawn, features are computed and the head is trained.
            self._steps.compile_ahead(self._shapes)
        variables = first_variables(
            recipe, self._model, self._dataset, self._pretrained, self._seed
        )
        if recipe.on_features:
            if recipe.solved:
                variables, row = self._solve_head(variables)
                history = [row]
            else:
                variables, row, history = self._train_head(
                    variables,
                    recipe.optim,
                    recipe.schedule,
                    recipe.epochs,
                    self._callback,
                    ema_decay=recipe.ema_decay,
                )
            checkpoints = CheckpointFolder(self._folder)
            checkpoints.save("best", int(row["step"]), variables, row)
            checkpoints.wait()
        else:
            history = self._train_all(self._with_head(variables))
        classifier = load_classifier(self._folder)
        return dataclasses.replace(classifier, history=tuple(history))

    def losses_at(self, rates: Iterable[float]) -> Iterator[float]:
        """See `losses_at_rates`."""
        step, state, train = self._at_rate()
        runner = Runner(tuple(jax.local_devices()[:1]))
        update, state = runner.compile_train(step), runner.replicate(state)
        with train.iterate() as batches:
            for rate, batch in zip(rates, batches, strict=False):
                batch = {**batch, "learning_rate": np.float32(rate)}
                state, sums = update(state, runner.place_batch(batch))
                yield summarize(jax.device_get(sums))["loss"]

    def losses_at_constant(self, rates: Sequence[float], steps: int) -> np.ndarray:
        """See `losses_at_constant_rates`."""
        step, state, train = self._at_rate()

        def at_rate(
            state: TrainState, rate: jax.Array, batch: Batch
        ) -> tuple[TrainState, Metrics]:
            return step(state, {**batch, "learning_rate": rate})

        update = jax.jit(jax.vmap(at_rate, in_axes=(0, 0, None)), donate_argnums=0)
        states = jax.device_put(
            jax.tree.map(lambda x: jnp.stack([x] * len(rates)), state)
        )
        own = jnp.asarray(rates, jnp.float32)
        losses: list[np.ndarray] = []
        with train.iterate() as batches:
            for batch in itertools.islice(batches, steps):
                states, sums = update(states, own, batch)
                found = jax.device_get(sums)
                losses.append(found["loss"] / found["count"])
        return np.array(losses, float)

    def _at_rate(self) -> tuple[TrainStep, TrainState, Batches]:
        """A step on batches that hold a `learning_rate` too, the first state, and the
        batches."""
        recipe, dataset = self._recipe, self._dataset
        variables = first_variables(
            recipe, self._model, dataset, self._pretrained, self._seed
        )
        options: dict[str, Any] = {
            "batch_size": recipe.batch_size, "seed": self._seed, "train": True,
        }  # fmt: skip
        if recipe.method == "features":
            features = extract_views(
                recipe, self._model, variables, dataset, progress=self._progress
            )
            model, variables = head_alone(self._model), join({}, variables)
            normalize, changes = unchanged, {}
            train = Batches.of_arrays(
                features[0], dataset.labels, dataset.splits["train"], **options
            )
        else:
            variables = self._with_head(variables)
            model, normalize = self._model, dataset.preprocessing
            changes = self._changes
            train = dataset.batches("train", augment=recipe.augment, **options)
        tx = make_optimizer(recipe.optim, steps_per_epoch=1, epochs=1)
        step = make_train_step(model, tx, self._loss, normalize=normalize, **changes)

        def at_rate(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            images = dict(batch)
            rate = images.pop("learning_rate")
            return step(state.with_hyperparams(learning_rate=rate), images)

        state = create_state(variables, tx, seed=self._seed, frozen=self._frozen)
        return at_rate, state, train

    @property
    def _frozen(self) -> tuple[str, ...]:
        return ("backbone",) if self._recipe.method == "head" else ()

    def _with_head(self, variables: dict[str, PyTree]) -> dict[str, PyTree]:
        """The variables that all is trained from: where the recipe says so, with a
        trained head."""
        recipe = self._recipe
        epochs = recipe.epochs_of_head(self._lengths["steps_per_epoch"])
        if epochs:
            optim = OptimConfig("adam", recipe.head_learning_rate)
            schedule = ScheduleConfig("cosine")
            variables, _, _ = self._train_head(variables, optim, schedule, epochs, None)
        return variables

    @cached_property
    def _changes(self) -> dict[str, Any]:
        """What the training step does to images, as its arguments."""
        recipe, augment = self._recipe, None
        if recipe.augment.pca_color:
            augment = make_color_augment(
                self._training_colors(),
                recipe.augment.pca_color,
                per_pixel=recipe.augment.pca_per_pixel,
            )
        mix = make_mix(mixup=recipe.mixup or None, cutmix=recipe.cutmix or None)
        return {"augment": augment, "mix": mix}

    def _batches(self, split: str) -> Batches | None:
        """Of the images of a split; training images are augmented anew in every epoch.
        None where there are none."""
        recipe, train = self._recipe, split == "train"
        if not len(self._dataset.splits[split]):
            return None
        return self._dataset.batches(
            split,
            batch_size=recipe.batch_size,
            seed=self._seed,
            train=train,
            augment=recipe.augment if train else None,
            **self._runner.shard,
        )

    @cached_property
    def _lengths(self) -> dict[str, int]:
        """What schedules depend on."""
        steps = -(-len(self._dataset.splits["train"]) // self._recipe.batch_size)
        return {"steps_per_epoch": steps, "epochs": self._recipe.epochs}

    @cached_property
    def _optimizer(self) -> GradientTransformation:
        return make_optimizer(
            self._recipe.optim, self._recipe.schedule, **self._lengths
        )

    @cached_property
    def _steps(self) -> Steps:
        """That all is trained by."""
        return Steps.compile(
            self._model,
            self._optimizer,
            self._loss,
            normalize=self._dataset.preprocessing,
            **self._changes,
            stages=[
                (last, Smaller((size, size), self._dataset.preprocessing))
                for size, last in self._recipe.stages
            ],
            runner=self._runner,
        )

    def _state(self, variables: dict[str, PyTree]) -> TrainState:
        """That all is trained from."""
        return create_state(
            variables,
            self._optimizer,
            seed=self._seed,
            frozen=self._frozen,
            ema_decay=self._recipe.ema_decay or None,
        )

    def _shapes(self) -> tuple[TrainState, Batch]:
        """Of what the steps take."""
        preprocessing, count = self._dataset.preprocessing, self._recipe.batch_size
        shape = (*preprocessing.size, preprocessing.channels)
        variables = variable_shapes(self._model, shape)
        batch = {
            "image": jax.ShapeDtypeStruct((count, *shape), np.uint8),
            "label": jax.ShapeDtypeStruct((count,), np.int32),
            "mask": jax.ShapeDtypeStruct((count,), np.float32),
        }
        return jax.eval_shape(self._state, variables), batch

    def _train_all(self, variables: dict[str, PyTree]) -> list[Row]:
        """Trains on images, augmented anew in every epoch."""
        recipe, train = self._recipe, self._batches("train")
        assert train is not None  # no class is without training images
        factor = schedule_factor(recipe.schedule, **self._lengths)
        peak = recipe.optim.learning_rate
        result = fit_steps(
            self._steps,
            self._state(variables),
            train,
            epochs=recipe.epochs,
            val=self._batches("val"),
            select=recipe.select,
            patience=recipe.patience,
            checkpoints=CheckpointFolder(self._folder),
            save_seconds=self._save_seconds,
            learning_rate_at=lambda step: peak * float(factor(step)),
            callback=self._callback,
        )
        return result.history

    def _training_colors(self) -> ColorComponents:
        """The principal colors of the normalized training images; kept on disk."""
        dataset = self._dataset
        components = color_components(
            dataset.preprocessing.normalize(dataset.image(index))
            for index in dataset.splits["train"]
        )
        write_json(self._folder / COLORS, to_plain(components))
        return components

    def _train_head(
        self,
        variables: dict[str, PyTree],
        optim: OptimConfig,
        schedule: ScheduleConfig,
        epochs: int,
        callback: Callback | None,
        *,
        ema_decay: float = 0.0,
    ) -> tuple[dict[str, PyTree], Row, list[Row]]:
        """Trains the head on features of the frozen backbone, which is run once.

        Returns:
          The whole network's variables, the row of the epoch that is selected, and all
          rows.
        """
        recipe, dataset = self._recipe, self._dataset
        features = extract_views(
            recipe, self._model, variables, dataset, progress=self._progress
        )
        variables, result = fit_head(
            self._model,
            variables,
            features,
            dataset.labels,
            dataset.splits,
            optim=optim,
            schedule=schedule,
            loss=self._loss,
            epochs=epochs,
            batch_size=recipe.batch_size,
            seed=self._seed,
            select=recipe.select,
            ema_decay=ema_decay,
            patience=recipe.patience,
            checkpoints=CheckpointFolder(self._folder / "head"),
            save_seconds=self._save_seconds,
            callback=callback,
        )
        row = result.history[max(result.best_epoch, 1) - 1]
        return variables, row, result.history

    def _solve_head(
        self, variables: dict[str, PyTree]
    ) -> tuple[dict[str, PyTree], Row]:
        """Solves the head on features of the frozen backbone, which is run once.

        Returns:
          The whole network's variables, and a row that stands for the only epoch.
        """
        recipe, dataset = self._recipe, self._dataset
        features = extract_views(
            recipe, self._model, variables, dataset, progress=self._progress
        )
        train = dataset.splits["train"]
        callback = self._callback if is_main_process() else Callbacks()
        callback.on_start(1, 1, 0, len(train))
        began = time.monotonic()
        variables = solve_head(
            self._model,
            variables,
            features,
            dataset,
            train,
            solver=recipe.solver,
            seed=self._seed,
        )
        seconds = max(time.monotonic() - began, 1e-9)
        row: Row = {"epoch": 1, "step": 1}
        for split in ("train", "val"):
            if len(indices := dataset.splits[split]):
                logits = head_logits(self._model, variables, features[:1, indices])
                labels = dataset.labels[indices]
                row[f"{split}_loss"] = negative_log_likelihood(logits, labels)
                row[f"{split}_accuracy"] = float(np.mean(logits.argmax(-1) == labels))
        row |= {"seconds": seconds, "images_per_second": len(train) / seconds}
        callback.on_epoch_end(row)
        callback.on_finish("solved")
        return variables, row


def first_variables(
    recipe: Recipe,
    model: Network,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    seed: int,
) -> dict[str, PyTree]:
    """The variables that training begins with.

    Args:
      recipe: how to train.
      model: its network.
      dataset: in the split of the seed and in the recipe's geometry.
      pretrained: weights of the backbone; None: fresh ones.
      seed: of what is fresh.
    """
    preprocessing = dataset.preprocessing
    shape = (*preprocessing.size, preprocessing.channels)
    if pretrained is None:
        variables = init_variables(model, seed, shape)
        train = dataset.splits["train"]
        images = (preprocessing.normalize(dataset.image(index)) for index in train)
        fitted = model.backbone.fit(images, len(train), seed)
        if fitted is not None:
            variables["params"] = {**variables["params"], "backbone": fitted}
    else:
        variables = init_pretrained(model, pretrained, seed, shape)
    if recipe.output_biases:
        labels = dataset.labels[dataset.splits["train"]]
        frequencies = class_frequencies(labels, len(dataset.classes))
        variables = set_output_biases(variables, frequencies)
    return variables


def extract_views(
    recipe: Recipe,
    model: Network,
    variables: dict[str, PyTree],
    dataset: DecodedDataset,
    *,
    progress: bool = True,
) -> np.ndarray:
    """Features `[V, N, F]` float32 of each view of every image; computed once.

    The first view is the image as it is. With method full there is no other.
    """
    views = recipe.views if recipe.on_features else 1
    with Progress("features", unit="images", enabled=progress) as report:

        def tell(view: int, done: int, total: int) -> None:
            report(view * total + done, views * total)

        return np.stack(
            [
                extract_features(
                    model,
                    variables,
                    dataset,
                    batch_size=recipe.batch_size,
                    augment=recipe.augment if view else None,
                    seed=view,
                    cache=features_folder(),
                    progress=partial(tell, view),
                )
                for view in range(views)
            ]
        )


def features_folder() -> Path:
    """Where features of frozen backbones are cached."""
    return cache_folder() / "features"


def network_name(recipe: Recipe) -> str:
    """The name in `MODELS` of a recipe's network, which "auto" has not."""
    return find_source(recipe.network).model if recipe.pretrained else recipe.network


def _fresh_preprocessing(recipe: Recipe, size: tuple[int, int]) -> Preprocessing:
    options: dict[str, Any] = {
        "size": size, "resize_mode": recipe.resize_mode, "gray": recipe.gray,
    }  # fmt: skip
    if recipe.scaling == "standardize":
        return Preprocessing(**options, standardize=True)
    channels = 1 if recipe.gray else 3
    mean, std = SCALINGS[recipe.scaling]
    return Preprocessing(**options, mean=(mean,) * channels, std=(std,) * channels)


def make_card(start: Start, classes: tuple[str, ...]) -> ModelCard:
    """The card of a network that the recipe trains, as far as the recipe decides it."""
    recipe = start.recipe
    options = {**recipe.options, "dtype": recipe.dtype}
    if recipe.method in ("head", "full"):
        options["freeze_bn"] = recipe.freeze_bn
    return ModelCard(
        network=network_name(recipe),
        options=options,
        classes=classes,
        preprocessing=start.preprocessing,
        weights=start.weights,
        data={},
        seed=0,
        batch_size=recipe.batch_size,
        binary=recipe.binary,
        recipe=to_plain(recipe),
    )


def check_classes(recipe: Recipe, dataset: DecodedDataset) -> None:
    """Raises `InputError` where the classes of the images, or how many training images
    there are, do not suit the recipe."""
    labels = dataset.labels[dataset.splits["train"]]
    counts = np.bincount(labels, minlength=len(dataset.classes))
    if recipe.binary and len(dataset.classes) != 2:
        raise InputError(
            f"{dataset.root}: {len(dataset.classes)} classes "
            f"({', '.join(dataset.classes)}), but with `binary` one logit tells "
            "exactly two apart; give a folder with two subfolders of images"
        )
    if not counts.all():
        name = dataset.classes[int(np.argmin(counts))]
        raise InputError(
            f"{dataset.root}: no image of class {name!r} is in the training split; "
            "add images of it, or change the split"
        )
    check_batch_size(recipe, len(labels))


def check_batch_size(recipe: Recipe, num_images: int) -> None:
    """Raises `InputError` for a batch that is far larger than the training split.

    Args:
      num_images: training images.
    """
    most = max(MOST_FILLED, num_images * recipe.views)
    if recipe.batch_size > most:
        raise InputError(
            f"must be at most {most} with {num_images} training images",
            setting="batch_size",
            value=recipe.batch_size,
        )


def doubts(start: Start, dataset: DecodedDataset) -> list[str]:
    """What is allowed and yet hardly meant, a sentence each.

    Args:
      start: of the recipe.
      dataset: in the split of a seed.
    """
    recipe, found = start.recipe, []
    before = 0
    for size, last in recipe.stages:
        if last == before:
            found.append(
                f"no epoch is trained at the image size {size}: {recipe.epochs} epochs "
                "leave it none"
            )
        before = last
    train, val = len(dataset.splits["train"]), len(dataset.splits["val"])
    if recipe.batch_size == 1 and _learns_batch_norm(start, dataset):
        found.append(
            "a batch of 1 with batch norm: every image is normalized by itself, and "
            "the network hardly learns; give a batch size of 8 or more"
        )
    if recipe.batch_size > train * recipe.views:
        found.append(
            f"a batch of {recipe.batch_size} is larger than the {train} training "
            "images, and filled up with images that do not count"
        )
    if not val:
        if recipe.select == "best" and not recipe.solved:
            found.append("no validation images: the last epoch is the result")
    elif val < FEW_IMAGES:
        found.append(
            f"only {val} validation images: each is {100 / val:.0f} points of accuracy"
        )
    for split in ("val", "test"):
        labels = dataset.labels[dataset.splits[split]]
        counts = np.bincount(labels, minlength=len(dataset.classes))
        absent = [dataset.classes[label] for label in np.flatnonzero(counts == 0)]
        if absent and len(labels):
            found.append(
                f"no {split} image of {format_names(absent)}: the accuracy of that "
                "split says nothing of it"
            )
    return found


def _learns_batch_norm(start: Start, dataset: DecodedDataset) -> bool:
    """Whether the network is trained with batch norm by each batch's statistics."""
    recipe = start.recipe
    if recipe.on_features or (recipe.pretrained and recipe.freeze_bn):
        return False
    model = make_card(start, dataset.classes).create_model()
    shape = (*start.preprocessing.size, start.preprocessing.channels)
    return bool(jax.tree.leaves(variable_shapes(model, shape)["batch_stats"]))


def make_loss(recipe: Recipe, labels: np.ndarray, num_classes: int) -> Loss:
    """The recipe's loss; `labels` `[n]` of the training images."""
    weights = None
    if recipe.class_weights:
        weights = balanced_class_weights(labels, num_classes)
    return make_cross_entropy(
        class_weights=weights, label_smoothing=recipe.label_smoothing
    )


def evaluate_split(
    start: Start, classifier: Classifier, dataset: DecodedDataset, split: str
) -> Evaluation:
    """The network on a split; where its backbone is frozen and its features are cached,
    by way of those."""
    indices = dataset.splits[split]
    options: dict[str, Any] = {
        "batch_size": start.recipe.batch_size, "train": False,
        **Runner.all_devices().shard,
    }  # fmt: skip
    if not start.recipe.on_features:
        batches = dataset.batches(indices, **options)
        row, logits = classifier.evaluate_batches(batches)
        return classifier.evaluation(dataset, split, indices, row, logits)
    features = extract_features(
        classifier.model,
        classifier.variables,
        dataset,
        batch_size=start.recipe.batch_size,
        cache=features_folder(),
    )
    batches = Batches.of_arrays(features, dataset.labels, indices, seed=0, **options)
    head = dataclasses.replace(
        classifier,
        model=head_alone(classifier.model),
        variables=join({}, classifier.variables),
    )
    row, logits = head.evaluate_batches(batches, normalize=unchanged)
    return classifier.evaluation(dataset, split, indices, row, logits)


def _is_finished(folder: Path, epochs: int) -> bool:
    """Whether a seed has been trained for that many epochs and measured.

    Of several processes, process 0 tells the others, and gives them what it has.

    Raises:
      InputError: it was trained for more.
    """
    texts: dict[str, str] = {}
    if is_main_process() and (folder / CARD).is_file():
        found = ModelCard.read(folder)
        before = found.recipe.get("epochs")
        if not isinstance(before, int):
            raise InputError(
                f"{folder / CARD}: damaged (no epochs in its recipe); train again"
            )
        if before > epochs:
            raise InputError(
                f"{folder} has been trained for {before}: give at least as many",
                setting="epochs",
                value=epochs,
            )
        if found.recorded and before == epochs:
            texts = {
                name: (folder / name).read_text("utf-8") for name in (CARD, SPLITS)
            }
    texts = broadcast(texts)
    if not is_main_process():
        for name, text in texts.items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
    return bool(texts)
