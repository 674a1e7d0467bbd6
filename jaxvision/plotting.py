"""Arrays in, matplotlib `Figure` out.

Figures are built on the `Figure` object itself: no pyplot, no global state, no
window, so that they can be drawn in any thread and on a machine without a screen.
Style is given to each artist rather than to `rcParams`, which all threads share.
Colors are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people
with color-blindness tell apart. `demo=True` stamps a figure as made from demo data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, zip_longest
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from jaxvision.metrics import RocCurve

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GRAY, LIGHT = "#222222", "#777777", "#DDDDDD"
DPI = 140
LINE = 1.35 / 72
"""Inches from one line to the next, for each point of the letters' size."""
DEMO_STAMP = "demo data (drawn by code)"

SPLITS = {  # prefix of the column: (name in the legend, color, dashes)
    "train": ("training", BLUE, "-"),
    "val": ("validation", VERMILION, "-"),
    "test": ("test", GREEN, "--"),
}
METRICS = {  # end of the column: label of the axis
    "loss": "Loss (nats per image)",
    "accuracy": "Accuracy (share of images)",
}

Row = Mapping[str, float]
"""One epoch of a history: `epoch`, `train_loss`, `val_accuracy` and so on."""


def learning_curves(
    histories: Sequence[Sequence[Row]], *, title: str, demo: bool = False
) -> Figure:
    """Loss and accuracy over the epochs of one recipe. Of several seeds: the mean, a
    band of ± one standard deviation (n − 1 in the denominator) and, faintly, each seed.

    Seeds may stop at different epochs: at each, those that are still running count.

    histories: one a seed, of rows with `epoch` and any of
        `{train,val,test}_{loss,accuracy}`; what is missing or not finite is left out.
    """
    figure, panels = _curve_panels(_of_seeds(title, len(histories)), demo)
    for metric, axes in panels.items():
        for prefix, (name, color, dashes) in SPLITS.items():
            epochs, values = _series(histories, f"{prefix}_{metric}")
            if not len(epochs):
                continue
            if len(histories) > 1:
                axes.plot(epochs, values.T, color=color, linewidth=0.6, alpha=0.35)
            marker = "o" if len(epochs) <= 30 and len(histories) == 1 else None
            _mean_curve(axes, epochs, values, name, (color, dashes, marker))
        _finish_panel(axes, metric)
    return figure


def curves_by_recipe(
    histories: Mapping[str, Sequence[Sequence[Row]]],
    metric: str,
    *,
    title: str,
    demo: bool = False,
) -> Figure:
    """Training and validation "loss" or "accuracy" over the epochs, a line a recipe:
    the mean of its seeds, and a band of ± one standard deviation (n − 1 in the
    denominator) where there are several. A seed that has stopped keeps its last value,
    as its network does: a mean of those still running would rise whenever a bad one
    stops.

    histories: legend's label -> one history a seed; at most eight labels.
    """
    title = _of_seeds(title, max(map(len, histories.values())))
    figure = Figure(figsize=(10.6, 4.2), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04, w_pad=0.08, h_pad=0.06)
    panels = figure.subplots(1, 2, sharey=True)
    drawn = []
    for axes, split in zip(panels, ("train", "val"), strict=True):
        for (label, several), style in zip(histories.items(), _LINES, strict=False):
            epochs, values = _series(several, f"{split}_{metric}")
            values = _hold_last(values)
            drawn.extend(values.ravel())
            if len(epochs):
                marker = "o" if len(epochs) <= 12 else None
                _mean_curve(axes, epochs, values, label, (*style, marker))
        axes.set_title(f"{SPLITS[split][0]} images", fontsize=10, color=INK)
    # Once all is drawn: the panels have one scale, which finishing one of them fixes.
    for axes in panels:
        _finish_panel(axes, metric)
        if (legend := axes.get_legend()) is not None:
            legend.remove()
    if metric == "loss" and _is_wide(drawn):
        _set_log_scale(panels[0])
    panels[1].set_ylabel("")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside right center",
        fontsize=9, edgecolor=LIGHT, labelcolor=INK,
    )  # fmt: skip
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


