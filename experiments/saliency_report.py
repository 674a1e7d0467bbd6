"""Part 2.5: a trained network explained, face by face, and its run folder."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.checkpoints import load_trained
from experiments.explain_report import (
    ABOUT_VIEWS,
    HEADINGS,
    about_methods,
    allowed_methods,
    explain_in_batches,
    explanation_figure,
    explanation_row,
)
from jaxvision import plotting
from jaxvision.classifier import Classifier, best_seed, seed_folders, softmax
from jaxvision.data.dataset import Dataset
from jaxvision.errors import InputError
from jaxvision.explain import METHODS, Network, logit_difference
from jaxvision.explain.images import color, mosaic, overlay
from jaxvision.explain.sanity import randomize_head, rank_correlation
from jaxvision.explain.weights import (
    Excitation,
    first_filters,
    most_weighted_units,
    top_activating_images,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure, format_mean_sd
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder

FACES = 8
"""People in one figure."""

UNITS = 6
"""Classes whose most weighted unit is shown, each with `TOP_ACTIVATING` images."""

TOP_ACTIVATING = 8


@dataclasses.dataclass(frozen=True)
class Face:
    """An image that is explained.

    index: in the data set.
    predicted: label that the network gives it.
    probabilities: `[K]`.
    """

    index: int
    predicted: int
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explained:
    """A trained network and what is explained of it.

    folder: of the training run.
    classifier, dataset: of its best seed.
    faces: one a person: the first that is correctly classified, else the first.
    right: a correctly classified image.
    wrong: the surest wrong prediction; None: there is none.
    checks: of every seed.
    """

    folder: Path
    classifier: Classifier
    dataset: Dataset
    split: str
    faces: tuple[Face, ...]
    right: Face
    wrong: Face | None
    checks: tuple["Checks", ...]

    @property
    def network(self) -> Network:
        return Network.of(self.classifier)

    def name(self, label: int) -> str:
        return self.dataset.classes[label]

    def label(self, face: Face) -> int:
        return int(self.dataset.labels[face.index])

    def is_right(self, face: Face) -> bool:
        return face.predicted == self.label(face)


@dataclasses.dataclass(frozen=True)
class Checks:
    """What is measured of one seed's explanations, a value an image.

    correlations: method -> `[n]`, rank correlation with the maps of the same network
        with a random head.
    differences: `[n]`, of the logits of an image and a black one.
    misses: `[n]`, sum of the integrated gradients less that difference.
    accuracy: of the network.
    """

    seed: int
    correlations: dict[str, np.ndarray]
    differences: np.ndarray
    misses: np.ndarray
    accuracy: float


def explain_run(
    folder: Path,
    *,
    root: Path | None,
    split: str,
    people: Sequence[str],
    image: str | None,
    checked: int,
) -> Explained:
    """Loads a training run and chooses what is explained of it.

    Raises:
      InputError: no finished checkpoint there, a class or an image that there is not,
        or an empty split.
    """
    if checked < 1:
        raise InputError(f"--checked {checked}: must be at least 1")
    classifier, dataset = load_trained(best_seed(folder), root)
    if unknown := [name for name in people if name not in dataset.classes]:
        raise InputError(
            f"--people: no class is called {unknown[0]!r}; there are"
            f" {', '.join(dataset.classes)}"
        )
    faces = _all_faces(classifier, dataset, split)
    shown = {dataset.classes[dataset.labels[face.index]] for face in faces}
    if people and not shown & set(people):
        raise InputError(
            f"--people: none of {', '.join(people)} has an image in --split {split}"
        )
    labels = dataset.labels
    right = [face for face in faces if face.predicted == labels[face.index]]
    wrong = [face for face in faces if face.predicted != labels[face.index]]
    return Explained(
        folder,
        classifier,
        dataset,
        split,
        _one_a_person([*right, *wrong], dataset, people or dataset.classes),
        _chosen(image, right or faces, dataset),
        max(wrong, key=lambda face: face.probabilities.max(), default=None),
        tuple(_check(seed, root, split, checked) for seed in seed_folders(folder)),
    )


def _all_faces(classifier: Classifier, dataset: Dataset, split: str) -> list[Face]:
    indices = dataset.splits[split]
    if not len(indices):
        filled = [name for name, members in dataset.splits.items() if len(members)]
        raise InputError(
            f"--split {split}: it has no image; choose {' or '.join(filled)}"
        )
    _, logits = classifier.evaluate(dataset, split)
    return [
        Face(int(index), int(row.argmax()), row)
        for index, row in zip(indices, softmax(logits), strict=True)
    ]


def _one_a_person(
    faces: Sequence[Face], dataset: Dataset, people: Sequence[str]
) -> tuple[Face, ...]:
    """The first of each person; people without an image are left out."""
    first: dict[str, Face] = {}
    for face in faces:
        first.setdefault(dataset.classes[dataset.labels[face.index]], face)
    return tuple(first[name] for name in people if name in first)


def _chosen(image: str | None, faces: Sequence[Face], dataset: Dataset) -> Face:
    if image is None:
        return faces[0]
    for face in faces:
        if dataset.images[face.index] == image:
            return face
    raise InputError(
        f"--image {image}: no correctly classified image of that path; give one such as"
        f" {dataset.images[faces[0].index]}"
    )


def _check(folder: Path, root: Path | None, split: str, count: int) -> Checks:
    """Measures one seed on images of its own split, spread over the classes."""
    classifier, dataset = load_trained(folder, root)
    network = Network.of(classifier)
    faces = _one_a_person(
        _all_faces(classifier, dataset, split), dataset, dataset.classes
    )
    faces = faces[:: max(len(faces) // count, 1)][:count]
    images = np.stack([dataset.image(face.index) for face in faces])
    labels = [face.predicted for face in faces]
    random = randomize_head(network)
    differences = logit_difference(network, images, labels)
    correlations, misses = {}, np.zeros(0)
    for method in allowed_methods(network):
        maps = explain_in_batches(network, method, images, labels)
        # Few steps show the order of the pixels; nothing has to add up.
        steps = {"steps": 64} if method == "integrated_gradients" else {}
        others = explain_in_batches(random, method, images, labels, **steps)
        correlations[method] = rank_correlation(maps, others)
        if method == "integrated_gradients":
            misses = np.asarray(maps, np.float64).sum((1, 2, 3)) - differences
    accuracy = classifier.card.recorded[split]["accuracy"]
    return Checks(classifier.card.seed, correlations, differences, misses, accuracy)


def _missed(misses: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """The share that is missed; NaN or infinite where a network says the same of every
    image."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(misses) / np.abs(differences)


