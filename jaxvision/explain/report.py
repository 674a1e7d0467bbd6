"""What in images speaks for the class that a trained network predicts: a run folder.

run = explain(ExplainConfig(Path("checkpoints/part2_finetune/TIME"), (Path("a.jpg"),)))
"""

import dataclasses
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxvision import plotting
from jaxvision.classifier import (
    Classifier,
    ModelCard,
    Prediction,
    load_classifier,
)
from jaxvision.config import check
from jaxvision.errors import InputError
from jaxvision.explain.config import ExplainConfig
from jaxvision.explain.images import VIEW_NAMES, all_views
from jaxvision.explain.methods import (
    BATCH,
    METHODS,
    TrainedNetwork,
    allowed_methods,
    completeness_gap,
    explain_batches,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    print_run,
)
from jaxvision.storage import write_atomically

HEADINGS = ("the image", *VIEW_NAMES)
"""Of the columns: what stands in a row of `explanation_row`."""

ABOUT_VIEWS = (
    "Color: gray is zero, lighter above, darker below; methods with one value a pixel "
    "are red above zero and blue below. Overlay: a glow where the map is strong. Each "
    "map has a scale of its own."
)


@dataclasses.dataclass(frozen=True)
class Explained:
    """What a network predicts for an image, and the maps that explain one class of it.

    name: of its files, without their endings.
    image: uint8 `[H, W, C]` as the network sees it.
    target: the class that is explained.
    maps: method -> `[H, W, C]` or `[H, W]` float32.
    """

    path: Path
    name: str
    image: np.ndarray
    prediction: Prediction
    target: str
    maps: Mapping[str, np.ndarray]

    @property
    def probability(self) -> float:
        """Of the class that is explained."""
        return self.prediction.probabilities[self.target]

    def __str__(self) -> str:
        """`anna .930`; or `anna .930; explained: berta .040`, where they differ."""
        label, probability = self.prediction.label, self.prediction.probability
        predicted = f"{label} {format_figure(probability)}"
        if label == self.target:
            return predicted
        return (
            f"{predicted}; explained: {self.target} {format_figure(self.probability)}"
        )


def explain(config: ExplainConfig) -> Path:
    """Explains images and writes figures, every view and map, results and report.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: no checkpoint there, a file that is no image, or a class, method or
        layer that there is not; before the run folder is made.
    """
    began = time.monotonic()
    check(config)
    if not config.images:
        raise InputError("give at least one file", setting="images")
    classifier = load_classifier(config.checkpoint)
    network = TrainedNetwork.of(classifier)
    found = explain_files(
        classifier,
        network,
        config.images,
        method=config.method,
        target=config.target,
        layer=config.layer,
    )
    run = RunFolder.create("explain", root=config.runs)
    run.write_config(config)
    card = classifier.card
    sections = [_image_section(run, one, card.data["is_demo"]) for one in found]
    about = about_methods(list(found[0].maps), network, config.layer)
    sections.append(
        markdown.Section("What is shown", [about, markdown.Text(ABOUT_VIEWS)])
    )
    run.write_results(
        [figure for one in found for figure in _measurements(one, network, card)],
        data=DataSummary(
            "images given",
            config.images[0].parent,
            card.data["is_demo"],
            len(found),
            card.classes,
        ),
        seconds=time.monotonic() - began,
    )
    markdown.write_report(
        run,
        title="What the network looks at",
        question="Which parts of an image support the class that a network predicts?",
        sections=sections,
    )
    demo = " (trained on demo data)" if card.data["is_demo"] else ""
    for one in found:
        print(f"{one.path}: {one}{demo}")
    print_run(run)
    return run.path