def confusion_matrix(
    matrix: np.ndarray,
    classes: Sequence[str],
    *,
    title: str = "Confusion matrix",
    normalize: bool = True,
    demo: bool = False,
) -> Figure:
    """True classes down, predicted classes across; every count above zero is written.

    matrix: `[K, K]` counts; row i holds the images whose true class is i.
    normalize: the shade is the share of the row, so that rare classes are seen as
        well as common ones; otherwise it is the count.
    """
    matrix = np.asarray(matrix)
    count = len(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"{count} classes and a matrix of shape {matrix.shape}")
    totals = matrix.sum(axis=1, keepdims=True)
    shades = matrix / np.maximum(totals, 1) if normalize else matrix
    top = 1.0 if normalize else max(matrix.max(), 1)

    # Cells shrink as classes grow in number, but stay large enough for 3 digits.
    cell = float(np.clip(5.0 / count, 0.27, 0.8))
    names = [shorten(name, 22) for name in classes]
    slanted = count <= 12
    label = 0.075 * max(map(len, names)) + 0.4
    width = count * cell + label + 1.3
    height = count * cell + label * (0.7 if slanted else 1) + (1.1 if demo else 0.8)
    figure = Figure(
        figsize=(max(width, 4.6), max(height, 3.4)),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots()
    # Zero is white, and the palest blue is dark enough for a single mistake to show.
    colors = LinearSegmentedColormap.from_list(
        "blues", colormaps["Blues"](np.linspace(0.14, 1, 256))
    )
    image = axes.imshow(
        np.ma.masked_equal(shades, 0), cmap=colors, vmin=0, vmax=top, aspect="equal"
    )

    size = 9 if slanted else 7.5
    rows = [
        f"{name} ({total})" for name, total in zip(names, totals[:, 0], strict=True)
    ]
    across: dict[str, Any] = {"rotation": 90, "ha": "center"}
    if slanted:
        across = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(count), names, fontsize=size, parse_math=False, **across)
    axes.set_yticks(range(count), rows, fontsize=size, parse_math=False)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        axes.text(
            j,
            i,
            f"{matrix[i, j]}",
            ha="center",
            va="center",
            fontsize=float(np.clip(cell * 16, 5.5, 10)),
            color="white" if shades[i, j] > 0.55 * top else INK,
        )
    # A light line between the cells, on minor ticks that show no mark.
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=LIGHT, linewidth=0.5)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true (number of images)", color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=GRAY)
    bar.set_label(
        "share of the true class" if normalize else "images", fontsize=9, color=GRAY
    )
    right, everything = int(np.trace(matrix)), int(matrix.sum())
    share = right / max(everything, 1)
    _title(figure, f"{title}: {right} of {everything} right ({share:.3f})")
    if demo:
        _stamp_below(figure)
    return figure


def roc_curves(
    curves: Mapping[str, RocCurve],
    *,
    positive: str,
    title: str,
    demo: bool = False,
) -> Figure:
    """ROC curves of two classes, and both kinds of error enlarged beside them.

    curves: by the legend's label; eight are told apart by color and dashes.
    positive: name of the class that is found or missed.
    """
    figure = Figure(figsize=(8.8, 4.4), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, w_pad=0.08, h_pad=0.06)
    whole, corner = figure.subplots(1, 2)
    # Errors from 1 in 1,000 on: on a linear axis good networks all look perfect.
    least = 1e-3
    for (label, curve), (color, dashes) in zip(
        curves.items(), cycle(_LINES), strict=False
    ):
        false, true = curve.false_positive_rate, curve.true_positive_rate
        label = f"{label}: AUC {curve.auc:.4f}"
        style = {"color": color, "linestyle": dashes, "linewidth": 1.7}
        whole.plot(false, true, label=shorten(label, 30), **style)
        corner.plot(np.maximum(false, least), np.maximum(1 - true, least), **style)
    whole.plot([0, 1], [0, 1], ":", color=GRAY, linewidth=1.2, label="guessing")
    whole.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
    whole.set_xlabel("false positive rate", color=INK)
    whole.set_ylabel(
        f"true positive rate ({shorten(positive, 24)} found)",
        color=INK,
        parse_math=False,
    )
    whole.legend(fontsize=8, loc="lower right", edgecolor=LIGHT, labelcolor=INK)
    corner.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1))
    corner.set_xlabel("false positive rate", color=INK)
    corner.set_ylabel("false negative rate", color=INK)
    corner.set_title("both errors, .001 and less at the edge", fontsize=9, color=INK)
    for axes in (whole, corner):
        _tidy(axes)
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


def gallery(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    correct: Sequence[bool],
    *,
    columns: int = 6,
    title: str,
    demo: bool = False,
) -> Figure:
    """Images with their predictions; right ones framed in green with ✓, wrong ones
    in vermilion, dashed, with ✗.

    images: uint8 `[h, w]` or `[h, w, C]` with C 1 or 3; sizes may differ.
    captions: one or two lines each, see `prediction_caption`.
    """
    tiles = [
        _verdict_tile(image, caption, right)
        for image, caption, right in zip(images, captions, correct, strict=True)
    ]
    return _tile_figure(tiles, columns=columns, title=title, width=1.75, demo=demo)


