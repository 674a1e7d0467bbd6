"""Explanations of a network's answers: computed, drawn, and as a run folder."""

import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision import plotting
from jaxvision.classifier import Classifier
from jaxvision.data.decode import BadImage, decode_image
from jaxvision.errors import InputError
from jaxvision.explain import (
    METHODS,
    Network,
    completeness_gap,
    find_method,
)
from jaxvision.explain.images import VIEW_NAMES, all_views
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder
from jaxvision.storage import write_atomically

BATCH = 4
"""Images that are explained at once, at most."""

HEADINGS = ("the image", *VIEW_NAMES)
"""Of the columns: what stands in a row of `explanation_row`."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network says of an image, and the maps that explain one class of it.

    path: of the image.
    image: uint8 `[H, W, C]` as the network sees it.
    said: name that the network gives it, with `probability`.
    target: the class that is explained, with `target_probability`.
    maps: method -> `[H, W, C]` or `[H, W]` float32.
    """

    path: Path
    image: np.ndarray
    said: str
    probability: float
    target: str
    target_probability: float
    maps: Mapping[str, np.ndarray]

    def says(self) -> str:
        """`anna .93, explained: berta .04`, the second part where it differs."""
        text = f"{self.said} {format_figure(self.probability)}"
        if self.target == self.said:
            return f"{text}, explained"
        return (
            f"{text}, explained: {self.target} {format_figure(self.target_probability)}"
        )


def explain_images(
    classifier: Classifier,
    paths: Sequence[Path],
    *,
    method: str,
    target: str | None = None,
    layer: str | None = None,
) -> list[Answer]:
    """Explains images from files.

    Args:
      classifier: of a checkpoint.
      paths: files.
      method: key of `METHODS`, or "all" for every one that the network allows.
      target: the class to explain; None: the one that the network says.
      layer: that Grad-CAM looks at; None: that of the last convolution.

    Raises:
      InputError: a file that is no image, or a class, method or layer that there is
        not.
    """
    card = classifier.card
    if target is not None and target not in card.classes:
        raise InputError(
            f"--target {target}: the network does not know it; its classes are"
            f" {', '.join(card.classes)}"
        )
    network = Network.of(classifier)
    methods = allowed_methods(network) if method == "all" else [method]
    options = {name: {} for name in methods}
    if layer is not None:
        network.trace.check_map_layer(layer)
        for name in {"grad_cam", "guided_grad_cam"} & options.keys():
            options[name] = {"layer": layer}
    images = np.stack([_decode(path, classifier) for path in paths])
    predictions = classifier.predict(list(images))
    targets = [target or prediction.label for prediction in predictions]
    labels = [card.classes.index(name) for name in targets]
    maps = {
        name: explain_in_batches(
            network,
            name,
            images,
            labels,
            size=min(BATCH, len(images)),
            **options[name],
        )
        for name in methods
    }
    return [
        Answer(
            path,
            images[number],
            prediction.label,
            prediction.probability,
            targets[number],
            float(prediction.probabilities[labels[number]]),
            {name: values[number] for name, values in maps.items()},
        )
        for number, (path, prediction) in enumerate(
            zip(paths, predictions, strict=True)
        )
    ]


def allowed_methods(network: Network) -> list[str]:
    """The methods that the network has the layers for."""
    without: set[str] = set()
    if network.trace.last_convolution is None:
        without |= {"grad_cam", "guided_grad_cam"}
    if not network.trace.rectifiers:
        without |= {"guided_backprop", "guided_grad_cam"}
    return [name for name in METHODS if name not in without]


def explain_in_batches(
    network: Network,
    method: str,
    images: np.ndarray,
    labels: Sequence[int],
    *,
    size: int = BATCH,
    **options: str | int,
) -> np.ndarray:
    """Maps `[N, ...]` of any number of images, in batches of `size`; the last one is
    filled up."""
    explain = find_method(method).explain
    maps: list[np.ndarray] = []
    with Progress(METHODS[method].name, unit="images") as progress:
        for start in range(0, len(images), size):
            # Batches of one size: another would be compiled anew.
            chosen = np.arange(start, start + size) % len(images)
            explained = explain(
                network, images[chosen], np.asarray(labels)[chosen], **options
            )
            maps.append(np.asarray(explained)[: len(images) - start])
            progress(min(start + size, len(images)), len(images))
    return np.concatenate(maps)


def explanation_row(
    name: str, image: np.ndarray, maps: np.ndarray, *, correct: bool | None = None
) -> plotting.ImageRow:
    """The image and every view of one map of it, under `HEADINGS`."""
    views = all_views(maps[None], image[None])
    images = [image, *(view[0] for view in views.values())]
    return plotting.ImageRow(name, images, correct=correct)