def _missed_together(check: Checks) -> float:
    """Of all the images' differences together: an image whose own is next to nothing
    counts for as much."""
    misses, differences = np.abs(check.misses), np.abs(check.differences)
    return float(_missed(misses.sum(), differences.sum()))


def measurements(explained: Explained) -> list[Measurement]:
    """Accuracy, what integrated gradients miss of all images' differences together,
    and each method's rank correlation, the mean over the images: a value a seed."""
    checks, split = explained.checks, explained.split
    seeds = [check.seed for check in checks]

    def measured(name: str, values: list[float], unit: str) -> Measurement:
        return Measurement(name, values, seeds, unit=unit, split=split)

    return [
        measured(f"{split}_accuracy", [c.accuracy for c in checks], "accuracy"),
        measured("completeness_gap", [_missed_together(c) for c in checks], "share"),
        *(
            measured(
                f"random_head/{method}",
                [float(np.nanmean(c.correlations[method])) for c in checks],
                "rank correlation",
            )
            for method in checks[0].correlations
        ),
    ]


def write_saliency(
    run: RunFolder, explained: Explained, *, began: float
) -> list[Measurement]:
    """Writes figures, results and report; returns the figures measured.

    Args:
      run: folder, with its config.
      explained: the network and its images.
      began: `time.monotonic()` at the start.
    """
    figures, network = measurements(explained), explained.network
    sheets = _sheets(explained)
    sections = [
        _people_section(run, explained),
        _methods_section(run, explained, sheets["right"]),
        _wrong_section(run, explained, sheets),
        _checks_section(explained, figures),
        *_filters_section(run, explained),
        _units_section(run, explained),
        markdown.Section(
            "The network",
            [
                markdown.Text(
                    f"{type(network.model.backbone).__name__}, seed "
                    f"{explained.classifier.card.seed} of "
                    f"`{markdown.escape(str(explained.folder))}`, the best on "
                    "validation images. The same for an image of your own:"
                ),
                markdown.Code(
                    "python -m experiments.explain --checkpoint "
                    f"{shlex.quote(str(explained.folder))} --method all IMAGE.jpg"
                ),
            ],
        ),
    ]
    dataset = explained.dataset
    run.write_results(
        figures,
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
    )
    markdown.write_report(
        run,
        title="Part 2.5: gradients as images",
        question="Which pixels of a face speak for the name that the network gives it?",
        sections=sections,
    )
    return figures