def prediction_caption(true: str | None, predicted: str, probability: float) -> str:
    """Two lines for `gallery`: what was predicted, how surely, and what it is.

    true: None where nobody knows; the caption then has one line.
    """
    first = f"{shorten(predicted, 17)}  {probability:.2f}"
    return first if true is None else f"{first}\ntrue: {shorten(true, 19)}"


def contact_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[str],
    *,
    columns: int = 10,
    title: str = "",
    demo: bool = False,
) -> Figure:
    """Images side by side, each with its label beneath.

    images: uint8 `[h, w]` or `[h, w, C]` with C 1 or 3; sizes may differ.
    """
    tiles = [
        _Tile(image, shorten(label, 15), LIGHT, "-")
        for image, label in zip(images, labels, strict=True)
    ]
    return _tile_figure(tiles, columns=columns, title=title, width=1.2, demo=demo)


@dataclass(frozen=True)
class TransformPanel:
    """Accuracy under one change of the images.

    name: of the change.
    unit: what its strengths count.
    strengths: `[n]`; one where an image is either changed or not.
    accuracies: legend's label -> `[S, n]`, a row a seed.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    accuracies: Mapping[str, np.ndarray]


def transform_curves(
    panels: Sequence[TransformPanel],
    baselines: Mapping[str, np.ndarray],
    *,
    chance: float,
    title: str,
    demo: bool = False,
) -> Figure:
    """A small curve for each change of the images; mean over the seeds and a band of
    ± one standard deviation (n − 1 in the denominator) where there are several.

    panels: those of a single strength share the last panel, as points.
    baselines: legend's label -> `[S]`, accuracy on unchanged images, of at most
        three networks: the curves begin with it, at strength 0.
    chance: accuracy of guessing, drawn as a dotted line.
    """
    curves = [panel for panel in panels if len(panel.strengths) > 1]
    switches = [panel for panel in panels if len(panel.strengths) == 1]
    count = len(curves) + bool(switches)
    # Fewest rows of at most five; then no wider than those rows need.
    rows = -(-count // 5)
    columns = -(-count // rows)
    figure = Figure(
        # Never so narrow that title and legend meet.
        figsize=(max(2.45 * columns + 0.4, 10.5), 2.3 * rows + (1.3 if demo else 1.0)),
        dpi=DPI,
        layout="constrained",
    )
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.05)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, axes in zip(curves, grid.flat, strict=False):
        strengths = np.array([0.0, *panel.strengths])
        for (label, values), style in zip(
            panel.accuracies.items(), _MODELS, strict=False
        ):
            values = np.column_stack([baselines[label], values])
            _mean_curve(axes, strengths, values, label, style)
        _finish_small_panel(axes, panel.name, chance)
        axes.set_xlabel(
            f"strength ({panel.unit})", color=INK, fontsize=8, parse_math=False
        )
    if switches:
        axes = grid.flat[len(curves)]
        _switches(axes, switches, baselines)
        _finish_small_panel(axes, "on or off", chance)
        axes.tick_params(axis="x", labelsize=6.5)
    for axes in grid[:, 0]:
        axes.set_ylabel("Accuracy (share)", color=INK, fontsize=8.5)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(
        handles, [shorten(label, 24) for label in labels], loc="outside upper right",
        ncols=4, fontsize=9, edgecolor=LIGHT, labelcolor=INK,
    )  # fmt: skip
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


@dataclass(frozen=True)
class TransformRow:
    """One image under one change.

    name: of the change.
    unit: what its strengths count.
    labels: one an image, its strength.
    images: uint8 `[h, w]` or `[h, w, C]` with C 1 or 3.
    correct: whether each was classified correctly; None: not known.
    """

    name: str
    unit: str
    labels: Sequence[str]
    images: Sequence[np.ndarray]
    correct: Sequence[bool] | None = None


def transform_sheet(
    rows: Sequence[TransformRow], *, title: str, demo: bool = False
) -> Figure:
    """One image under many changes: a strip for each, from weak to strong, in two
    columns; correctly classified ones framed in green with ✓, others in vermilion,
    dashed, with ✗."""
    width, gap, size = 1.0, 0.12, 8.0
    heading = 0.42 if title else 0.1
    name_height = 0.24
    height = name_height + width + size * LINE + gap
    longest = max(len(row.images) for row in rows)
    columns = min(2, len(rows))
    per_column = -(-len(rows) // columns)
    strip = longest * width + 3 * gap
    figure_width = max(columns * strip, 0.085 * len(title) + 0.3)
    figure_height = heading + per_column * height + (0.32 if demo else 0.05)
    figure = Figure(figsize=(figure_width, figure_height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for index, row in enumerate(rows):
        column, place = divmod(index, per_column)
        left, top = gap + column * strip, heading + place * height
        axes.text(
            left, top + 0.16, _printable(row.name), fontsize=9.5, fontweight="bold",
            color=INK, parse_math=False,
        )  # fmt: skip
        axes.text(
            left + longest * width - gap, top + 0.16, _printable(row.unit),
            fontsize=size, color=GRAY, ha="right", parse_math=False,
        )  # fmt: skip
        for number, (image, label) in enumerate(
            zip(row.images, row.labels, strict=True)
        ):
            right = None if row.correct is None else row.correct[number]
            _draw_tile(
                axes,
                _verdict_tile(image, label, right),
                left + number * width + (width - gap) / 2,
                top + name_height + width - gap,
                room=width - gap,
                size=size,
            )
    _finish_sheet(axes, figure_width, figure_height, title=title, demo=demo)
    return figure


@dataclass(frozen=True)
class ImageRow:
    """A row of `image_grid`.

    name: to the left of the row; further lines of it are gray.
    images: uint8 `[h, w]` or `[h, w, C]` with C 1 or 3; None: nothing there.
    captions: one beneath each image, of one line or more; none: no captions.
    correct: frames the first image by whether it was classified correctly; None: not
        known.
    """

    name: str
    images: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()
    correct: bool | None = None


def image_grid(
    rows: Sequence[ImageRow],
    columns: Sequence[str] = (),
    *,
    title: str,
    width: float = 1.6,
    demo: bool = False,
) -> Figure:
    """Rows of images, the columns with headings.

    columns: a heading each; none: no headings.
    width: of an image with the gap beside it, in inches.
    """
    gap, size = 0.12, 8.0
    names = [row.name.split("\n") for row in rows]
    letters = max(len(line) for lines in names for line in lines)
    margin = 0.078 * letters + 2 * gap if letters else gap
    heading = (0.42 if title else 0.1) + (0.26 if columns else 0)
    floors = [gap + (width - gap) * _tallest(row.images) for row in rows]
    heights = [
        floor
        + max((c.count("\n") + 1 for c in row.captions), default=0) * size * LINE
        + (gap / 2 if row.captions else 0)
        for row, floor in zip(rows, floors, strict=True)
    ]
    count = max(len(row.images) for row in rows)
    figure_width = max(margin + count * width + gap, 0.085 * len(title) + 0.3, 2.6)
    figure_height = heading + sum(heights) + (0.32 if demo else 0.05)
    figure = Figure(figsize=(figure_width, figure_height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    middles = [margin + (number + 0.5) * width for number in range(count)]
    for middle, column in zip(middles, columns, strict=False):
        axes.text(
            middle, heading - 0.07, _printable(column), fontsize=9, color=INK,
            ha="center", parse_math=False,
        )  # fmt: skip
    top = heading
    for row, lines, height, below in zip(rows, names, heights, floors, strict=True):
        floor = top + below - gap
        first = (top + floor) / 2 - (len(lines) - 1) * 9 * LINE / 2
        for number, line in enumerate(lines):
            axes.text(
                gap, first + number * 9 * LINE, _printable(line), fontsize=9,
                fontweight="normal" if number else "bold", va="center",
                color=GRAY if number else INK, parse_math=False,
            )  # fmt: skip
        captions = row.captions or [""] * len(row.images)
        for number, (image, caption) in enumerate(
            zip(row.images, captions, strict=True)
        ):
            if image is None:
                continue
            tile = _Tile(image, caption, LIGHT, "-")
            if number == 0 and row.correct is not None:
                verdict = _verdict_tile(image, caption, row.correct)
                tile = verdict if caption else replace(verdict, caption="")
            _draw_tile(axes, tile, middles[number], floor, room=width - gap, size=size)
        top += height
    _finish_sheet(axes, figure_width, figure_height, title=title, demo=demo)
    return figure


def _tallest(images: Sequence[np.ndarray | None]) -> float:
    """Greatest height, as a share of the longer side: 1 for square images."""
    shapes = [image.shape[:2] for image in images if image is not None]
    return max(height / max(height, width) for height, width in shapes)


@dataclass(frozen=True)
class FieldPanel:
    """One layer of `receptive_field_maps`.

    gradient: `[H, W]`, of one node by each pixel, nowhere below zero.
    box: top, left, bottom and right pixel that the node is said to see.
    """

    title: str
    gradient: np.ndarray
    box: tuple[int, int, int, int]


def receptive_field_maps(panels: Sequence[FieldPanel], *, title: str) -> Figure:
    """For each layer, what one node's gradient reaches of the image, and a frame
    around what it is said to see. Pixels without any gradient stay white."""
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(max(2.35 * columns + 1.1, 4.6), 2.45 * rows + 0.9),
        dpi=DPI,
        layout="constrained",
    )
    _title(figure, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    # The darkest shade stands for everything fainter: no pixel that counts is white.
    shades = LogNorm(vmin=1e-4, vmax=1, clip=True)
    colors = LinearSegmentedColormap.from_list(
        "blues", colormaps["Blues"](np.linspace(0.2, 1, 256))
    )
    for panel, axes in zip_longest(panels, grid.flat):
        if panel is None:
            axes.set_axis_off()
            continue
        gradient = np.asarray(panel.gradient, float)
        largest = gradient.max() or 1.0
        image = axes.imshow(
            np.ma.masked_equal(gradient / largest, 0),
            cmap=colors,
            norm=shades,
            interpolation="nearest",
        )
        top, left, bottom, right = panel.box
        frame = Rectangle(
            (left - 0.5, top - 0.5),
            right - left + 1,
            bottom - top + 1,
            fill=False,
            edgecolor=VERMILION,
            linewidth=1.6,
            clip_on=False,
            zorder=5,
            label="by recursion",
        )
        axes.add_patch(frame)
        axes.set_title(_printable(panel.title), fontsize=9, color=INK, parse_math=False)
        axes.tick_params(color=GRAY, labelcolor=INK, labelsize=8)
        axes.spines[:].set_color(LIGHT)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    figure.supxlabel("column (pixels)", fontsize=9, color=INK)
    figure.supylabel("row (pixels)", fontsize=9, color=INK)
    bar = figure.colorbar(image, ax=grid, aspect=18 * rows, extend="min")
    bar.set_label("gradient by a pixel / the largest", fontsize=9, color=INK)
    figure.legend(
        handles=[frame], loc="outside lower right", fontsize=9, edgecolor=LIGHT,
        labelcolor=INK,
    )  # fmt: skip
    return figure


@dataclass(frozen=True)
class TriedSetting:
    """One trial of a tuning.

    number: in the order in which trials were begun.
    values: of the settings that were tuned.
    score: what it reached.
    whole: False where it was given up before its end, so that its score is of the
        epochs until then.
    """

    number: int
    values: Mapping[str, float]
    score: float
    whole: bool = True


@dataclass(frozen=True)
class SettingAxis:
    """A setting that was tuned, and its range.

    log: whether its axis is logarithmic.
    """

    name: str
    low: float
    high: float
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values lie in the range, from 0 to 1."""
        scale = np.log if self.log else np.asarray
        low, high, values = (scale(x) for x in (self.low, self.high, values))
        return (values - low) / (high - low)