def explanation_figure(
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    *,
    title: str,
    demo: bool,
) -> plotting.Figure:
    """A row a method, a column a view."""
    rows = [
        explanation_row(_two_lines(METHODS[name].name), image, values)
        for name, values in maps.items()
    ]
    return plotting.image_grid(rows, HEADINGS, title=title, demo=demo)


def about_methods(
    names: Sequence[str], network: Network, layer: str | None = None
) -> markdown.Table:
    """What each method's map shows.

    layer: that Grad-CAM looks at; None: that of the last convolution.
    """
    rows = []
    for name in names:
        method, about = METHODS[name], METHODS[name].about
        if name in ("grad_cam", "guided_grad_cam"):
            about += f" Layer: {layer or network.cam_layer}."
        rows.append([method.name, about])
    return markdown.Table(["method", "what its map shows"], rows)


ABOUT_VIEWS = (
    "Color: gray is zero, lighter above, darker below, channel by channel; methods "
    "with one value a pixel are red above zero and blue below. Gray: absolute values, "
    "channels added up. Positive and negative saliency: values above and below zero "
    "alone. Overlay: a glow over the image where the map is strong. Each map has a "
    "scale of its own, up to its 99.5th percentile."
)


def write_explanations(
    run: RunFolder,
    classifier: Classifier,
    explained: Sequence[Answer],
    *,
    layer: str | None,
    began: float,
) -> None:
    """Writes figures, every view and map, results and report.

    Args:
      run: folder, with its config.
      classifier: that was explained.
      explained: at least one answer, all by the same methods.
      layer: as in `explain_images`.
      began: `time.monotonic()` at the start.
    """
    card, network = classifier.card, Network.of(classifier)
    methods = list(explained[0].maps)
    sections = [
        markdown.Section(
            "What is shown",
            [about_methods(methods, network, layer), markdown.Text(ABOUT_VIEWS)],
        )
    ]
    figures = []
    for number, answer in enumerate(explained, start=1):
        name = f"{number}-{answer.path.stem}"
        figure = explanation_figure(
            answer.image,
            answer.maps,
            title=f"{answer.path.name}: {answer.target} "
            f"{format_figure(answer.target_probability)}",
            demo=card.data["is_demo"],
        )
        run.save_figure(name, figure)
        _write_views(run, name, answer)
        image = markdown.Image(
            f"{name}.png",
            f"{answer.path.name} and what in it speaks for {answer.target}, by "
            f"{', '.join(METHODS[method].name for method in methods)}.",
        )
        text = markdown.Text(
            f"The network says {markdown.escape(answer.says())}. Each view alone is "
            f"beside this report, `{name}-*.png`, and the maps as arrays are in "
            f"`{name}.npz`."
        )
        sections.append(markdown.Section(answer.path.name, [text, image]))
        figures += _figures(answer, number, network, card.classes, card.seed)
    run.write_results(
        figures,
        data=DataSummary(
            "images given",
            explained[0].path.parent,
            card.data["is_demo"],
            len(explained),
            card.classes,
        ),
        seconds=time.monotonic() - began,
    )
    markdown.write_report(
        run,
        title="What the network looks at",
        question="What in an image speaks for the name that a network gives it?",
        sections=sections,
    )


def _decode(path: Path, classifier: Classifier) -> np.ndarray:
    try:
        return decode_image(path, classifier.card.preprocessing)
    except BadImage as bad:
        raise InputError(f"{bad}; give another image") from bad


def _two_lines(name: str) -> str:
    """Long names of methods in two lines, the first in bold type."""
    return name if len(name) < 17 else name.replace(" ", "\n", 1)


def _write_views(run: RunFolder, name: str, answer: Answer) -> None:
    for method, maps in answer.maps.items():
        for view, images in all_views(maps[None], answer.image[None]).items():
            buffer = io.BytesIO()
            Image.fromarray(images[0]).save(buffer, "PNG")
            file = f"{name}-{method}-{view.replace(' ', '_')}.png"
            write_atomically(run.path / file, buffer.getvalue())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, image=answer.image, **answer.maps)
    write_atomically(run.path / f"{name}.npz", buffer.getvalue())


def _figures(
    answer: Answer, number: int, network: Network, classes: Sequence[str], seed: int
) -> list[Measurement]:
    """Probability of the explained class; how well integrated gradients add up."""
    name = f"{number}-{answer.path.stem}"
    measured = {"probability": answer.target_probability}
    if (maps := answer.maps.get("integrated_gradients")) is not None:
        label = classes.index(answer.target)
        gap = completeness_gap(network, answer.image[None], label, maps[None])
        measured["completeness gap"] = abs(float(gap[0]))
    return [
        Measurement(f"{name}: {what}", [value], [seed], unit="share", split="–")
        for what, value in measured.items()
    ]