def _people_section(run: RunFolder, explained: Explained) -> markdown.Section:
    """One face a person: guided backpropagation in every view, and Grad-CAM."""
    network, faces = explained.network, explained.faces
    images = np.stack([explained.dataset.image(face.index) for face in faces])
    labels = [explained.label(face) for face in faces]
    methods = allowed_methods(network)
    main = "guided_backprop" if "guided_backprop" in methods else "gradient"
    maps = explain_in_batches(network, main, images, labels)
    headings, extra = [*HEADINGS], [[] for _ in faces]
    if "grad_cam" in methods:
        attention = explain_in_batches(network, "grad_cam", images, labels)
        headings.append("Grad-CAM")
        extra = [[tile] for tile in overlay(attention, images)]
    rows = []
    for number, (face, image) in enumerate(zip(faces, images, strict=True)):
        row = explanation_row(
            _named(explained, face),
            image,
            maps[number],
            correct=explained.is_right(face),
        )
        tiles = [*row.images, *extra[number]]
        rows.append(dataclasses.replace(row, images=tiles))
    blocks: list[markdown.Block] = [
        markdown.Text(
            f"{METHODS[main].name.capitalize()} for each person's own class, on the "
            f"first correctly classified {explained.split} image of each (✗: there is "
            f"none, the first). {ABOUT_VIEWS}"
        )
    ]
    for start in range(0, len(rows), FACES):
        name = f"people-{start // FACES + 1}"
        figure = plotting.image_grid(
            rows[start : start + FACES],
            headings,
            title=f"{METHODS[main].name.capitalize()}, one face a person",
            demo=explained.dataset.is_demo,
        )
        run.save_figure(name, figure)
        shown = faces[start : start + FACES]
        people = ", ".join(explained.name(explained.label(face)) for face in shown)
        blocks.append(
            markdown.Image(f"{name}.png", f"Faces and what speaks for: {people}.")
        )
    return markdown.Section("One face a person", blocks)


@dataclasses.dataclass(frozen=True)
class Sheet:
    """One image and one class, explained by every method.

    name: of the figure's file, without its ending.
    maps: method -> `[H, W, C]` or `[H, W]`.
    """

    name: str
    face: Face
    label: int
    maps: dict[str, np.ndarray]


def _sheets(explained: Explained) -> dict[str, Sheet]:
    """By name: a right prediction; and a wrong one, where there is one, for the name
    that was given and for the right name."""
    wanted = [("right", explained.right, explained.label(explained.right))]
    if (wrong := explained.wrong) is not None:
        wanted.append(("wrong-predicted", wrong, wrong.predicted))
        wanted.append(("wrong-true", wrong, explained.label(wrong)))
    images = np.stack([explained.dataset.image(face.index) for _, face, _ in wanted])
    labels = [label for _, _, label in wanted]
    network = explained.network
    maps = {
        method: explain_in_batches(network, method, images, labels)
        for method in allowed_methods(network)
    }
    return {
        name: Sheet(name, face, label, {m: values[i] for m, values in maps.items()})
        for i, (name, face, label) in enumerate(wanted)
    }