def tuning_history(
    trials: Sequence[TriedSetting],
    *,
    score: str,
    minimize: bool,
    title: str,
    demo: bool = False,
) -> Figure:
    """Every trial's score in the order of the trials, and the best so far.

    score: its name and unit, for the axis; the axis is logarithmic where a score to be
        minimized spans more than a factor of ten.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    figure = Figure(figsize=(8.2, 4.0), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for whole, style in _TRIALS.items():
        shown = [trial for trial in trials if trial.whole == whole]
        if shown:
            axes.plot(
                [trial.number for trial in shown], [trial.score for trial in shown],
                linestyle="none", **style,
            )  # fmt: skip
    whole = [trial for trial in trials if trial.whole]
    if whole:
        better = np.minimum if minimize else np.maximum
        axes.step(
            [trial.number for trial in whole],
            better.accumulate([trial.score for trial in whole]),
            where="post", color=VERMILION, linewidth=1.6, label="best so far",
        )  # fmt: skip
    if minimize and _wide(trials):
        _set_log_scale(axes)
    axes.set_xlabel("trial", color=INK)
    axes.set_ylabel(score, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=9, edgecolor=LIGHT, labelcolor=INK)
    _tidy(axes)
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


def tuning_surface(
    trials: Sequence[TriedSetting],
    x: SettingAxis,
    y: SettingAxis,
    *,
    score: str,
    minimize: bool,
    title: str,
    demo: bool = False,
) -> Figure:
    """The trials in the plane of two settings, on a surface through their scores.

    The surface interpolates between trials (linear radial basis functions in the unit
    square of the two ranges, slightly smoothed) and is drawn from four of them on; its
    pale end is the better one. Trials that were given up count with the score that
    they had reached.
    """
    from scipy.interpolate import RBFInterpolator

    figure = Figure(figsize=(7.4, 5.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    scores = np.array([trial.score for trial in trials], float)
    log = minimize and _wide(trials)
    if len(trials) >= 4 and scores.min() < scores.max():
        places = np.column_stack(
            [
                axis.place(np.array([trial.values[axis.name] for trial in trials]))
                for axis in (x, y)
            ]
        )
        height = np.log10(scores) if log else scores
        surface = RBFInterpolator(places, height, kernel="linear", smoothing=0.1)
        side = np.linspace(0, 1, 121)
        grid = np.stack(np.meshgrid(side, side), axis=-1)
        heights = surface(grid.reshape(-1, 2)).reshape(side.size, side.size)
        # Between the scores that were met: what lies beyond is the method's invention.
        heights = np.clip(heights, height.min(), height.max())
        drawn = axes.contourf(
            _values(x, side), _values(y, side), 10.0**heights if log else heights,
            levels=_levels(scores, log), cmap="viridis_r" if minimize else "viridis",
            norm=LogNorm() if log else None,
        )  # fmt: skip
        bar = figure.colorbar(drawn, ax=axes, format="%.3g")
        bar.set_label(score, fontsize=9, color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, labelcolor=INK)
        bar.ax.minorticks_off()
    for kind, style in _TRIALS.items():
        shown = [trial for trial in trials if trial.whole == kind]
        if shown:
            axes.plot(
                [trial.values[x.name] for trial in shown],
                [trial.values[y.name] for trial in shown],
                linestyle="none", clip_on=False, **style,
            )  # fmt: skip
    if whole := [trial for trial in trials if trial.whole]:
        choose = min if minimize else max
        best = choose(whole, key=lambda trial: trial.score)
        axes.plot(
            best.values[x.name], best.values[y.name], "*", color=ORANGE, clip_on=False,
            markeredgecolor=INK, markersize=17, linestyle="none", zorder=6,
            label=f"best: {best.values[x.name]:.3g}, {best.values[y.name]:.3g}",
        )  # fmt: skip
    for axis, name in ((x, "x"), (y, "y")):
        axes.set(**{f"{name}scale": "log" if axis.log else "linear"})
        axes.set(**{f"{name}lim": (axis.low, axis.high), f"{name}label": axis.name})
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=3,
        fontsize=9, edgecolor=LIGHT, labelcolor=INK,
    )  # fmt: skip
    axes.tick_params(color=GRAY, labelcolor=INK, labelsize=9)
    axes.spines[:].set_color(GRAY)
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


def importance_bars(
    importances: Mapping[str, float], *, title: str, demo: bool = False
) -> Figure:
    """Shares, from the largest to the smallest, as bars with their figures.

    importances: name -> share, 0 to 1.
    """
    names = sorted(importances, key=lambda name: importances[name])
    shares = [importances[name] for name in names]
    figure = Figure(
        figsize=(7.0, 1.3 + 0.42 * len(names) + 0.35 * demo),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots()
    bars = axes.barh([shorten(name, 30) for name in names], shares, color=BLUE)
    axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=4, color=INK)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("share of the variance of the score", color=INK)
    _tidy(axes)
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure


def shorten(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, `…` in place of its middle:
    the ends of names (surnames, numbers) tell them apart as often as the beginnings."""
    text = _printable(" ".join(text.split()))
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def _printable(line: str) -> str:
    """Spaces for what has no glyph: tabs, or bytes of a file name that are no text."""
    return "".join(c if c.isprintable() else " " for c in line)


