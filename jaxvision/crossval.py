"""Cross-validation: every image is classified by a network that has not seen it, or by
one that has seen no image of its class.

    found = cross_validate(data, Recipe("efficientnet_lite0"), folds=5, seed=0)
    print(found.accuracy)

The images are divided into folds. For each, a network is trained on the others, some of
which are left out to validate by, and classifies the images of the fold.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.classifier import Evaluation, softmax
from jaxvision.config import Bounds, check_number, from_plain, to_plain
from jaxvision.data.dataset import Dataset, DecodedDataset
from jaxvision.data.splits import SplitRow, Splits
from jaxvision.errors import InputError
from jaxvision.metrics import (
    class_frequencies,
    fit_temperature,
    fit_threshold,
    negative_log_likelihood,
)
from jaxvision.models import Network
from jaxvision.pretrained import Pretrained
from jaxvision.recipe import (
    Start,
    check_classes,
    doubts,
    evaluate_split,
    extract_views,
    first_variables,
    make_card,
    make_loss,
    make_start,
    train_seed,
)
from jaxvision.report.progress import Progress, TrainingProgress
from jaxvision.settings import Recipe
from jaxvision.storage import write_json, writing
from jaxvision.training.distributed import broadcast, is_main_process
from jaxvision.training.state import set_output_biases
from jaxvision.transfer import fit_head, head_logits, solve_head

FOLDS = 5
"""How many, where nothing is said."""


@dataclasses.dataclass(frozen=True)
class FoldEvaluation(Evaluation):
    """All images, each by the network that was trained on the other folds.

    fold: `[N]` int32, of each image, from 0.
    temperatures: `[N]` float32, what the logits of each image are divided by for
        probabilities: each network's is fitted to its own validation images.
        `temperature` is their mean.
    """

    fold: np.ndarray
    temperatures: np.ndarray

    @property
    def scaled_logits(self) -> np.ndarray:
        """`[N, K]` float32, each divided by its own temperature."""
        return self.logits / self.temperatures[:, None]

    def with_temperature(self, temperature: float) -> "FoldEvaluation":
        """The same logits with other probabilities: one temperature for all."""
        temperatures = np.full(len(self.labels), temperature, np.float32)
        return dataclasses.replace(
            self, temperatures=temperatures, temperature=temperature
        )

    @property
    def columns(self) -> list[str]:
        """What stands in each of `rows`; the last ones are the classes'."""
        return ["image", "true", "fold", "predicted", *self.classes]

    @property
    def rows(self) -> list[list[Any]]:
        """An image each: path, true class, fold, predicted class, probabilities as the
        float32 they are, so that every figure of classes can be computed again."""
        return [
            [image, self.classes[label], int(fold), self.classes[predicted], *row]
            for image, label, fold, predicted, row in zip(
                self.images,
                self.labels,
                self.fold,
                self.predictions,
                # The shortest text that is this float32 again.
                self.probabilities.astype(str).tolist(),
                strict=True,
            )
        ]


@dataclasses.dataclass(frozen=True)
class LeftOutClass:
    """What a head that does not know a class makes of its images.

    name: of the class.
    known: held-out images of the other classes, with the temperature and the threshold
        that are fitted to their validation images.
    unknown: `[U, K]` float32 logits of all images of the class.
    """

    name: str
    known: Evaluation
    unknown: np.ndarray


