"""A trained network explained on its own images, class by class: a run folder.

run = saliency(SaliencyConfig(Path("checkpoints/part2_finetune/TIME")))
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvision import plotting
from jaxvision.classifier import (
    CARD,
    Classifier,
    ModelCard,
    best_seed,
    load_classifier,
    load_training_data,
    seed_folders,
)
from jaxvision.config import check
from jaxvision.data.dataset import DecodedDataset
from jaxvision.errors import InputError
from jaxvision.explain.config import SaliencyConfig
from jaxvision.explain.images import color, overlay
from jaxvision.explain.methods import (
    METHODS,
    TrainedNetwork,
    allowed_methods,
    explain_batches,
    logit_difference,
)
from jaxvision.explain.report import (
    ABOUT_VIEWS,
    HEADINGS,
    about_methods,
    explanation_figure,
    explanation_row,
)
from jaxvision.explain.sanity import randomize_head, rank_correlation
from jaxvision.explain.weights import (
    Excitation,
    first_filters,
    most_weighted_units,
    top_activating_images,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_count, format_figure, format_mean_sd
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    print_run,
)

FACES = 8
"""Images in one figure."""

UNITS = 6
"""Classes whose most weighted unit is shown, each with `TOP_ACTIVATING` images."""

TOP_ACTIVATING = 8


def saliency(config: SaliencyConfig) -> Path:
    """Explains a trained network and writes figures, results and report.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: no finished checkpoint there, a class or an image that there is not,
        or an empty split; before the run folder is made.
    """
    began = time.monotonic()
    check(config)
    folder = config.checkpoint or newest_finished(
        config.checkpoints / config.trained_by
    )
    subject = _load(best_seed(folder), config.root, config.split)
    dataset = subject.dataset
    faces = _chosen_faces(subject, config.people)
    example = _example(subject, config.image)
    wrong = max(
        (face for face in subject.faces if not face.correct),
        key=lambda face: face.probabilities.max(),
        default=None,
    )
    checks = [
        _check(
            subject
            if seed == subject.folder
            else _load(seed, config.root, config.split),
            config.checked,
        )
        for seed in seed_folders(folder)
    ]
    figures = _measurements(checks, config.split)
    run = RunFolder.create("part2_saliency", root=config.runs)
    run.write_config(dataclasses.replace(config, checkpoint=folder))
    sections = [
        _faces_section(run, subject, faces),
        *_methods_sections(run, subject, example, wrong),
        _checks_section(checks, figures),
        *_filters_section(run, subject),
        _units_section(run, subject, faces),
    ]
    run.write_results(
        figures,
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
        headline=[figure.name for figure in figures[:2]],
    )
    markdown.write_report(
        run,
        title="Gradients as images",
        question="Which pixels of a face speak for its name?",
        sections=sections,
    )
    print_run(run, figures, is_demo=dataset.is_demo)
    return run.path


def newest_finished(runs: Path) -> Path:
    """The newest run in a folder whose seeds are all trained and measured.

    Raises:
      InputError: there is none.
    """
    for folder in sorted(runs.glob("*"), reverse=True):
        if any(folder.glob(f"seed-*/{CARD}")) and all(
            ModelCard.read(seed).recorded for seed in seed_folders(folder)
        ):
            return folder
    raise InputError(
        f"{runs}: no finished network there; run the experiment {runs.name}, or give "
        "another with `checkpoint`"
    )


@dataclasses.dataclass(frozen=True)
class _Face:
    """An image of the split.

    index: in the data set.
    label, predicted: its class and that which the network gives it.
    probabilities: `[K]`.
    """

    index: int
    label: int
    predicted: int
    probabilities: np.ndarray

    @property
    def correct(self) -> bool:
        return self.predicted == self.label


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A trained network with the images of a split, in their order."""

    folder: Path
    classifier: Classifier
    network: TrainedNetwork
    dataset: DecodedDataset
    split: str
    faces: tuple[_Face, ...]

    def images(self, faces: Sequence[_Face]) -> np.ndarray:
        return np.stack([self.dataset.image(face.index) for face in faces])

    def explain(
        self, method: str, faces: Sequence[_Face], labels: Sequence[int]
    ) -> np.ndarray:
        """Maps of the images, each of one class."""
        return _explain(self.network, method, self.images(faces), labels)

    def verdict(self, face: _Face) -> str:
        """`predicted berta, .830`."""
        name = plotting.shorten(self.dataset.classes[face.predicted], 14)
        return f"predicted {name}, {_probability(face, face.predicted)}"