_MODELS = ((BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"))
"""Color, dashes and marker of each of several networks in one panel."""


_LINES = [
    (color, dashes)
    for dashes in ("-", "--")
    for color in (BLUE, VERMILION, GREEN, ORANGE)
]


_TRIALS: dict[bool, dict[str, Any]] = {
    True: {
        "marker": "o", "color": "white", "markeredgecolor": INK, "markersize": 6,
        "label": "trial", "zorder": 4,
    },
    False: {
        "marker": "X", "color": LIGHT, "markeredgecolor": INK, "markersize": 7,
        "label": "given up", "zorder": 3,
    },
}  # fmt: skip
"""How trials are drawn: whole ones, and those that were given up."""


def _wide(trials: Sequence[TriedSetting]) -> bool:
    """Whether scores, all above zero, span more than a factor of ten."""
    scores = [trial.score for trial in trials]
    return bool(scores) and min(scores) > 0 and max(scores) > 10 * min(scores)


def _values(axis: SettingAxis, places: np.ndarray) -> np.ndarray:
    """The inverse of `SettingAxis.place`."""
    if axis.log:
        return axis.low * (axis.high / axis.low) ** places
    return axis.low + (axis.high - axis.low) * places


def _levels(scores: np.ndarray, log: bool) -> np.ndarray:
    space = np.geomspace if log else np.linspace
    levels = space(scores.min(), scores.max(), 13)
    # Rounding must not leave a hole at either end.
    margin = 1e-9 * abs(levels[[0, -1]])
    levels[[0, -1]] += margin * (-1, 1)
    return levels


def _mean_curve(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    label: str,
    style: tuple[str, str, str | None],
) -> None:
    """`[S, n]` values at `[n]` places: their mean, and a band where S is above 1."""
    color, dashes, marker = style
    mean, sd = _mean_and_sd(values)
    if len(values) > 1:
        axes.fill_between(
            places, mean - sd, mean + sd, color=color, alpha=0.18, linewidth=0
        )
    axes.plot(
        places, mean, dashes, color=color, label=label, linewidth=1.6, marker=marker,
        markersize=3.5,
    )  # fmt: skip


def _switches(
    axes: Axes, panels: Sequence[TransformPanel], baselines: Mapping[str, np.ndarray]
) -> None:
    """Changes without a strength, side by side, beside the unchanged images."""
    names = ["unchanged", *(panel.name for panel in panels)]
    for number, ((label, baseline), style) in enumerate(
        zip(baselines.items(), _MODELS, strict=False)
    ):
        values = np.column_stack([baseline, *(p.accuracies[label] for p in panels)])
        mean, sd = _mean_and_sd(values)
        color, _, marker = style
        axes.errorbar(
            # Beside each other, so that two networks of one accuracy are both seen.
            np.arange(len(names)) + 0.18 * (number - (len(baselines) - 1) / 2),
            mean,
            yerr=sd if len(values) > 1 else None,
            fmt=marker,
            color=color,
            label=label,
            markersize=5,
            capsize=3,
            linewidth=1.4,
        )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])


