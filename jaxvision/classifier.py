"""A trained network with its card: predict, explain, evaluate, save.

classifier = load_classifier("photos-classifier")
classifier.predict("a.jpg").label
classifier.evaluate(dataset).accuracy
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.config import from_plain, to_plain
from jaxvision.data.corrections import Correction
from jaxvision.data.dataset import DataConfig, Dataset, DecodedDataset, load_dataset
from jaxvision.data.decode import BadImage
from jaxvision.data.loader import Batches
from jaxvision.data.splits import SplitRow, read_splits, write_split_rows
from jaxvision.errors import InputError
from jaxvision.kept_traces import KeptTrace
from jaxvision.metrics import (
    ClassMetrics,
    Reliability,
    RocCurve,
    class_logits,
    class_metrics,
    confusion_matrix,
    make_cross_entropy,
    reliability,
    roc_curve,
)
from jaxvision.models import Network, create_model
from jaxvision.prediction import (
    BATCH_SIZE,
    OnBad,
    Prediction,
    Source,
    decode_source,
    predictions,
)
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import file_sha256, write_json, writing
from jaxvision.training.checkpoint import (
    CheckpointFolder,
    Entry,
    nest,
    unflatten_like,
)
from jaxvision.training.loop import evaluate
from jaxvision.training.parallel import Runner, keep_programs
from jaxvision.training.step import Normalize
from jaxvision.tta import MeanNetwork, Tta, Versions
from jaxvision.typing import Progress, PyTree, Row

if TYPE_CHECKING:
    from jaxvision.explain.methods import Explanation
    from jaxvision.export.folder import Exported
    from jaxvision.export.model import BatchSize, Dtype

CARD = "card.json"
SPLITS = "splits.csv"
"""The images that a network was trained and measured on, in its checkpoint folder."""

MOST_CHECKED = 256
"""Images that an exported model is checked by."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """All that a checkpoint's arrays need to be used, as plain values."""

    network: str
    """Name in `jaxvision.models.MODELS`."""
    options: dict[str, Any]
    """Further arguments of `create_model`."""
    classes: tuple[str, ...]
    """Names in the order of the labels; of each logit, where there are as many."""
    preprocessing: Preprocessing
    weights: str
    """Where the backbone's first weights came from, in words."""
    data: dict[str, Any]
    """The data set's name, root, CSV of labels, whether it was drawn by code, and the
    corrections of its labels."""
    seed: int
    batch_size: int
    """Of the evaluation whose figures are recorded."""
    binary: bool = False
    """Two classes are told apart by one logit, that of the second."""
    temperature: float = 1.0
    """What logits are divided by for probabilities, fitted to the validation images;
    see `metrics.fit_temperature`."""
    threshold: float = 0.0
    """An image whose most probable class is less probable may be of none of them. 95 %
    of the validation images reach it, see `metrics.fit_threshold`; 0: there were none.
    """
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How it was trained: a `Recipe` as plain values."""
    recorded: dict[str, Row] = dataclasses.field(default_factory=dict)
    """What `evaluate` gave of each split when training had ended."""

    def of_training(self, dataset: Dataset, seed: int) -> "ModelCard":
        """The card with the data set and the seed that the network is trained on."""
        labels = dataset.config.labels
        data = {
            "name": dataset.name,
            "root": str(dataset.root.resolve()),
            "labels": None if labels is None else str(labels.resolve()),
            "is_demo": dataset.is_demo,
            "corrections": to_plain(dataset.corrections),
        }
        return dataclasses.replace(self, data=data, seed=seed)

    def write(self, folder: Path) -> None:
        """Writes `card.json` into a checkpoint folder, with the SHA-256 of its values
        and of the splits that lie there; so the two are replaced at once.

        Raises:
          InputError: it cannot be written.
        """
        plain = to_plain(self)
        write_json(folder / CARD, {**plain, "sha256": _hashes(plain, folder)})

    @classmethod
    def read(cls, folder: Path) -> "ModelCard":
        """Reads `card.json` of a checkpoint folder, and checks it and the splits.

        Raises:
          InputError: there is none, it is not one of ours, or it or the splits have
            changed since they were written.
        """
        path = folder / CARD
        try:
            plain = dict(json.loads(path.read_text("utf-8")))
            if "sha256" not in plain:
                raise ValueError("it holds no SHA-256, as one of an older version")
            wanted, found = dict(plain.pop("sha256")), _hashes(plain, folder)
            for name in (CARD, SPLITS):
                if found.get(name) != wanted.get(name):
                    raise ValueError(f"{name} has changed since it was written")
            card = from_plain(cls, plain)
            card.create_model()
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder}: no checkpoint there (no {CARD}); give the folder that "
                "training printed, checkpoints/<experiment>/<time>"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: damaged ({error}); train again") from error
        return card

    def create_model(self) -> Network:
        """The network, without its parameters."""
        options = dict(self.options)
        if "dtype" in options:
            options["dtype"] = jnp.dtype(options["dtype"])
        num_logits = 1 if self.binary else len(self.classes)
        return create_model(self.network, num_logits, **options)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network does on labeled images.

    Attributes:
      split: "train", "val", "test", or "all".
      classes: names; labels and logits are in their order.
      images: paths relative to the data set's root.
      labels: `[N]` int32, true classes.
      logits: `[N, K]` float32.
      loss: mean cross-entropy of the logits as they are, in nats.
      accuracy: share of the images that are classified correctly.
      temperature: what logits are divided by for probabilities.
      tta: test-time augmentation, by which the logits were found.
      threshold: an image whose most probable class is less probable is turned away,
        where "unknown" is an answer; 0: none is.
    """

    split: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    loss: float
    accuracy: float
    temperature: float = dataclasses.field(default=1.0, kw_only=True)
    tta: Tta | None = dataclasses.field(default=None, kw_only=True)
    threshold: float = dataclasses.field(default=0.0, kw_only=True)

    @property
    def predictions(self) -> np.ndarray:
        """`[N]` int, the class with the highest logit."""
        return self.logits.argmax(-1)

    @property
    def probabilities(self) -> np.ndarray:
        """`[N, K]` float32; rows sum to 1."""
        return softmax(self.scaled_logits)

    @property
    def scaled_logits(self) -> np.ndarray:
        """`[N, K]` float32, divided by the temperature."""
        return self.logits / np.float32(self.temperature)

    @cached_property
    def reliability(self) -> Reliability:
        """How sure the predictions are, and how often they are right."""
        return reliability(self.probabilities, self.labels)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error of the probabilities."""
        return self.reliability.error

    def with_temperature(self, temperature: float) -> "Evaluation":
        """The same logits with other probabilities."""
        return dataclasses.replace(self, temperature=temperature)

    @property
    def turned_away(self) -> np.ndarray:
        """`[N]` bool, whether "unknown" would be the answer."""
        return self.probabilities.max(-1) < self.threshold

    @cached_property
    def per_class(self) -> ClassMetrics:
        """Precision, recall, F1 and number of images of each class."""
        return class_metrics(self.labels, self.predictions, len(self.classes))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images."""
        return self.per_class.balanced_accuracy

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes."""
        return self.per_class.macro_f1

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """`[K, K]` int64 counts: rows are true, columns predicted classes."""
        return confusion_matrix(self.labels, self.predictions, len(self.classes))

    def roc_curve(self) -> RocCurve | None:
        """The receiver operating characteristic of two classes; None for more, or where
        only one of them has images."""
        if len(self.classes) != 2 or len(np.unique(self.labels)) != 2:
            return None
        # The difference of the logits is the logit of the second class's probability.
        return roc_curve(self.labels, self.logits[:, 1] - self.logits[:, 0])

    @property
    def row(self) -> Row:
        """Its figures by name, as results and cards hold them."""
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
        }


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A network with its parameters and its card.

    Attributes:
      model: the Flax module.
      variables: its `params` and `batch_stats`.
      card: classes, preprocessing, recipe and recorded accuracies.
      splits: the images that training had, each with its label and split.
      history: a row an epoch, where it has just been trained.
    """

    model: Network
    variables: dict[str, PyTree]
    card: ModelCard
    splits: tuple[SplitRow, ...] = ()
    history: tuple[Row, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.card.classes

    @overload
    def predict(
        self,
        images: Source,
        *,
        tta: Tta | None = ...,
        unknown: bool = ...,
        batch_size: int = ...,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: Iterable[Source],
        *,
        tta: Tta | None = ...,
        unknown: bool = ...,
        on_bad: OnBad | None = ...,
        batch_size: int = ...,
    ) -> Iterator[Prediction]: ...

    def predict(
        self,
        images: Source | Iterable[Source],
        *,
        tta: Tta | None = None,
        unknown: bool = False,
        on_bad: OnBad | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Prediction | Iterator[Prediction]:
        """Classifies images.

            classifier.predict("a.jpg").label
            for prediction in classifier.predict(paths):
                print(prediction.path, prediction.label)

        Args:
          images: a file, or a uint8 array `[H, W, C]` in the card's geometry, with
            crops in the larger one of `tta.Versions.source`; or any number of them,
            also an iterator.
          tta: test-time augmentation, the mean of the probabilities of several versions
            of an image: "flip" of it and its mirror image, "five-crops" of its center
            and its corners, "ten-crops" of those and their mirror images. None: the
            image as it is.
          unknown: whether an image may be of none of the classes: its label is
            `UNKNOWN` where the highest probability is below the card's threshold.
          on_bad: called with a `BadImage` (`path`, `reason`) for each file that cannot
            be read, which then gets no prediction; None: it is an error.
          batch_size: images at once, 1 or more; crops count as images.

        Returns:
          A prediction; or of several images an iterator that gives predictions in
          their order, as they come, in constant memory: `list` keeps them.

        Raises:
          InputError: a file cannot be read as an image; where the predictions come one
            by one, when it is its turn. `unknown`, and the card has no threshold, or
            with `tta`, for which it was not fitted.
        """
        if batch_size < 1:
            raise InputError(
                "must be at least 1", setting="batch_size", value=batch_size
            )
        if unknown and not self.card.threshold:
            raise InputError(
                "this network has no threshold, which is fitted to the validation "
                "images of a training: train again, with some",
                setting="unknown",
            )
        if unknown and tta is not None:
            raise InputError(
                "its threshold was fitted without `tta`; leave one of them out",
                setting="unknown",
            )
        single = isinstance(images, (str, Path, np.ndarray))
        card, source = self.card, self.card.preprocessing
        model, normalize, temperature = self.model, source, card.temperature
        if tta is not None:
            versions = Versions(tta, source)
            model, normalize, temperature = self._averaging(versions), versions, 1.0
            source = versions.source
            batch_size = max(1, batch_size // versions.crops)
        found = predictions(
            [images] if single else images,
            partial(
                _probabilities(model, normalize),
                self.variables,
                np.float32(temperature),
            ),
            card.classes,
            source,
            threshold=card.threshold if unknown else 0.0,
            batch_size=batch_size,
            on_bad=None if single else on_bad,
        )
        return next(found) if single else found

    def decode(self, image: Source) -> np.ndarray:
        """An image in the card's geometry: uint8 `[H, W, C]`.

        Args:
          image: a file, or an array that is in that geometry.

        Raises:
          InputError: the file cannot be read as an image; an array of another geometry.
        """
        try:
            return decode_source(image, self.card.preprocessing)
        except BadImage as bad:
            raise InputError(f"{bad}; give another image") from bad

    def explain(
        self,
        image: Source,
        *,
        method: str = "grad_cam",
        label: str | None = None,
        **options: Any,
    ) -> "Explanation":
        """Shows what in an image speaks for a class.

            explanation = classifier.explain("a.jpg")
            Image.fromarray(explanation.overlay).save("why.png")

        Args:
          image: a file, or a uint8 array `[H, W, C]` in the card's geometry.
          method: a name in `jaxvision.explain.methods.METHODS`.
          label: of the class; None: the one that the network predicts.
          **options: of the method, such as `layer` of grad_cam.

        Raises:
          InputError: the file cannot be read as an image, there is no such method or
            class, or the network has not the layers that the method needs.
        """
        # Here, as below: predicting need not wait for it.
        from jaxvision.explain.methods import Explanation, TrainedNetwork, find_method

        explain = find_method(method).explain
        pixels = self.decode(image)
        if label is None:
            label = self.predict(pixels).label
        if label not in self.classes:
            raise InputError(
                f"no such class; there are {_listed(self.classes)}",
                setting="label",
                value=label,
            )
        network = TrainedNetwork.of(self)
        found = explain(network, pixels[None], self.classes.index(label), **options)
        return Explanation(label, method, pixels, np.asarray(found)[0])

    def evaluate(
        self,
        dataset: Dataset,
        split: str | None = None,
        *,
        tta: Tta | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Measures the network on labeled images; classes are matched by name.

        On the data set that it was trained on, a split holds the images that training
        had there. The same checkpoint on the same images and device gives the same
        figures to the last digit.

        Args:
          dataset: images; decoded here in the card's geometry, unless they are.
          split: "train", "val" or "test", or "all" images. None: "test" of the data
            set that it was trained on, or "val" where no image was set aside for the
            test; all images of another data set.
          tta: as of `predict`; the logits are then logarithms of probabilities.
          progress: told (images decoded, images in all).

        Raises:
          InputError: a class that the network does not know, or a split without
            images.
        """
        card, runner, batch_size = self.card, Runner.all_devices(), self.card.batch_size
        answering, normalize, source = self, None, card.preprocessing
        if tta is not None:
            normalize = Versions(tta, source)
            source = normalize.source
            # The probabilities that are averaged have the card's temperature.
            answering = dataclasses.replace(
                self,
                model=self._averaging(normalize),
                card=dataclasses.replace(card, temperature=1.0),
            )
            # As many crops at once as there are images otherwise.
            devices = len(runner.devices)
            batch_size = -(-batch_size // (devices * normalize.crops)) * devices
        decoded = self._relabeled(dataset.decode(source, progress=progress))
        name, indices = self._chosen(decoded, split)
        batches = decoded.batches(
            indices,
            batch_size=batch_size,
            train=False,
            process_index=runner.shard["process_index"],
            process_count=runner.shard["process_count"],
        )
        row, logits = answering.evaluate_batches(batches, normalize=normalize)
        found = answering.evaluation(decoded, name, indices, row, logits)
        # The threshold was fitted to images as they are.
        threshold = 0.0 if tta is not None else found.threshold
        return dataclasses.replace(found, tta=tta, threshold=threshold)

    def evaluation(
        self,
        dataset: DecodedDataset,
        split: str,
        indices: np.ndarray,
        row: Row,
        logits: np.ndarray,
    ) -> Evaluation:
        """What `evaluate_batches` gave, with the labels of the images.

        Args:
          dataset: whose classes are those of the card.
          indices: `[N]` of the images in the data set.
          row, logits: as from `evaluate_batches`.
        """
        return Evaluation(
            split,
            self.card.classes,
            tuple(dataset.images[index] for index in indices),
            dataset.labels[indices],
            logits,
            row["loss"],
            row["accuracy"],
            temperature=self.card.temperature,
            threshold=self.card.threshold,
        )

    def evaluate_batches(
        self,
        batches: Batches,
        *,
        normalize: Normalize | None = None,
    ) -> tuple[Row, np.ndarray]:
        """Mean loss and accuracy over one pass of batches, and logits `[N, K]`.

        A network of one logit gives two as well, see `metrics.class_logits`. Labels
        are those of the batches: indices into the card's classes.

        Args:
          normalize: what makes the network's input of them; None: its preprocessing.
        """
        row, logits = evaluate(
            self.model,
            make_cross_entropy(),
            self.variables,
            batches,
            normalize=normalize or self.card.preprocessing,
        )
        return row, np.asarray(class_logits(jnp.asarray(logits)))

    def record(
        self,
        figures: Mapping[str, Row],
        folder: Path,
        *,
        temperature: float = 1.0,
        threshold: float = 0.0,
    ) -> "Classifier":
        """Writes the card, with figures of each split, the temperature of the
        probabilities and the threshold of "unknown", into its checkpoint."""
        card = dataclasses.replace(
            self.card,
            recorded=dict(figures),
            temperature=temperature,
            threshold=threshold,
        )
        card.write(folder)
        return dataclasses.replace(self, card=card)

    def save(self, folder: str | Path) -> Path:
        """Writes a checkpoint that `load_classifier` reads.

        Args:
          folder: a new or empty one.

        Returns:
          The folder.

        Raises:
          InputError: there are files in it, or it cannot be written.
        """
        folder = Path(folder)
        if (folder.is_dir() and any(folder.iterdir())) or folder.is_file():
            raise InputError(f"{folder}: is there already; give a new folder")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            checkpoints = CheckpointFolder(folder)
            checkpoints.save("best", 0, self.variables, {})
            checkpoints.wait()
            if self.splits:
                write_split_rows(folder / SPLITS, self.splits)
            self.card.write(folder)
        except BaseException:
            # Without its card it is no checkpoint: better none.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def export(
        self,
        folder: str | Path,
        *,
        images: Sequence[Source] | None = None,
        batch: "BatchSize" = 1,
        dtype: "Dtype" = "float32",
        web: bool = False,
        progress: Progress | None = None,
    ) -> "Exported":
        """Writes an ONNX model, its labels and a script that classifies without JAX.

        The model is written only if ONNX Runtime answers as this network does, in
        float32: every image gets the same class, and logits differ by at most 1e-4 of
        the largest (float16: 2e-2).

        Args:
          folder: a new or empty one.
          images: to check the model by; None: at most 256 of those that the network was
            not trained on, of its own data set.
          batch: images that the model takes at once; "dynamic": any number.
          dtype: what weights are stored in; float16 takes half the space, and all is
            computed in float32 as well.
          web: add a page that classifies a dropped image in the browser. It wants
            onnxruntime-web beside it: `npm install` in the folder puts it there.
          progress: told (images read for the check, images in all).

        Returns:
          The folder, and how well the model agrees.

        Raises:
          InputError: the model does not agree; images are missing; the extra `export`
            is not installed; there are files in the folder, or it cannot be written.
        """
        from jaxvision.export.folder import export_network

        checked = self._unseen_images() if images is None else images

        def decoded() -> Iterator[np.ndarray]:
            for number, image in enumerate(checked, start=1):
                yield self.decode(image)
                if progress is not None:
                    progress(number, len(checked))

        return export_network(
            Path(folder),
            self.model,
            self.variables,
            self.card.preprocessing,
            self.card.classes,
            decoded(),
            batch=batch,
            dtype=dtype,
            temperature=self.card.temperature,
            threshold=self.card.threshold,
            web=web,
            about={"network": self.card.network, "weights": self.card.weights},
        )

    def _unseen_images(self) -> list[Path]:
        """Files of the data set that the network was not trained on, evenly over all of
        them; of all, where there are none.

        Raises:
          InputError: they are not there.
        """
        root = Path(self.card.data["root"])
        rows = [row for row in self.splits if row.split != "train"] or self.splits
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_CHECKED), dtype=int)
        paths = [root / rows[index].path for index in chosen]
        if not paths or not all(path.is_file() for path in paths):
            raise InputError(
                "the images of the network's training are not there; give some to "
                "check the file by",
                setting="images",
            )
        return paths

    def _relabeled(self, dataset: DecodedDataset) -> DecodedDataset:
        """The data set with the card's classes; raises InputError for others."""
        if dataset.classes == self.card.classes:
            return dataset
        label_of = {name: label for label, name in enumerate(self.card.classes)}
        if unknown := [name for name in dataset.classes if name not in label_of]:
            raise InputError(
                f"{dataset.root}: the checkpoint does not know the class "
                f"{unknown[0]!r}; its classes are {_listed(self.card.classes)}"
            )
        labels = np.array([label_of[name] for name in dataset.classes], np.int32)
        return dataclasses.replace(
            dataset, classes=self.card.classes, labels=labels[dataset.labels]
        )

    def _chosen(
        self, dataset: DecodedDataset, split: str | None
    ) -> tuple[str, np.ndarray]:
        """The split that `evaluate` measures: its name and the images' indices."""
        everything = np.arange(len(dataset.images), dtype=np.int32)
        if split == "all":
            return split, everything
        found = self._splits_of(dataset)
        if split is None:
            split = next((name for name in ("test", "val") if name in found), "all")
            if split == "all":
                return split, everything
        indices = np.array([i for i, s in enumerate(found) if s == split], np.int32)
        if not len(indices):
            raise InputError(
                f"{dataset.root}: none of the images that training had as {split!r} is "
                "in it; give the folder that the network was trained on, or split 'all'"
            )
        return split, indices

    def _splits_of(self, dataset: DecodedDataset) -> list[str]:
        """The split of each image in training; "" for one that training did not have.

        Images are known by path and content; where none is, as in a folder that was
        arranged anew, by content alone.
        """
        rows = {row.path: row for row in self.splits}
        pairs = list(zip(dataset.images, dataset.digests, strict=True))
        known = [rows.get(path) for path, _ in pairs]
        found = [
            row.split if row and row.sha256 in ("", digest) else ""
            for row, (_, digest) in zip(known, pairs, strict=True)
        ]
        if any(found):
            return found
        split_of = {row.sha256: row.split for row in self.splits if row.sha256}
        return [split_of.pop(digest, "") for _, digest in pairs]

    def _averaging(self, versions: Versions) -> MeanNetwork:
        """The network that answers by several versions of an image."""
        return MeanNetwork.of(
            self.model, versions=versions.count, temperature=self.card.temperature
        )


def _hashes(plain: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """SHA-256 of a card's plain values, and of the splits beside it if there are any.

    Of the values, not of the file: the hash stands in that.
    """
    text = json.dumps(plain, sort_keys=True)
    found = {CARD: hashlib.sha256(text.encode()).hexdigest()}
    if (folder / SPLITS).is_file():
        found[SPLITS] = file_sha256(folder / SPLITS)
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[..., K]` float32 from logits `[..., K]`."""
    # In NumPy: jax would compile each of the five operations first.
    logits = np.asarray(logits, np.float32)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def load_classifier(checkpoint: str | Path) -> Classifier:
    """The best network of a training run, or one that `Classifier.save` wrote.

    Args:
      checkpoint: folder of a run, or of one seed in it; of several seeds the one with
        the highest validation accuracy is taken.

    Raises:
      InputError: no checkpoint there, or none that is whole.
    """
    folder = best_seed(Path(checkpoint))
    card = ModelCard.read(folder)
    entry = CheckpointFolder(folder).load("best")
    if entry is None:
        raise InputError(
            f"{folder}: holds no finished epoch that is whole; continue the run with "
            "`resume`"
        )
    model = card.create_model()
    variables = {"batch_stats": {}, **nest(entry.arrays)}
    path = folder / SPLITS
    splits = tuple(read_splits(path)) if path.is_file() else ()
    classifier = Classifier(model, variables, card, splits)
    _check_arrays(entry, classifier)
    return classifier


def _check_arrays(entry: Entry, classifier: Classifier) -> None:
    """Raises `InputError` for the arrays of another network than the card's."""
    if _all_serve(classifier):
        return
    preprocessing = classifier.card.preprocessing
    shape = (1, *preprocessing.size, preprocessing.channels)

    def variables() -> PyTree:
        image = jnp.zeros(shape, jnp.float32)
        return classifier.model.init(jax.random.key(0), image, train=False)

    try:
        wanted = jax.eval_shape(variables)
        unflatten_like(wanted, entry.arrays)
    except InputError as error:
        raise InputError(f"{entry.path}: {error}") from error
    # Whatever JAX and Flax raise on sizes that no network can have.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{entry.path}: of another network: {reason}") from error


def _all_serve(classifier: Classifier) -> bool:
    """Whether the network takes the arrays, and each plays a part in its answer.

    That is traced here, unless it is kept, and need not be traced again when the first
    image is there; tracing an initialization for the arrays' shapes takes longer.
    """
    card, variables = classifier.card, classifier.variables
    preprocessing = card.preprocessing
    shape = (1, *preprocessing.size, preprocessing.channels)
    answer = _probabilities(classifier.model, preprocessing)
    image = jax.ShapeDtypeStruct(shape, jnp.uint8)
    try:
        all_used = answer.uses_all(variables, np.float32(card.temperature), image)
    except Exception:  # whatever JAX and Flax raise; the other check finds words
        return False
    arrays = jax.tree.leaves(variables)
    return all_used and all(array.dtype == np.float32 for array in arrays)


def load_pretrained_classifier(
    name: str, *, weights: Path | None = None, download: bool = True
) -> Classifier:
    """A published network as it is, which answers with ImageNet's classes.

        load_pretrained_classifier("efficientnet_lite0").predict("a.jpg").top(5)

    Args:
      name: pretrained weights, a key of `jaxvision.pretrained.SOURCES`.
      weights: a file with them, in place of a download.
      download: False to use only what is on this machine.

    Raises:
      InputError: no such weights, they are out of reach, or have no classifier.
    """
    from jaxvision.pretrained import find_source, imagenet_classes, load

    source = find_source(name)
    if not source.num_classes:
        raise InputError(
            f"the weights {name} end with the layer {source.last_layer} and have no"
            f" classifier; take {source.whole}, or train one on them"
        )
    pretrained = load(name, weights=weights, download=download)
    card = ModelCard(
        network=source.model,
        options={},
        classes=tuple(imagenet_classes().values()),
        preprocessing=source.preprocessing,
        weights=str(weights or source.origin),
        data={"name": "ImageNet", "root": "", "is_demo": False},
        seed=0,
        batch_size=32,
    )
    return Classifier(card.create_model(), pretrained.variables, card)


def load_training_data(
    classifier: Classifier,
    root: Path | None = None,
    *,
    decode: Literal["first", "while_training"] = "first",
    progress: Progress | None = None,
) -> DecodedDataset:
    """The images that a network was trained and measured on, in its own splits.

    Args:
      root: of the images, where they have moved.
      decode: all of them here, or each when it is first needed; as `DataConfig.decode`.
      progress: told (images decoded, images in all).

    Raises:
      InputError: the network's training has not finished; the images are gone, have
        changed or are of other classes.
    """
    card = classifier.card
    if not card.recorded:
        raise InputError(
            "the training of this checkpoint has not finished; continue it with "
            "`resume`"
        )
    labels = card.data.get("labels")
    config = DataConfig(
        root=root or Path(card.data["root"]),
        labels=None if labels is None else Path(labels),
        decode=decode,
    )
    dataset = load_dataset(config)
    if corrections := _corrections(card):
        # As they were then: their file may have grown.
        dataset = dataset.with_corrections(corrections, Path(CARD))
    dataset = dataset.with_splits(classifier.splits)
    if dataset.classes != card.classes:
        raise InputError(
            f"{dataset.root}: its classes are not those of the checkpoint "
            f"({_listed(card.classes)})"
        )
    return dataset.decode(card.preprocessing, progress=progress)


def _corrections(card: ModelCard) -> tuple[Correction, ...]:
    plain = card.data.get("corrections", ())
    try:
        return from_plain(tuple[Correction, ...], plain)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{CARD}: damaged corrections ({error})") from error


def best_seed(checkpoint: Path) -> Path:
    """The folder with a card: itself, or the best of its `seed-*`.

    Raises:
      InputError: there is none.
    """

    def val_accuracy(folder: Path) -> float:
        return ModelCard.read(folder).recorded.get("val", {}).get("accuracy", -1.0)

    return max(seed_folders(checkpoint), key=val_accuracy)


def seed_folders(checkpoint: Path) -> list[Path]:
    """The folders with a card, by ascending seed: itself, or all of its `seed-*`.

    Raises:
      InputError: there is none.
    """
    seeds = [path.parent for path in checkpoint.glob(f"seed-*/{CARD}")]
    if not seeds or (checkpoint / CARD).is_file():
        ModelCard.read(checkpoint)  # explains what is wrong if there is none
        return [checkpoint]
    return sorted(seeds, key=lambda folder: ModelCard.read(folder).seed)


def is_checkpoint(folder: Path) -> bool:
    """Whether a card lies in a folder, or in one of its `seed-*`."""
    return (folder / CARD).is_file() or any(folder.glob(f"seed-*/{CARD}"))


def _listed(names: Sequence[str]) -> str:
    """All up to 12 names; of more the first ones, the last and how many there are."""
    if len(names) <= 12:
        return ", ".join(names)
    return f"{', '.join(names[:10])}, …, {names[-1]} ({len(names)} in all)"


@keep_programs
def _probabilities(model: Network, normalize: Normalize) -> KeptTrace:
    """(variables, temperature, images as they are read) -> probabilities `[B, K]`."""

    def probabilities(
        variables: dict[str, PyTree], temperature: jax.Array, images: jax.Array
    ) -> jax.Array:
        logits = jnp.asarray(model.apply(variables, normalize(images), train=False))
        return jax.nn.softmax(class_logits(logits) / temperature)

    return KeptTrace(probabilities, (model, normalize))