@dataclasses.dataclass(frozen=True)
class _Checks:
    """What is measured of one seed's explanations, a value an image.

    correlations: method -> `[n]`, rank correlation with the maps of the same network
        with a random head.
    differences: `[n]`, of the logits of an image and a black one.
    misses: `[n]`, sum of the integrated gradients less that difference.
    accuracy: of the network.
    """

    seed: int
    correlations: Mapping[str, np.ndarray]
    differences: np.ndarray
    misses: np.ndarray
    accuracy: float


def _load(folder: Path, root: Path | None, split: str) -> _Subject:
    classifier = load_classifier(folder)
    with Progress("reading images", unit="images") as progress:
        dataset = load_training_data(classifier, root, progress=progress)
    indices = dataset.splits[split]
    if not len(indices):
        filled = [name for name, members in dataset.splits.items() if len(members)]
        raise InputError(
            f"it has no image; choose {' or '.join(filled)}",
            setting="split",
            value=split,
        )
    probabilities = classifier.evaluate(dataset, split).probabilities
    faces = tuple(
        _Face(int(index), int(dataset.labels[index]), int(row.argmax()), row)
        for index, row in zip(indices, probabilities, strict=True)
    )
    network = TrainedNetwork.of(classifier)
    return _Subject(folder, classifier, network, dataset, split, faces)


def _chosen_faces(subject: _Subject, people: Sequence[str]) -> list[_Face]:
    """One image of each class: the first that is correctly classified, else the first.

    Raises:
      InputError: no such class, or none of them has an image.
    """
    classes = subject.dataset.classes
    if unknown := [name for name in people if name not in classes]:
        raise InputError(
            f"no class is called {unknown[0]!r}; there are {', '.join(classes)}",
            setting="people",
        )
    correct_first = sorted(subject.faces, key=lambda face: not face.correct)
    faces = _one_a_class(correct_first)
    if people:
        first = {classes[face.label]: face for face in faces}
        faces = [first[name] for name in people if name in first]
    if not faces:
        raise InputError(
            f"none of {', '.join(people)} has an image in split {subject.split}",
            setting="people",
        )
    return faces


def _one_a_class(faces: Sequence[_Face]) -> list[_Face]:
    """The first of each class, by label."""
    first: dict[int, _Face] = {}
    for face in faces:
        first.setdefault(face.label, face)
    return [first[label] for label in sorted(first)]


def _example(subject: _Subject, image: str | None) -> _Face:
    """The image of that path; None: the first that is correctly classified."""
    dataset = subject.dataset
    faces = [face for face in subject.faces if face.correct] or list(subject.faces)
    if image is None:
        return faces[0]
    for face in faces:
        if dataset.images[face.index] == image:
            return face
    raise InputError(
        "no correctly classified image of that path; give one such as "
        f"{dataset.images[faces[0].index]}",
        setting="image",
        value=image,
    )


def _explain(
    network: TrainedNetwork,
    method: str,
    images: np.ndarray,
    labels: Sequence[int],
    **options: int,
) -> np.ndarray:
    with Progress(METHODS[method].name, unit="images") as progress:
        return explain_batches(
            network, method, images, labels, progress=progress, **options
        )