def _finish_small_panel(axes: Axes, title: str, chance: float) -> None:
    axes.axhline(chance, color=GRAY, linestyle=":", linewidth=1.2, label="guessing")
    axes.set_title(title, fontsize=9.5, color=INK, parse_math=False)
    axes.set_ylim(0, 1)
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY, labelcolor=INK, labelsize=8)


def _of_seeds(title: str, count: int) -> str:
    if count == 1:
        return title
    return f"{title}\nmean of {count} seeds, band ± 1 standard deviation"


def _curve_panels(title: str, demo: bool) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(9.6, 4.0), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, w_pad=0.08, h_pad=0.06)
    _title(figure, title)
    if demo:
        _stamp_below(figure)
    return figure, dict(zip(METRICS, figure.subplots(1, 2), strict=True))


def _series(
    histories: Sequence[Sequence[Row]], column: str
) -> tuple[np.ndarray, np.ndarray]:
    """The epochs `[E]` at which any history has the column, and values `[N, E]` with
    NaN where one has not."""
    known = [
        {
            int(row["epoch"]): float(row[column])
            for row in history
            if row.get(column) is not None and np.isfinite(row[column])
        }
        for history in histories
    ]
    epochs = sorted(set().union(*known))
    values = [[history.get(epoch, np.nan) for epoch in epochs] for history in known]
    return np.array(epochs), np.array(values, float).reshape(len(known), len(epochs))