def _methods_section(
    run: RunFolder, explained: Explained, sheet: Sheet
) -> markdown.Section:
    _save_sheet(run, explained, sheet)
    path = explained.dataset.images[sheet.face.index]
    return markdown.Section(
        "A right prediction, by every method",
        [
            about_methods(list(sheet.maps), explained.network),
            markdown.Image(
                "right.png",
                f"{path} and what speaks for its name, by every method.",
                f"{path}: {_named(explained, sheet.face, ', ')}.",
            ),
        ],
    )


def _wrong_section(
    run: RunFolder, explained: Explained, sheets: dict[str, Sheet]
) -> markdown.Section:
    face = explained.wrong
    if face is None:
        text = f"Every {explained.split} image was classified correctly."
        return markdown.Section("A wrong prediction", [markdown.Text(text)])
    path, label = explained.dataset.images[face.index], explained.label(face)
    said, true = explained.name(face.predicted), explained.name(label)
    _save_sheet(run, explained, sheets["wrong-predicted"])
    _save_sheet(run, explained, sheets["wrong-true"])
    surely = format_figure(float(face.probabilities[face.predicted]))
    truly = format_figure(float(face.probabilities[label]))
    return markdown.Section(
        "A wrong prediction, by every method",
        [
            markdown.Text(
                f"The surest wrong prediction: {markdown.escape(path)} is "
                f"{markdown.escape(true)} (given {truly}), and the network says "
                f"{markdown.escape(said)} ({surely}). First, what speaks for the "
                "name it gives; then, what speaks for the right one."
            ),
            markdown.Image("wrong-predicted.png", f"What in {path} speaks for {said}."),
            markdown.Image("wrong-true.png", f"What in {path} speaks for {true}."),
        ],
    )


def _save_sheet(run: RunFolder, explained: Explained, sheet: Sheet) -> None:
    probability = format_figure(float(sheet.face.probabilities[sheet.label]))
    figure = explanation_figure(
        explained.dataset.image(sheet.face.index),
        sheet.maps,
        title=f"What speaks for {explained.name(sheet.label)} ({probability})",
        demo=explained.dataset.is_demo,
    )
    run.save_figure(sheet.name, figure)


def _named(explained: Explained, face: Face, separator: str = "\n") -> str:
    """`anna`, then what the network says of her image."""
    probability = format_figure(float(face.probabilities[face.predicted]))
    name = plotting.shorten(explained.name(explained.label(face)), 18)
    said = "named so"
    if not explained.is_right(face):
        said = f"named {plotting.shorten(explained.name(face.predicted), 14)}"
    return f"{name}{separator}{said}, {probability}"


def _checks_section(
    explained: Explained, figures: Sequence[Measurement]
) -> markdown.Section:
    by_name = {figure.name: figure for figure in figures}
    rows = []
    for name, figure in by_name.items():
        if name.startswith("random_head/"):
            method = METHODS[name.partition("/")[2]].name
            rows.append([method, format_mean_sd(figure.mean, figure.sd)])
    gap = by_name["completeness_gap"]
    differences = np.concatenate([check.differences for check in explained.checks])
    misses = np.concatenate([check.misses for check in explained.checks])
    missed = _missed(misses, differences)
    worst = int(missed.argmax())
    count = len(explained.checks[0].differences)
    return markdown.Section(
        "Do the images show the network's reasons?",
        [
            markdown.Text(
                "A map that stays the same when the head of the network is drawn anew "
                "shows the image and not what was learned (Adebayo et al., "
                "arXiv:1810.03292). Spearman's rank correlation of the absolute "
                f"values, mean over {count} images a seed and ± sd over "
                f"{len(explained.checks)} seed(s); 1: the same map, 0: another one."
            ),
            markdown.Table(["method", "correlation with a random head's map"], rows),
            markdown.Text(
                "Integrated gradients are to add up to the difference between the "
                "logits of the image and of a black one. They missed it by "
                f"{100 * gap.mean:.2g} % of all the images' differences, and by "
                f"{100 * missed[worst]:.2g} % at most, of a difference of "
                f"{differences[worst]:.2g}."
            ),
        ],
    )


