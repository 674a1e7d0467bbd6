"""A trained network from its checkpoint: names for images, accuracy on a data set.

from jaxvision.inference import load_classifier

classifier = load_classifier("checkpoints/part2_finetune/20260101-120000")
for prediction in classifier.predict(["a.jpg", "b.jpg"]):
    print(prediction.label, prediction.probability)
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.dataset import Dataset
from jaxvision.data.decode import BadImage, decode_image
from jaxvision.data.loader import Batches
from jaxvision.errors import InputError
from jaxvision.files import write_json
from jaxvision.metrics import class_figures, class_logits, make_cross_entropy
from jaxvision.models import create_model
from jaxvision.plain import to_plain
from jaxvision.preprocessing import Preprocessing
from jaxvision.train.checkpoint import CheckpointFolder, nest
from jaxvision.train.loop import Row, evaluate
from jaxvision.train.parallel import Runner
from jaxvision.train.state import TrainState
from jaxvision.train.step import Normalize
from jaxvision.typing import PyTree

CARD = "card.json"


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """All that a checkpoint's arrays need to be used, as plain values."""

    model: str
    """Name in `jaxvision.models.MODELS`."""
    options: dict[str, Any]
    """Further arguments of `create_model`."""
    classes: tuple[str, ...]
    """Names in the order of the labels; of each logit, where there are as many."""
    preprocessing: Preprocessing
    weights: str
    """Where the backbone's first weights came from, in words."""
    data: dict[str, Any]
    """The data set's name, root and whether it was drawn by code."""
    seed: int
    batch_size: int
    """Of the evaluation whose figures are recorded."""
    recorded: dict[str, Row] = dataclasses.field(default_factory=dict)
    """What `TrainedClassifier.evaluate` gave of each split when training had ended."""
    binary: bool = False
    """Two classes are told apart by one logit, that of the second."""

    def write(self, folder: Path) -> None:
        """Writes `card.json` into a checkpoint folder.

        Raises:
          InputError: it cannot be written.
        """
        write_json(folder / CARD, to_plain(self))

    @classmethod
    def read(cls, folder: Path) -> "ModelCard":
        """Reads `card.json` of a checkpoint folder.

        Raises:
          InputError: there is none, or it is not one of ours.
        """
        path = folder / CARD
        if not path.is_file():
            raise InputError(
                f"--checkpoint {folder}: no checkpoint there (no {CARD}); give the "
                "folder that training printed, checkpoints/<experiment>/<time>"
            )
        try:
            values = json.loads(path.read_text("utf-8"))
            return cls(
                **{
                    **values,
                    "classes": tuple(values["classes"]),
                    "preprocessing": Preprocessing.from_dict(values["preprocessing"]),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged ({error}); train again") from error

    def create_model(self) -> nn.Module:
        """The network, without its parameters."""
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.options.items()
        }
        if "dtype" in options:
            options["dtype"] = jnp.dtype(options["dtype"])
        num_logits = 1 if self.binary else len(self.classes)
        return create_model(self.model, num_logits, **options)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one image."""

    label: str
    probability: float
    probabilities: np.ndarray
    """`[num_classes]` float32, in the order of the card's classes; they sum to 1."""


@dataclasses.dataclass(frozen=True)
class TrainedClassifier:
    """A network with its parameters and its card."""

    model: nn.Module
    variables: dict[str, PyTree]
    card: ModelCard

    def predict(
        self,
        images: Sequence[str | Path | np.ndarray],
        *,
        batch_size: int = 32,
    ) -> list[Prediction]:
        """Names images.

        Args:
          images: files, or uint8 arrays `[H, W, C]` in the card's geometry.
          batch_size: images at once.

        Raises:
          InputError: a file cannot be read as an image.
        """
        arrays = [self._image(image) for image in images]
        predictions: list[Prediction] = []
        for start in range(0, len(arrays), batch_size):
            chosen = arrays[start : start + batch_size]
            # Padded to one of few sizes, so that few programs are compiled.
            size = min(batch_size, 1 << (len(chosen) - 1).bit_length())
            padded = np.stack(chosen + [chosen[-1]] * (size - len(chosen)))
            logits = np.asarray(class_logits(self._logits(padded)))[: len(chosen)]
            predictions += [self._prediction(row) for row in softmax(logits)]
        return predictions

    def evaluate(self, dataset: Dataset, split: str) -> tuple[Row, np.ndarray]:
        """What the network does on a split, and the logits of its classes `[N, K]`.

        The figures are mean loss and accuracy, and `balanced_accuracy` and `macro_f1`
        of `metrics.class_figures`, to which every class counts the same. A network of
        one logit gives two as well, see `metrics.class_logits`. Images must be in
        the card's preprocessing. The same checkpoint on the same images and device
        gives the same figures to the last digit.
        """
        row, logits = self.evaluate_batches(
            dataset.batches(
                split,
                batch_size=self.card.batch_size,
                train=False,
                **Runner.all_devices().shard,
            )
        )
        labels = dataset.labels[dataset.splits[split]]
        return {**row, **class_means(labels, logits)}, logits

    def evaluate_batches(
        self, batches: Batches, *, normalize: Normalize | None = None
    ) -> tuple[Row, np.ndarray]:
        """Mean loss and accuracy, over one pass of batches of any images.

        Args:
          normalize: what makes the network's input of them; None: its preprocessing.
        """
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=self.variables["params"],
            frozen={},
            batch_stats=self.variables["batch_stats"],
            opt_state=(),
            key=jax.random.PRNGKey(0),
        )
        row, logits = evaluate(
            self.model,
            make_cross_entropy(),
            state,
            batches,
            normalize=normalize or self.card.preprocessing.normalize,
        )
        return row, np.asarray(class_logits(logits))

    def record(self, figures: dict[str, Row], folder: Path) -> "TrainedClassifier":
        """Writes the card, with figures that `evaluate` gave, into its checkpoint."""
        card = dataclasses.replace(self.card, recorded=figures)
        card.write(folder)
        return dataclasses.replace(self, card=card)

    def _image(self, image: str | Path | np.ndarray) -> np.ndarray:
        if isinstance(image, np.ndarray):
            return image
        try:
            return decode_image(Path(image), self.card.preprocessing)
        except BadImage as bad:
            raise InputError(f"{bad}; give another image") from bad

    def _logits(self, images: np.ndarray) -> jax.Array:
        return _apply(
            self.model, self.card.preprocessing, self.variables, jnp.asarray(images)
        )

    def _prediction(self, probabilities: np.ndarray) -> Prediction:
        best = int(np.argmax(probabilities))
        return Prediction(
            self.card.classes[best], float(probabilities[best]), probabilities
        )