def _hold_last(values: np.ndarray) -> np.ndarray:
    """`[N, E]` with each row's last finite value in the place of what follows it."""
    held = values.copy()
    for row in held:
        if len(known := np.flatnonzero(np.isfinite(row))):
            row[known[-1] :] = row[known[-1]]
    return held


def _mean_and_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the rows of `[N, E]`, NaN left out; sd is 0 where only one value is left."""
    count = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / count
    squares = np.nansum((values - mean) ** 2, axis=0)
    return mean, np.sqrt(squares / np.maximum(count - 1, 1))


def _is_wide(values: Sequence[float]) -> bool:
    """Whether values, all above zero, span more than a factor of a hundred."""
    found = [value for value in values if np.isfinite(value)]
    return bool(found) and min(found) > 0 and max(found) > 100 * min(found)


def _set_log_scale(axes: Axes) -> None:
    """Up, with a few round numbers at the axis."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _tidy(axes: Axes) -> None:
    """A light grid behind, no frame above and to the right."""
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY, labelcolor=INK, labelsize=9)


def _finish_panel(axes: Axes, metric: str) -> None:
    axes.set_xlabel("Epoch", color=INK)
    axes.set_ylabel(METRICS[metric], color=INK)
    _tidy(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 1, last + 1)
    if not axes.get_legend_handles_labels()[0]:
        axes.text(
            0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center",
            color=GRAY,
        )  # fmt: skip
        return
    if metric == "accuracy":
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))
    axes.legend(fontsize=9, framealpha=0.9, edgecolor=LIGHT, labelcolor=INK)