def _filters_section(run: RunFolder, explained: Explained) -> list[markdown.Section]:
    network = explained.network
    if network.trace.first_convolution is None:
        return []
    filters = color(first_filters(network))
    columns = min(16, len(filters))
    enlarge = max(56 // filters.shape[1], 1)
    sheet = mosaic(filters, columns, enlarge=enlarge, gap=max(enlarge // 3, 3))
    row = plotting.ImageRow("", [sheet])
    figure = plotting.image_grid(
        [row],
        title=f"The {len(filters)} filters of the first convolution",
        width=0.55 * columns,
        demo=explained.dataset.is_demo,
    )
    run.save_figure("filters", figure)
    size = f"{filters.shape[1]}×{filters.shape[2]}"
    image = markdown.Image(
        "filters.png",
        f"{len(filters)} small images of {size} pixels: edges, bars and colors.",
        f"Each filter of {size} pixels with a scale of its own; gray is zero.",
    )
    return [markdown.Section("What the first layer looks for", [image])]


def _units_section(run: RunFolder, explained: Explained) -> markdown.Section:
    """For some classes the most weighted unit, and the images that excite it most."""
    network, dataset = explained.network, explained.dataset
    outputs = network.trace.outputs
    *_, last = outputs
    # Where a mean over places is taken at the end, its channels can be located.
    layer = last
    maps = network.trace.cam_layer
    if maps is not None and outputs[maps][-1] == outputs[last][-1]:
        layer = maps
    labels = list(dict.fromkeys(explained.label(face) for face in explained.faces))
    labels = labels[:: max(len(labels) // UNITS, 1)][:UNITS]
    units = [int(most_weighted_units(network, label, 1)[0]) for label in labels]
    with Progress("top activating images", unit="images") as progress:
        found = top_activating_images(
            network,
            dataset,
            np.arange(len(dataset.images), dtype=np.int32),
            layer=layer,
            units=units,
            count=TOP_ACTIVATING,
            progress=progress,
        )
    rows = [
        _unit_row(explained, label, excitation, outputs[layer])
        for label, excitation in zip(labels, found, strict=True)
    ]
    figure = plotting.image_grid(
        rows,
        title=f"Images that excite units of {layer} most",
        width=1.3,
        demo=dataset.is_demo,
    )
    run.save_figure("units", figure)
    value = "value"
    if len(outputs[layer]) == 3:
        value = "mean over places; the frame is where it is highest"
    image = markdown.Image(
        "units.png",
        "For each class, the images of the data set that excite its most weighted "
        "unit most, each with its own class beneath.",
        "Of all images of the data set, training ones too; beneath each its class "
        f"and the unit's {value}.",
    )
    text = markdown.Text(
        f"A unit is a channel of layer `{layer}`. Shown for a class is the unit whose "
        "outgoing weight to the class's logit is the largest."
    )
    return markdown.Section("What excites the most weighted units", [text, image])


def _unit_row(
    explained: Explained,
    label: int,
    excitation: Excitation,
    shape: tuple[int, ...],
) -> plotting.ImageRow:
    images, captions = [], []
    for number, index in enumerate(excitation.indices):
        image = explained.dataset.image(int(index))
        if excitation.places is not None:
            image = _framed(image, excitation.places[number], shape[:2])
        images.append(image)
        name = explained.name(int(explained.dataset.labels[index]))
        value = format_figure(float(excitation.values[number]))
        captions.append(f"{plotting.shorten(name, 14)}\n{value}")
    name = f"{plotting.shorten(explained.name(label), 18)}\nunit {excitation.unit}"
    return plotting.ImageRow(name, images, captions)


def _framed(image: np.ndarray, place: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The image with a white frame around one cell of a grid laid over it."""
    framed = image.copy()
    height, width = image.shape[:2]
    top, bottom = (round(height * (place[0] + step) / grid[0]) for step in (0, 1))
    left, right = (round(width * (place[1] + step) / grid[1]) for step in (0, 1))
    line = max(min(height, width) // 100, 1)
    inside = framed[top + line : bottom - line, left + line : right - line].copy()
    framed[top:bottom, left:right] = 255
    framed[top + line : bottom - line, left + line : right - line] = inside
    return framed