def explain_files(
    classifier: Classifier,
    network: TrainedNetwork,
    paths: Sequence[Path],
    *,
    method: str,
    target: str | None = None,
    layer: str | None = None,
) -> list[Explained]:
    """Explains images from files.

    Args:
      classifier, network: the same.
      paths: at least one file.
      method: name in `METHODS`, or "all" for every one that the network allows.
      target: the class to explain; None: the predicted one.
      layer: that Grad-CAM looks at; None: that of the last convolution.

    Raises:
      InputError: a file that is no image, or a class, method or layer that there is
        not.
    """
    classes = classifier.classes
    if target is not None and target not in classes:
        raise InputError(
            f"the network does not know it; its classes are {', '.join(classes)}",
            setting="target",
            value=target,
        )
    methods = allowed_methods(network) if method == "all" else [method]
    options: dict[str, dict[str, str]] = {name: {} for name in methods}
    if layer is not None:
        network.trace.check_map_layer(layer)
        for name in {"grad_cam", "guided_grad_cam"} & options.keys():
            options[name] = {"layer": layer}
    images = np.stack([classifier.decode(path) for path in paths])
    predictions = list(classifier.predict(list(images)))
    targets = [target or prediction.label for prediction in predictions]
    labels = [classes.index(name) for name in targets]
    size = min(BATCH, len(images))
    maps: dict[str, np.ndarray] = {}
    for name in methods:
        with Progress(METHODS[name].name, unit="images") as progress:
            maps[name] = explain_batches(
                network, name, images, labels, batch_size=size, progress=progress,
                **options[name],
            )  # fmt: skip
    return [
        Explained(
            path,
            f"{number + 1}-{_short(path.stem)}",
            images[number],
            predictions[number],
            targets[number],
            {name: values[number] for name, values in maps.items()},
        )
        for number, path in enumerate(paths)
    ]


def explanation_row(
    name: str, image: np.ndarray, maps: np.ndarray, *, correct: Sequence[bool] = ()
) -> plotting.ImageRow:
    """The image and every view of one map of it, under `HEADINGS`.

    correct: whether the image was classified correctly; (): not known.
    """
    views = all_views(maps[None], image[None])
    images = [image, *(view[0] for view in views.values())]
    return plotting.ImageRow(name, images, correct=correct)


def explanation_figure(
    image: np.ndarray, maps: Mapping[str, np.ndarray], *, title: str, demo: bool
) -> Figure:
    """A row a method, a column a view."""
    rows = [
        explanation_row(_two_lines(METHODS[name].name), image, values)
        for name, values in maps.items()
    ]
    return plotting.image_grid(rows, HEADINGS, title=title, demo=demo)


def about_methods(
    names: Sequence[str], network: TrainedNetwork, layer: str | None = None
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


def _two_lines(name: str) -> str:
    """Long names of methods in two lines, the first in bold type."""
    return name if len(name) < 17 else name.replace(" ", "\n", 1)


def _image_section(run: RunFolder, one: Explained, demo: bool) -> markdown.Section:
    """Saves the figure, every view by itself, and the maps as arrays."""
    figure = explanation_figure(
        one.image,
        one.maps,
        title=f"{one.path.name}: {one.target} {format_figure(one.probability)}",
        demo=demo,
    )
    run.save_figure(one.name, figure)
    for method, maps in one.maps.items():
        for view, images in all_views(maps[None], one.image[None]).items():
            file = f"{one.name}-{method}-{view.replace(' ', '_')}.png"
            with io.BytesIO() as buffer:
                Image.fromarray(images[0]).save(buffer, "PNG")
                write_atomically(run.path / file, buffer.getvalue())
    with io.BytesIO() as buffer:
        arrays: dict[str, np.ndarray] = {"image": one.image, **one.maps}
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomically(run.path / f"{one.name}.npz", buffer.getvalue())
    text = markdown.Text(
        f"The network predicts {markdown.escape(str(one))}. Each view is in "
        f"`{one.name}-*.png`, the maps are in `{one.name}.npz`."
    )
    image = markdown.Image(
        f"{one.name}.png", f"What in {one.path.name} speaks for {one.target}."
    )
    return markdown.Section(one.path.name, [text, image])


def _measurements(
    one: Explained, network: TrainedNetwork, card: ModelCard
) -> list[Measurement]:
    """Probability of the explained class; how well integrated gradients add up."""
    measured = {"probability": one.probability}
    if (maps := one.maps.get("integrated_gradients")) is not None:
        label = card.classes.index(one.target)
        gap = completeness_gap(network, one.image[None], label, maps[None])
        measured["completeness gap"] = abs(float(gap[0]))
    return [
        Measurement(f"{one.name}: {what}", [value], [card.seed], "share", "–")
        for what, value in measured.items()
    ]


def _short(name: str) -> str:
    """The first 100 bytes of a name: beside it stand a number and an ending, and a
    system allows 255."""
    return os.fsencode(name)[:100].decode("utf-8", "ignore")