@dataclass(frozen=True)
class _Tile:
    image: np.ndarray
    caption: str
    color: str
    dashes: str | tuple[int, tuple[float, float]]


def _verdict_tile(image: np.ndarray, caption: str, right: bool | None) -> _Tile:
    """Framed by whether it was classified correctly; None: not known."""
    if right is None:
        return _Tile(image, caption, LIGHT, "-")
    if right:
        return _Tile(image, f"✓ {caption}", GREEN, "-")
    return _Tile(image, f"✗ {caption}", VERMILION, (0, (3, 1.5)))


def _tile_figure(
    tiles: Sequence[_Tile], *, columns: int, title: str, width: float, demo: bool
) -> Figure:
    """Tiles of `width` inches in rows. They share one pair of axes whose unit is the
    inch: an axes object for each image takes seconds once there are a hundred."""
    columns = max(min(columns, len(tiles)), 1)
    rows = -(-len(tiles) // columns)
    gap, size = 0.12, 8.0
    lines = max((tile.caption.count("\n") + 1 for tile in tiles), default=1)
    height = width + lines * size * LINE + gap
    heading = 0.42 if title else 0.1
    # Wide enough for the title (about 0.085 inches a character) and the stamp.
    figure_width = max(columns * width + gap, 0.085 * len(title) + 0.3, 2.6)
    figure_height = heading + rows * height + (0.32 if demo else 0.05)

    figure = Figure(figsize=(figure_width, figure_height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        middle = gap / 2 + (column + 0.5) * width
        floor = heading + row * height + width - gap / 2
        _draw_tile(axes, tile, middle, floor, room=width - gap, size=size)
    _finish_sheet(axes, figure_width, figure_height, title=title, demo=demo)
    return figure


def _draw_tile(
    axes: Axes, tile: _Tile, middle: float, floor: float, *, room: float, size: float
) -> None:
    """An image of at most `room` inches whose lower edge is at `floor`, centered at
    `middle`, and its caption beneath in `size` points."""
    image = _as_shown(tile.image)
    scale = room / max(image.shape[:2])
    shown_height, shown_width = (scale * side for side in image.shape[:2])
    left, top = middle - shown_width / 2, floor - shown_height
    axes.imshow(
        image,
        extent=(left, left + shown_width, floor, top),
        cmap=colormaps["gray"],
        vmin=0,
        vmax=255,
        interpolation="nearest" if scale * DPI > 2 else "antialiased",
    )
    axes.add_patch(
        Rectangle(
            (left, top),
            shown_width,
            shown_height,
            fill=False,
            edgecolor=tile.color,
            linestyle=tile.dashes,
            linewidth=0.8 if tile.color == LIGHT else 3,
        )
    )
    for number, text in enumerate(tile.caption.split("\n")):
        axes.text(
            middle,
            floor + 0.05 + (number + 1) * size * LINE,
            _printable(text),
            ha="center",
            va="baseline",
            fontsize=size,
            color=INK if tile.color == LIGHT else tile.color,
            parse_math=False,
        )


def _finish_sheet(
    axes: Axes, width: float, height: float, *, title: str, demo: bool
) -> None:
    """Title and stamp of a figure whose one pair of axes is in inches."""
    if title:
        axes.text(
            0.12, 0.13, _printable(title), fontsize=11, fontweight="bold", color=INK,
            va="top", parse_math=False,
        )  # fmt: skip
    if demo:
        axes.text(
            width - 0.12, height - 0.1, DEMO_STAMP, ha="right", va="bottom",
            **_STAMP_STYLE,
        )  # fmt: skip
    # Last, since imshow sets limits and aspect of its own; y points down.
    axes.set(aspect="auto", xlim=(0, width), ylim=(height, 0))


def _as_shown(image: np.ndarray) -> np.ndarray:
    """`[h, w, 3]`, or `[h, w]` where there is one channel."""
    image = np.asarray(image)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _title(figure: Figure, text: str) -> None:
    lines = "\n".join(map(_printable, text.splitlines()))
    figure.suptitle(
        lines, x=0.012, ha="left", fontsize=11, fontweight="bold", color=INK,
        parse_math=False,
    )  # fmt: skip


_STAMP_STYLE: dict[str, Any] = {
    "fontsize": 9,
    "fontweight": "bold",
    "color": INK,
    "bbox": {"boxstyle": "round,pad=0.3", "facecolor": "#FBE3A7", "edgecolor": ORANGE},
}


def _stamp_below(figure: Figure) -> None:
    # A label of the figure, so that the layout keeps room for it.
    figure.supxlabel(DEMO_STAMP, x=0.985, ha="right", **_STAMP_STYLE)