def cross_validate(
    data: Dataset,
    recipe: Recipe,
    *,
    folds: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> FoldEvaluation:
    """Measures a recipe on all images, each by a network that has not seen it.

    Args:
      data: labeled images; how they are divided otherwise does not matter, but for the
        ratio of `data.split.train` to `data.split.val`.
      recipe: how to train.
      folds: how many; None: those of the data set's config, or 5.
      seed: of the folds, and of each training.
      folder: of what is done so far: a cross-validation that was stopped is continued
        from there, exactly. None: nothing is kept.
      progress: whether to show bars on stderr.

    Returns:
      The evaluation, whose logits are those of all networks, each on its fold.

    Raises:
      InputError: bad settings, images or weights; a class that is too small for the
        folds; images that have changed since it was begun.
      Interrupted: on Ctrl-C or SIGTERM, after saving into `folder`.
    """
    start = make_start(recipe)
    check_number("seed", seed, Bounds(0, 2**32 - 1))
    data = data.with_folds(folds or data.config.folds or FOLDS)
    with Progress("reading images", unit="images", enabled=progress) as report:
        dataset = data.with_seed(seed).decode(start.preprocessing, progress=report)
    check_folds(recipe, dataset)
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="jaxvision-")
            )
        return cross_validate_seed(
            start,
            dataset,
            start.load_weights(),
            seed=seed,
            folder=Path(folder),
            progress=progress,
        )


def check_folds(recipe: Recipe, dataset: DecodedDataset) -> None:
    """Raises `InputError` where a fold leaves too little to train by the recipe."""
    for number in range(dataset.config.folds or 0):
        part = in_fold(dataset, number)
        try:
            check_classes(recipe, part)
        except InputError as error:
            raise InputError(f"fold {number + 1}: {error}") from None


def doubts_of_folds(start: Start, dataset: DecodedDataset) -> list[str]:
    """As `doubts`, with the folds that a sentence is true of, if not of all."""
    count = dataset.config.folds or 0
    found: dict[str, list[int]] = {}
    if dataset.parts:
        text = "the images come divided, and the folds are made of all of them"
        found[text] = list(range(count))
    for number in range(count):
        for doubt in doubts(start, in_fold(dataset, number)):
            found.setdefault(doubt, []).append(number + 1)
    return [
        doubt
        if len(numbers) == count
        else f"fold {', '.join(map(str, numbers))}: {doubt}"
        for doubt, numbers in found.items()
    ]


def in_fold(dataset: DecodedDataset, number: int) -> DecodedDataset:
    """The images in the split of a fold, which is its test."""
    rows = [
        SplitRow(
            dataset.images[index],
            dataset.classes[dataset.labels[index]],
            split,
            dataset.digests[index],
        )
        for split, indices in dataset.fold_splits(number).items()
        for index in map(int, indices)
    ]
    return dataset.with_splits(rows)


def cross_validate_seed(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    *,
    seed: int,
    folder: Path,
    save_seconds: float = 30.0,
    progress: bool = True,
) -> FoldEvaluation:
    """Trains a network for each fold, on the others, and classifies all images.

    What each fold gave is kept in `folder`, its network is not.

    Args:
      start: of the recipe.
      dataset: in the start's preprocessing, with `config.folds`.
      pretrained: the weights of the start.
      seed: of the folds, the initialization, the order of the images and dropout.
      folder: of what is done so far; see `cross_validate`.
      save_seconds: time between two saves while training.
      progress: whether to show bars.

    Raises:
      InputError: as `cross_validate`.
    """
    count = dataset.config.folds
    assert count is not None
    if start.recipe.method == "features":
        learn = _Heads(start, dataset, pretrained, seed, progress).learn
    else:
        learn = _Networks(
            start, dataset, pretrained, seed, save_seconds, progress
        ).learn
    facts = {"recipe": to_plain(start.recipe), "folds": count, "seed": seed}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    logits = np.zeros((len(dataset.images), len(dataset.classes)), np.float32)
    temperatures = np.ones(len(dataset.images), np.float32)
    for number in range(count):
        held_out = np.flatnonzero(dataset.fold == number)
        images = [[dataset.images[i], dataset.digests[i]] for i in held_out]
        about = {**facts, "images": images}
        path, place = folder / f"fold-{number}.json", folder / f"fold-{number}"
        found = _Fold.read(path, about)
        if found is None:
            found = learn(number, place)
            if is_main_process():
                found.write(path, about)
        shutil.rmtree(place, ignore_errors=True)
        logits[held_out], temperatures[held_out] = found.logits, found.temperature
    return FoldEvaluation(
        "fold",
        dataset.classes,
        dataset.images,
        dataset.labels,
        logits,
        negative_log_likelihood(logits, dataset.labels),
        float(np.mean(logits.argmax(-1) == dataset.labels)),
        dataset.fold,
        temperatures,
        temperature=float(temperatures.mean()),
    )


