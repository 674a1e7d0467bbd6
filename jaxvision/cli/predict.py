"""`jaxvision predict`: classes of images."""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from jaxvision.cli.flags import Checkpoint, Images, run
from jaxvision.cli.process import keep_compiled
from jaxvision.config import Bounds, check
from jaxvision.errors import InputError

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Config:
    """Prints a line an image: file, class, probability.

    Files that cannot be read are listed on stderr; the exit status is then 1.
    """

    checkpoint: Checkpoint
    """Folder of a training run, or of one of its seeds."""
    images: Images
    """Image files, and folders, in which all images are taken."""
    top: Annotated[int, Bounds(1)] = 1
    """Classes an image, the most probable first."""


def main(arguments: Sequence[str]) -> None:
    run(Config, predict, arguments, "jaxvision predict")


def predict(config: Config) -> None:
    from jaxvision.classifier import load_classifier
    from jaxvision.data.decode import BadImage, decode_image

    check(config)
    if not config.images:
        raise InputError("give one or more files or folders", setting="images")
    keep_compiled()
    classifier = load_classifier(config.checkpoint)
    preprocessing = classifier.card.preprocessing
    demo = " (trained on demo data)" if classifier.card.data["is_demo"] else ""
    bad = False
    for paths in _chunks(_files(config.images), BATCH_SIZE):
        images = []
        for path in paths:
            try:
                images.append((path, decode_image(path, preprocessing)))
            except BadImage as error:
                print(f"left out: {error}", file=sys.stderr)
                bad = True
        pixels = [image for _, image in images]
        found = classifier.predict(pixels, batch_size=BATCH_SIZE)
        for (path, _), prediction in zip(images, found, strict=True):
            top = ", ".join(f"{k} {p:.3f}" for k, p in prediction.top(config.top))
            print(f"{path}: {top}{demo}")
    if bad:
        raise SystemExit(1)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among the paths, and the images in the folders."""
    from jaxvision.data.folder import find_images

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = [path / image for image in find_images(path)[0]]
        if not inside:
            raise InputError(f"{path}: no image in it; give a folder with images")
        yield from inside


def _chunks(paths: Iterator[Path], size: int) -> Iterator[list[Path]]:
    while chunk := list(itertools.islice(paths, size)):
        yield chunk
