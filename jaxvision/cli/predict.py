"""`jaxvision predict`: classes of images."""

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jaxvision.cli.flags import Images, OptionalCheckpoint, run
from jaxvision.cli.process import keep_compiled
from jaxvision.config import Bounds, check
from jaxvision.errors import InputError
from jaxvision.report.formats import format_line

if TYPE_CHECKING:
    from jaxvision.classifier import Classifier
    from jaxvision.data.decode import BadImage
    from jaxvision.prediction import Prediction


@dataclasses.dataclass(frozen=True)
class Config:
    """Prints a line an image: file, class, probability.

    Files that cannot be read are listed on stderr; the exit status is then 1.
    """

    checkpoint: OptionalCheckpoint = None
    """Folder of a training run, or of one of its seeds."""
    images: Images = ()
    """Image files, and folders, in which all images are taken."""
    pretrained: str | None = None
    """In place of CHECKPOINT: pretrained weights, which answer with ImageNet's classes,
    such as efficientnet_lite0; `jaxvision weights list` shows all."""
    top: Annotated[int, Bounds(1)] = 1
    """Classes an image, the most probable first."""
    tta: Literal["flip", "five-crops", "ten-crops"] | None = None
    """Test-time augmentation, the mean of the probabilities of several versions of an
    image: flip: it and its mirror image; five-crops: its center and its corners, cut
    from a larger one; ten-crops: these and their mirror images."""
    unknown: bool = False
    """Answer "unknown" where the highest probability is below what 95 % of the
    validation images reach."""
    csv: Path | None = None
    """A file to write in place of the lines: path, label, probability, and the further
    classes of --top; with --unknown the most probable class too. One that is there is
    replaced when all is done."""


def main(arguments: Sequence[str]) -> None:
    run(Config, predict, arguments, "jaxvision predict")


def predict(config: Config) -> None:
    from jaxvision.data.decode import quiet_pillow
    from jaxvision.prediction import BATCH_SIZE
    from jaxvision.report.progress import Progress
    from jaxvision.storage import check_replaceable, csv_text, write_atomically

    check(config)
    paths = _paths(config)
    if config.csv is not None:
        check_replaceable(config.csv)
    keep_compiled()
    classifier = _classifier(config)
    if config.top > len(classifier.classes):
        raise InputError(
            f"must be at most {len(classifier.classes)}, the number of classes",
            setting="top",
            value=config.top,
        )
    files = _files(paths)
    bad: list[BadImage] = []

    def leave_out(image: "BadImage") -> None:
        bad.append(image)
        print(f"left out: {format_line(str(image))}", file=sys.stderr)

    # Few images are there at once.
    watched = len(files) > BATCH_SIZE
    with (
        quiet_pillow(),
        Progress("predicting", total=len(files), enabled=watched) as progress,
    ):

        def answers() -> Iterator["Prediction"]:
            found = classifier.predict(
                map(Path, files),
                tta=config.tta,
                unknown=config.unknown,
                on_bad=leave_out,
            )
            for number, prediction in enumerate(found, 1):
                yield prediction
                progress(number + len(bad), len(files))

        if config.csv is None:
            demo = classifier.card.data["is_demo"]
            _print(answers(), config.top, " (trained on demo data)" if demo else "")
        else:
            rows = _csv_rows(answers(), config.top, unknown=config.unknown)
            write_atomically(
                config.csv,
                (csv_text([row]).encode("utf-8", "surrogateescape") for row in rows),
            )
            print(config.csv)
    if bad:
        print(f"left out: {len(bad)} of {len(files)} files", file=sys.stderr)
        raise SystemExit(1)


def _paths(config: Config) -> tuple[Path, ...]:
    """The files and folders, once it is clear what should answer."""
    given = (config.checkpoint,) if config.checkpoint is not None else ()
    if config.pretrained is None:
        if not given:
            raise InputError(
                "give the folder that training printed, or `pretrained`",
                setting="checkpoint",
            )
        paths = config.images
    else:
        from jaxvision.classifier import is_checkpoint

        if given and is_checkpoint(given[0]):
            raise InputError(
                f"answers in place of a checkpoint, and {given[0]} is one: leave one "
                "of them out",
                setting="pretrained",
                value=config.pretrained,
            )
        paths = (*given, *config.images)
    if not paths:
        raise InputError("give one or more files or folders", setting="images")
    return paths


def _classifier(config: Config) -> "Classifier":
    from jaxvision.classifier import load_classifier, load_pretrained_classifier

    if config.pretrained is not None:
        return load_pretrained_classifier(config.pretrained)
    assert config.checkpoint is not None
    return load_classifier(config.checkpoint)


def _files(paths: Iterable[Path]) -> list[str]:
    """The files among the paths, and the images in the folders; texts, which are a
    tenth of a `Path`. What else the folders hold is counted on stderr."""
    from jaxvision.data.folder import find_images

    files: list[str] = []
    ignored: Counter[str] = Counter()
    for path in paths:
        if not os.path.isdir(path):  # which asks, where Path.is_dir may raise
            files.append(str(path))
            continue
        inside, others = find_images(path)
        if not inside:
            raise InputError(f"{path}: no image in it; give a folder with images")
        files += [str(path / image) for image in inside]
        ignored.update(others)
    for kind, count in ignored.items():
        print(f"ignored: {kind} ({count})", file=sys.stderr)
    return files


def _print(answers: Iterable["Prediction"], top: int, note: str) -> None:
    for answer in answers:
        named = ", ".join(f"{label} {p:.3f}" for label, p in answer.top(top))
        if not answer.known:
            named = f"{answer.label} ({named})"
        print(format_line(f"{answer.path}: {named}{note}"))


def _csv_rows(
    answers: Iterable["Prediction"], top: int, *, unknown: bool
) -> Iterator[list[Any]]:
    """A header, and a row an image."""
    header = ["path", "label", "probability"]
    header += ["most_probable"] if unknown else []
    for place in range(2, top + 1):
        header += [f"label_{place}", f"probability_{place}"]
    yield header
    for answer in answers:
        row: list[Any] = [str(answer.path), answer.label, f"{answer.probability:.6f}"]
        best, *others = answer.top(top)
        row += [best[0]] if unknown else []
        for label, probability in others:
            row += [label, f"{probability:.6f}"]
        yield row