@dataclasses.dataclass(frozen=True)
class _Fold:
    """What one network says of its fold.

    logits: `[n, K]` float32, in the order of the data set.
    temperature: fitted to its validation images; 1 without any.
    """

    logits: np.ndarray
    temperature: float = 1.0

    @classmethod
    def calibrated(
        cls, logits: np.ndarray, val_logits: np.ndarray, val_labels: np.ndarray
    ) -> "_Fold":
        return cls(logits, fit_temperature(val_logits, val_labels))

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Writes it with what it is of: plain values, of which "images" are the paths
        and the SHA-256 of the images."""
        found = {"logits": self.logits.tolist(), "temperature": self.temperature}
        write_json(path, {**about, **found})

    @classmethod
    def read(cls, path: Path, about: Mapping[str, Any]) -> "_Fold | None":
        """What was written, bit by bit; None: nothing yet. Of several processes, the
        first one reads for all.

        Raises:
          InputError: it is damaged, or of something else.
        """
        plain: Mapping[str, Any] | None = None
        try:
            if is_main_process() and path.is_file():
                plain = json.loads(path.read_text("utf-8"))
            plain = broadcast(plain)
            if plain is None:
                return None
            known = {name: plain[name] for name in about}
            # As an earlier version wrote it: settings it did not have are missing.
            known["recipe"] = to_plain(from_plain(Recipe, known["recipe"]))
            found = cls(
                np.array(plain["logits"], np.float32), float(plain["temperature"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); remove it") from error
        wanted = json.loads(json.dumps(about))
        if changed := [name for name in wanted if known[name] != wanted[name]]:
            raise InputError(
                f"{path}: measured with other {changed[0]}; take the same again, or "
                "another folder"
            )
        return found


class _Networks:
    """Networks of their own, each trained as any other."""

    def __init__(
        self,
        start: Start,
        dataset: DecodedDataset,
        pretrained: Pretrained | None,
        seed: int,
        save_seconds: float,
        progress: bool,
    ) -> None:
        self._start, self._dataset, self._seed = start, dataset, seed
        self._pretrained = pretrained
        self._save_seconds, self._progress = save_seconds, progress

    def learn(self, number: int, place: Path) -> _Fold:
        """Trains the network of a fold, or what is left of it."""
        start, part = self._start, in_fold(self._dataset, number)
        title = f"seed {self._seed}, fold {number + 1} of {part.config.folds}"
        with TrainingProgress(title=title, enabled=self._progress) as bars:
            classifier, _ = train_seed(
                start,
                part,
                self._pretrained,
                seed=self._seed,
                folder=place,
                callback=bars,
                save_seconds=self._save_seconds,
                progress=self._progress,
                measure=False,
            )
        test = evaluate_split(start, classifier, part, "test")
        if not len(part.splits["val"]):
            return _Fold(test.logits)
        val = evaluate_split(start, classifier, part, "val")
        return _Fold.calibrated(test.logits, val.logits, val.labels)


class _Heads:
    """Heads on the features of one frozen backbone, which is run once for all folds."""

    def __init__(
        self,
        start: Start,
        dataset: DecodedDataset,
        pretrained: Pretrained | None,
        seed: int,
        progress: bool,
    ) -> None:
        self._recipe, self._dataset, self._seed = start.recipe, dataset, seed
        model = make_card(start, dataset.classes).create_model()
        assert isinstance(model, Network)
        self._model = model
        # Of the output's biases, each fold has its own.
        fresh = start.recipe.replace(output_biases=False)
        self._variables = first_variables(fresh, model, dataset, pretrained, seed)
        self._features = extract_views(
            start.recipe, model, self._variables, dataset, progress=progress
        )

    def learn(self, number: int, place: Path) -> _Fold:
        """Trains or solves the head of a fold."""
        splits = self._dataset.fold_splits(number)
        variables = self.fit(splits)
        logits = self.logits(variables, splits["test"])
        if not len(splits["val"]):
            return _Fold(logits)
        labels = self._dataset.labels[splits["val"]]
        return _Fold.calibrated(logits, self.logits(variables, splits["val"]), labels)

    def fit(self, splits: Splits) -> dict[str, Any]:
        """Variables with a head that is trained or solved."""
        return self._solve(splits) if self._recipe.solved else self._train(splits)

    def logits(
        self, variables: dict[str, Any], indices: np.ndarray, views: int | None = None
    ) -> np.ndarray:
        """`[n, K]` of some images; the mean over the first views of each, or all."""
        return head_logits(self._model, variables, self._features[:views, indices])

    def _solve(self, splits: Splits) -> dict[str, Any]:
        return solve_head(
            self._model,
            self._variables,
            self._features,
            self._dataset,
            splits["train"],
            solver=self._recipe.solver,
            seed=self._seed,
        )

    def _train(self, splits: Splits) -> dict[str, Any]:
        recipe, labels = self._recipe, self._dataset.labels
        classes = len(self._dataset.classes)
        variables = self._variables
        if recipe.output_biases:
            frequencies = class_frequencies(labels[splits["train"]], classes)
            variables = set_output_biases(variables, frequencies)
        variables, _ = fit_head(
            self._model,
            variables,
            self._features,
            labels,
            splits,
            optim=recipe.optim,
            schedule=recipe.schedule,
            loss=make_loss(recipe, labels[splits["train"]], classes),
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            seed=self._seed,
            select=recipe.select,
            ema_decay=recipe.ema_decay,
            patience=recipe.patience,
        )
        return variables


def leave_classes_out(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    *,
    seed: int,
    progress: bool = True,
) -> list[LeftOutClass]:
    """For each class, trains a head on the others and shows it the images of the class.

    Args:
      start: of a recipe with method features.
      dataset: of three classes or more, in the split of the seed and in the start's
        preprocessing; with validation images, and with test images or without.
      pretrained: the weights of the start.
      seed: as of `train`.
      progress: whether to show bars.

    Returns:
      One a class, in their order.

    Raises:
      InputError: too few classes.
    """
    if len(dataset.classes) < 3:
        raise InputError(
            f"{dataset.root}: {len(dataset.classes)} classes; give three or more, so "
            "that two are left where one is left out"
        )
    return [
        _leave_out(start, dataset, pretrained, left, seed, progress)
        for left in range(len(dataset.classes))
    ]


def _leave_out(
    start: Start,
    dataset: DecodedDataset,
    pretrained: Pretrained | None,
    left: int,
    seed: int,
    progress: bool,
) -> LeftOutClass:
    labels, name = dataset.labels, dataset.classes[left]
    # Images of the class that is left out keep a label, which nothing reads.
    known = dataclasses.replace(
        dataset,
        classes=tuple(other for other in dataset.classes if other != name),
        labels=np.where(labels > left, labels - 1, labels),
    )
    splits = {
        split: indices[labels[indices] != left]
        for split, indices in dataset.splits.items()
    }
    heads = _Heads(start, known, pretrained, seed, progress)
    variables = heads.fit(splits)
    split = "test" if len(splits["test"]) else "val"
    # Of the image as it is, as `predict` sees it.
    val, tested = (heads.logits(variables, splits[s], views=1) for s in ("val", split))
    temperature = fit_temperature(val, known.labels[splits["val"]])
    truth = known.labels[splits[split]]
    evaluation = Evaluation(
        split,
        known.classes,
        tuple(dataset.images[index] for index in splits[split]),
        truth,
        tested,
        negative_log_likelihood(tested, truth),
        float(np.mean(tested.argmax(-1) == truth)),
        temperature=temperature,
        threshold=fit_threshold(softmax(val / np.float32(temperature))),
    )
    unknown = heads.logits(variables, np.flatnonzero(labels == left), views=1)
    return LeftOutClass(name, evaluation, unknown)