def class_means(labels: np.ndarray, logits: np.ndarray) -> Row:
    """`balanced_accuracy` and `macro_f1` of labels `[N]` and logits `[N, K]`."""
    figures = class_figures(labels, logits.argmax(-1), logits.shape[-1])
    return {
        "balanced_accuracy": figures.balanced_accuracy,
        "macro_f1": figures.macro_f1,
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[..., K]` float32 from logits `[..., K]`."""
    return np.asarray(jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1))


def load_classifier(checkpoint: str | Path) -> TrainedClassifier:
    """The best network of a training run.

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
            f"--checkpoint {folder}: holds no finished epoch that is whole; continue "
            "the run with --resume"
        )
    variables = {"batch_stats": {}, **nest(entry.arrays)}
    return TrainedClassifier(card.create_model(), variables, card)


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
    if (checkpoint / CARD).is_file() or not seeds:
        ModelCard.read(checkpoint)  # says what is wrong if there is none
        return [checkpoint]
    return sorted(seeds, key=lambda folder: ModelCard.read(folder).seed)


@jax.jit(static_argnums=(0, 1))
def _apply(
    model: nn.Module,
    preprocessing: Preprocessing,
    variables: dict[str, PyTree],
    images: jax.Array,
) -> jax.Array:
    return model.apply(variables, preprocessing.normalize(images), train=False)