def _check(subject: _Subject, count: int) -> _Checks:
    """Measures one seed on images of its own split, spread over the classes."""
    network = subject.network
    faces = _one_a_class(subject.faces)
    faces = faces[:: max(len(faces) // count, 1)][:count]
    images, labels = subject.images(faces), [face.predicted for face in faces]
    random = randomize_head(network)
    differences = logit_difference(network, images, labels)
    correlations, misses = {}, np.zeros(0)
    for method in allowed_methods(network):
        maps = _explain(network, method, images, labels)
        # Few steps show the order of the pixels; nothing has to add up.
        steps = {"steps": 64} if method == "integrated_gradients" else {}
        others = _explain(random, method, images, labels, **steps)
        correlations[method] = rank_correlation(maps, others)
        if method == "integrated_gradients":
            misses = np.asarray(maps, np.float64).sum((1, 2, 3)) - differences
    seed = subject.classifier.card.seed
    accuracy = float(np.mean([face.correct for face in subject.faces]))
    return _Checks(seed, correlations, differences, misses, accuracy)


def _missed(misses: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """The share that is missed; NaN or infinite where a network says the same of every
    image."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(misses) / np.abs(differences)


def _missed_together(checks: _Checks) -> float:
    """Of all the images' differences together: an image whose own is next to nothing
    counts for as much."""
    misses, differences = np.abs(checks.misses), np.abs(checks.differences)
    return float(_missed(misses.sum(), differences.sum()))


def _measurements(checks: Sequence[_Checks], split: str) -> list[Measurement]:
    """Accuracy, what integrated gradients miss, and each method's rank correlation,
    the mean over the images: a value a seed."""
    seeds = [one.seed for one in checks]

    def measure(name: str, values: list[float], unit: str) -> Measurement:
        return Measurement(name, values, seeds, unit=unit, split=split)

    return [
        measure(f"{split}_accuracy", [one.accuracy for one in checks], "accuracy"),
        measure("completeness_gap", [_missed_together(one) for one in checks], "share"),
        *(
            measure(
                f"random_head/{method}",
                [float(np.nanmean(one.correlations[method])) for one in checks],
                "rank correlation",
            )
            for method in checks[0].correlations
        ),
    ]


def _faces_section(
    run: RunFolder, subject: _Subject, faces: Sequence[_Face]
) -> markdown.Section:
    """One image a class: guided backpropagation in every view, and Grad-CAM."""
    dataset, methods = subject.dataset, allowed_methods(subject.network)
    labels = [face.label for face in faces]
    main = "guided_backprop" if "guided_backprop" in methods else "gradient"
    title = f"{METHODS[main].name.capitalize()}, one face a person"
    rows = [
        explanation_row(
            f"{plotting.shorten(dataset.classes[face.label], 18)}\n"
            f"{subject.verdict(face)}",
            dataset.image(face.index),
            maps,
            correct=(face.correct,),
        )
        for face, maps in zip(faces, subject.explain(main, faces, labels), strict=True)
    ]
    headings = list(HEADINGS)
    if "grad_cam" in methods:
        headings.append("Grad-CAM")
        attention = subject.explain("grad_cam", faces, labels)
        tiles = overlay(attention, subject.images(faces))
        rows = [
            dataclasses.replace(row, images=[*row.images, tile])
            for row, tile in zip(rows, tiles, strict=True)
        ]
    text = (
        f"The first correctly classified {subject.split} image of each person (✗: "
        f"there is none), and what speaks for that person. {ABOUT_VIEWS}"
    )
    blocks: list[markdown.Block] = [markdown.Text(text)]
    for start in range(0, len(rows), FACES):
        name = f"people-{start // FACES + 1}"
        figure = plotting.image_grid(
            rows[start : start + FACES], headings, title=title, demo=dataset.is_demo
        )
        run.save_figure(name, figure)
        shown = ", ".join(dataset.classes[label] for label in labels[start:][:FACES])
        alt = f"Faces and what speaks for: {shown}."
        blocks.append(markdown.Image(f"{name}.png", alt))
    return markdown.Section("One face a person", blocks)


def _methods_sections(
    run: RunFolder, subject: _Subject, right: _Face, wrong: _Face | None
) -> list[markdown.Section]:
    """By every method: an image that is classified correctly; and one that is not,
    where there is one, for the predicted class and for its own."""
    dataset, network = subject.dataset, subject.network
    wanted = [("right", right, right.label)]
    if wrong is not None:
        wanted.append(("wrong-predicted", wrong, wrong.predicted))
        wanted.append(("wrong-true", wrong, wrong.label))
    faces = [face for _, face, _ in wanted]
    labels = [label for _, _, label in wanted]
    maps = {
        method: subject.explain(method, faces, labels)
        for method in allowed_methods(network)
    }
    images = {}
    for number, (name, face, label) in enumerate(wanted):
        path, person = dataset.images[face.index], dataset.classes[label]
        figure = explanation_figure(
            dataset.image(face.index),
            {method: values[number] for method, values in maps.items()},
            title=f"What speaks for {person} ({_probability(face, label)})",
            demo=dataset.is_demo,
        )
        run.save_figure(name, figure)
        images[name] = markdown.Image(
            f"{name}.png", f"What in {path} speaks for {person}."
        )
    first = dataset.images[right.index]
    sections = [
        markdown.Section(
            "A right prediction, by every method",
            [
                about_methods(list(maps), network),
                dataclasses.replace(
                    images["right"], caption=f"{first}: {subject.verdict(right)}."
                ),
            ],
        )
    ]
    if wrong is None:
        return sections
    text = markdown.Text(
        "The wrong prediction of the highest probability: "
        f"{markdown.escape(dataset.images[wrong.index])} is "
        f"{markdown.escape(subject.verdict(wrong))}. What speaks for that class, then "
        f"for the right one ({_probability(wrong, wrong.label)})."
    )
    heading = "A wrong prediction, by every method"
    blocks = [text, images["wrong-predicted"], images["wrong-true"]]
    return [*sections, markdown.Section(heading, blocks)]


def _probability(face: _Face, label: int) -> str:
    return format_figure(float(face.probabilities[label]))


def _checks_section(
    checks: Sequence[_Checks], figures: Sequence[Measurement]
) -> markdown.Section:
    rows = []
    for figure in figures:
        kind, _, method = figure.name.partition("/")
        if kind == "random_head":
            spread = format_mean_sd(figure.mean, figure.sd)
            rows.append([METHODS[method].name, spread])
    differences = np.concatenate([one.differences for one in checks])
    missed = _missed(np.concatenate([one.misses for one in checks]), differences)
    worst = int(missed.argmax())
    (gap,) = (figure for figure in figures if figure.name == "completeness_gap")
    return markdown.Section(
        "Do the images show the network's reasons?",
        [
            markdown.Table(["method", "correlation with a random head's map"], rows),
            markdown.Text(
                "Spearman's rank correlation of absolute values, mean ± sd over "
                f"{format_count(len(checks), 'seed')} of "
                f"{format_count(len(checks[0].differences), 'image')}. Near "
                "1, a map shows the image and not what the network learned "
                "(arXiv:1810.03292). Integrated gradients missed the difference of the "
                f"logits by {100 * gap.mean:.2g} % of all differences together, and by "
                f"{100 * missed[worst]:.2g} % at most, of a difference of "
                f"{differences[worst]:.2g}."
            ),
        ],
    )


def _filters_section(run: RunFolder, subject: _Subject) -> list[markdown.Section]:
    if subject.network.trace.first_convolution is None:
        return []
    filters = color(first_filters(subject.network))
    columns = min(16, len(filters))
    figure = plotting.image_grid(
        [
            plotting.ImageRow("", list(filters[start : start + columns]))
            for start in range(0, len(filters), columns)
        ],
        title=f"The {len(filters)} filters of the first convolution",
        width=0.6,
        demo=subject.dataset.is_demo,
    )
    run.save_figure("filters", figure)
    size = f"{filters.shape[1]}×{filters.shape[2]}"
    image = markdown.Image(
        "filters.png",
        f"{len(filters)} small images of {size} pixels: edges, bars and colors.",
        f"Each filter of {size} pixels with a scale of its own; gray is zero.",
    )
    return [markdown.Section("What the first layer looks for", [image])]


def _units_section(
    run: RunFolder, subject: _Subject, faces: Sequence[_Face]
) -> markdown.Section:
    """For some classes the most weighted unit, and the images that excite it most."""
    network, dataset = subject.network, subject.dataset
    outputs = network.trace.outputs
    *_, last = outputs
    # Where a mean over places is taken at the end, its channels can be located.
    layer = last
    maps = network.trace.cam_layer
    if maps is not None and outputs[maps][-1] == outputs[last][-1]:
        layer = maps
    labels = [face.label for face in faces]
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
    figure = plotting.image_grid(
        [
            _unit_row(dataset, label, excitation, outputs[layer])
            for label, excitation in zip(labels, found, strict=True)
        ],
        title=f"Images that excite units of {layer} most",
        width=1.3,
        demo=dataset.is_demo,
    )
    run.save_figure("units", figure)
    value = "value"
    if len(outputs[layer]) == 3:
        value = "mean over places, framed where it is highest"
    image = markdown.Image(
        "units.png",
        "For each class, the images of the data set that excite its most weighted "
        "unit most.",
        f"The channel of layer {layer} with the largest weight to the class's logit, "
        "and the images of all splits that excite it most; beneath each its class and "
        f"the unit's {value}.",
    )
    return markdown.Section("What excites the most weighted units", [image])


def _unit_row(
    dataset: DecodedDataset, label: int, excitation: Excitation, shape: tuple[int, ...]
) -> plotting.ImageRow:
    images, captions = [], []
    for number, index in enumerate(excitation.indices):
        image = dataset.image(int(index))
        if excitation.places is not None:
            image = _framed(image, excitation.places[number], shape[:2])
        images.append(image)
        name = plotting.shorten(dataset.classes[dataset.labels[index]], 14)
        captions.append(f"{name}\n{format_figure(float(excitation.values[number]))}")
    name = f"{plotting.shorten(dataset.classes[label], 18)}\nunit {excitation.unit}"
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
