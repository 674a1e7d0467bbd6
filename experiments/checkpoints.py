"""A finished network with the images that it was trained and measured on."""

from pathlib import Path

from jaxvision.classifier import Classifier, load_classifier
from jaxvision.data.dataset import DataConfig, Dataset, load_dataset
from jaxvision.errors import InputError, flags_renamed
from jaxvision.report.progress import Progress


def load_trained(folder: Path, root: Path | None = None) -> tuple[Classifier, Dataset]:
    """The network of one seed and its data set, in the splits of its training.

    Args:
      folder: of the seed, with its card.
      root: of the images, where they have moved; they are matched by name.

    Raises:
      InputError: no checkpoint there, its training has not finished, or the images
        are gone or of other classes.
    """
    classifier = load_classifier(folder)
    card = classifier.card
    if not card.recorded:
        raise InputError(
            f"--checkpoint {folder}: its training has not finished; continue it with "
            "--resume"
        )
    root = root or Path(card.data["root"])
    data = DataConfig(root=root, splits=folder / "splits.csv")
    # Those who load what was trained call the training's --data.root --root.
    with (
        flags_renamed("--data.root", "--root"),
        Progress("reading images", unit="images") as progress,
    ):
        dataset = load_dataset(data, card.preprocessing, progress=progress)
    if dataset.classes != card.classes:
        raise InputError(
            f"--root {root}: its classes are not those of the checkpoint "
            f"({', '.join(card.classes)})"
        )
    return classifier, dataset
