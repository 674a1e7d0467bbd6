"""Curves over epochs, thresholds and strengths; and the confusion matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from sklearn.metrics import ConfusionMatrixDisplay, DetCurveDisplay, RocCurveDisplay

from jaxvision.metrics import Reliability, RocCurve
from jaxvision.plotting.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    LEGEND,
    LIGHT,
    LINES,
    SPLITS,
    VERMILION,
    blues,
    new_figure,
    tidy,
)
from jaxvision.report.formats import printable, shorten
from jaxvision.typing import Row

METRICS = {
    "loss": "Loss (nats per image)",
    "accuracy": "Accuracy (share of images)",
}
"""Label of the axis of each."""

WRITTEN_CLASSES = 30
"""A confusion matrix of more classes shows shades alone: counts would be too small."""

NAMED_CLASSES = 80
"""Of more classes only some are named at the axes."""

Style = tuple[str, str, str | None]
"""Color, dashes and marker of a line."""

NETWORKS: tuple[Style, ...] = (
    (BLUE, "-", "o"), (VERMILION, "--", "s"), (GREEN, "-.", "^"),
)  # fmt: skip


def learning_curves(
    histories: Sequence[Sequence[Row]], *, title: str, demo: bool = False
) -> Figure:
    """Loss and accuracy over the epochs of one recipe. Of several seeds: the mean, a
    band of ± one standard deviation (n − 1 in the denominator) and, faintly, each seed.

    Seeds may stop at different epochs: at each, those that are still running count.

    Args:
      histories: one a seed, of rows with `epoch` and any of
        `{train,val,test}_{loss,accuracy}`; what is missing or not finite is left out.
    """
    title = _of_seeds(title, len(histories))
    figure = new_figure(9.6, 4.0, title=title, demo=demo)
    for metric, axes in zip(METRICS, figure.subplots(1, 2), strict=True):
        for split, (name, color, dashes) in SPLITS.items():
            epochs, values = _series(histories, f"{split}_{metric}")
            if not len(epochs):
                continue
            if len(histories) > 1:
                axes.plot(epochs, values.T, color=color, linewidth=0.6, alpha=0.35)
            marker = "o" if len(epochs) <= 30 and len(histories) == 1 else None
            _mean_curve(axes, epochs, values, name, (color, dashes, marker))
        _finish_epochs(axes, metric)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(framealpha=0.9, **LEGEND)
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

    Args:
      histories: legend's label -> one history a seed; at most eight labels.
    """
    title = _of_seeds(title, max(map(len, histories.values())))
    figure = new_figure(10.6, 4.2, title=title, demo=demo)
    panels = figure.subplots(1, 2, sharey=True)
    drawn: list[float] = []
    for axes, split in zip(panels, ("train", "val"), strict=True):
        for (label, several), style in zip(histories.items(), LINES, strict=False):
            epochs, values = _series(several, f"{split}_{metric}")
            values = _hold_last(values)
            drawn.extend(values.ravel())
            if len(epochs):
                marker = "o" if len(epochs) <= 12 else None
                _mean_curve(axes, epochs, values, label, (*style, marker))
        axes.set_title(f"{SPLITS[split][0]} images", fontsize=10, color=INK)
    # Once all is drawn: the panels have one scale, which finishing one of them fixes.
    for axes in panels:
        _finish_epochs(axes, metric)
    if metric == "loss" and _is_wide(drawn):
        _set_log_scale(panels[0])
    panels[1].set_ylabel("")
    handles, labels = panels[0].get_legend_handles_labels()
    shown = [shorten(label, 28) for label in labels]
    figure.legend(handles, shown, loc="outside right center", **LEGEND)
    return figure


def confusion_matrix(
    matrix: np.ndarray,
    classes: Sequence[str],
    *,
    title: str = "Confusion matrix",
    demo: bool = False,
) -> Figure:
    """True classes down, predicted classes across. The shade is the share of the true
    class, so that rare classes are seen as well as common ones; the counts are written
    for up to `WRITTEN_CLASSES`.

    Args:
      matrix: `[K, K]` counts; row i holds the images whose true class is i.
      classes: K names.
    """
    matrix = np.asarray(matrix)
    count = len(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"{count} classes and a matrix of shape {matrix.shape}")
    totals = matrix.sum(axis=1)
    right, everything = int(np.trace(matrix)), int(matrix.sum())
    share = right / max(everything, 1)
    written = count <= WRITTEN_CLASSES
    # Cells shrink as classes grow in number, but stay large enough for 3 digits.
    cell = float(np.clip(5.0 / count, 0.27, 0.8)) if written else 7.2 / count
    names = [shorten(name, 22) for name in classes]
    label = 0.075 * max(map(len, names)) + 0.4
    figure = new_figure(
        max(count * cell + label + 1.3, 4.6),
        max(count * cell + label + (1.1 if demo else 0.8), 3.4),
        title=f"{title}: {right} of {everything} right ({share:.3f})",
        demo=demo,
    )
    axes = figure.subplots()
    shares = matrix / np.maximum(totals, 1)[:, None]
    display: Any = ConfusionMatrixDisplay(shares)
    display.plot(
        ax=axes,
        include_values=written,
        colorbar=False,
        # Zero is white, and the palest blue shows a single mistake.
        cmap=blues(0.14),
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": float(np.clip(cell * 16, 5.5, 10))},
    )
    image = display.im_
    image.set_data(np.ma.masked_equal(shares, 0))
    for place in np.ndindex(matrix.shape) if written else ():
        text = display.text_[place]
        text.set_text(f"{matrix[place]}" if matrix[place] else "")
        text.set_color("white" if shares[place] > 0.55 else INK)
    slanted = count <= 12
    across: dict[str, Any] = {"rotation": 90, "ha": "center"}
    if slanted:
        across = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ticks = range(0, count, -(-count // NAMED_CLASSES))
    size = 9 if slanted else 7.5 if written else max(7.5 * 40 / max(count, 40), 4.5)
    rows = [f"{names[i]} ({totals[i]})" for i in ticks]
    columns = [names[i] for i in ticks]
    axes.set_xticks(ticks, columns, fontsize=size, parse_math=False, **across)
    axes.set_yticks(ticks, rows, fontsize=size, parse_math=False)
    # A light line between the cells, on minor ticks that show no mark.
    edges = np.arange(count + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color=LIGHT, linewidth=0.5 if written else 0.15)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true (number of images)", color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.02)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=GRAY)
    bar.set_label("share of the true class", fontsize=9, color=GRAY)
    return figure


def roc_curves(
    curves: Mapping[str, RocCurve], *, positive: str, title: str, demo: bool = False
) -> Figure:
    """ROC curves of two classes, and beside them both kinds of error: on linear axes
    good networks all look perfect.

    Args:
      curves: by the legend's label; eight are told apart by color and dashes.
      positive: name of the class that is found or missed.
    """
    figure = new_figure(9.2, 4.6, title=title, demo=demo)
    whole, errors = figure.subplots(1, 2)
    for (label, curve), (color, dashes) in zip(
        curves.items(), cycle(LINES), strict=False
    ):
        false, true = curve.false_positive_rate, curve.true_positive_rate
        style = {"color": color, "linestyle": dashes, "linewidth": 1.7}
        name = f"{shorten(label, 30)}: AUC {curve.auc:.4f}"
        roc = RocCurveDisplay(fpr=false, tpr=true)
        roc.plot(ax=whole, curve_kwargs={**style, "label": name})
        DetCurveDisplay(fpr=false, fnr=1 - true).plot(ax=errors, **style)
    whole.plot([0, 1], [0, 1], ":", color=GRAY, linewidth=1.2, label="guessing")
    whole.set_xlabel("false positive rate")
    whole.set_ylabel(
        f"true positive rate ({shorten(positive, 24)} found)", parse_math=False
    )
    whole.legend(loc="lower right", **LEGEND)
    errors.set(xlabel="false positive rate", ylabel="false negative rate")
    for axes in (whole, errors):
        axes.set_aspect("equal")
        tidy(axes)
    return figure


def reliability_diagram(
    before: Reliability, after: Reliability, *, title: str, demo: bool = False
) -> Figure:
    """Accuracy over confidence, bin by bin, before and after temperature scaling, and
    below it how many predictions each bin holds.

    Args:
      before, after: with the same bins.
    """
    figure = new_figure(5.4, 5.2, title=title, demo=demo)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(after.counts) + 1)
    for found, name, (color, dashes, marker) in zip(
        (before, after), ("before", "after"), NETWORKS[1::-1], strict=True
    ):
        filled = found.counts > 0
        label = f"{name}: calibration error {found.error:.3f}"
        upper.plot(
            found.confidence[filled],
            found.accuracy[filled],
            color=color,
            linestyle=dashes,
            marker=marker,
            label=label,
            linewidth=1.5,
            markersize=4,
        )
        lower.stairs(found.counts, edges, color=color, linestyle=dashes, linewidth=1.5)
    upper.plot([0, 1], [0, 1], ":", color=GRAY, linewidth=1.2, label="calibrated")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="upper left", **LEGEND)
    lower.set(xlabel="probability of the predicted class", ylabel="images")
    for axes in (upper, lower):
        tidy(axes)
    return figure


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

    Args:
      panels: those of a single strength share the last panel, as points.
      baselines: legend's label -> `[S]`, accuracy on unchanged images, of at most
        three networks: the curves begin with it, at strength 0.
      chance: accuracy of guessing, drawn as a dotted line.
    """
    curves = [panel for panel in panels if len(panel.strengths) > 1]
    switches = [panel for panel in panels if len(panel.strengths) == 1]
    count = len(curves) + bool(switches)
    # Fewest rows of at most five; then no wider than those rows need, but never so
    # narrow that title and legend meet.
    rows = -(-count // 5)
    columns = -(-count // rows)
    width, height = max(2.45 * columns + 0.4, 10.5), 2.3 * rows + (1.3 if demo else 1.0)
    figure = new_figure(width, height, title=title, demo=demo)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, axes in zip(curves, grid.flat, strict=False):
        strengths = np.array([0.0, *panel.strengths])
        for (label, values), style in zip(
            panel.accuracies.items(), NETWORKS, strict=False
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
    shown = [shorten(label, 24) for label in labels]
    figure.legend(handles, shown, loc="outside upper right", ncols=4, **LEGEND)
    return figure


def learning_rate_curve(
    rates: np.ndarray,
    losses: np.ndarray,
    smoothed: np.ndarray,
    suggestion: float | None,
    *,
    title: str,
    demo: bool = False,
) -> Figure:
    """The loss over the learning rate, as it rises from step to step.

    Args:
      rates, losses, smoothed: `[n]`, of each step.
      suggestion: marked by a line; None: there is none.
    """
    figure = new_figure(7.2, 4.0, title=title, demo=demo)
    axes = figure.subplots()
    axes.plot(rates, losses, color=GRAY, linewidth=0.7, label="each batch")
    axes.plot(rates, smoothed, color=BLUE, linewidth=1.8, label="smoothed")
    if suggestion is not None:
        label = f"suggestion: {suggestion:.2g}"
        axes.axvline(suggestion, color=VERMILION, linestyle="--", label=label)
    axes.set_xscale("log")
    # What explodes at the end would flatten all else.
    low, start = float(losses.min()), float(smoothed[0])
    room = max(start - low, 0.1 * abs(start))
    axes.set_ylim(low - 0.1 * room, start + room)
    axes.set_xlabel("Learning rate")
    axes.set_ylabel(METRICS["loss"])
    axes.legend(framealpha=0.9, **LEGEND)
    tidy(axes)
    return figure


def _mean_curve(
    axes: Axes, places: np.ndarray, values: np.ndarray, label: str, style: Style
) -> None:
    """`[S, n]` values at `[n]` places: their mean, and a band where S is above 1."""
    color, dashes, marker = style
    mean, sd = _mean_and_sd(values)
    if len(values) > 1:
        axes.fill_between(
            places, mean - sd, mean + sd, color=color, alpha=0.18, linewidth=0
        )
    axes.plot(
        places, mean, dashes, color=color, label=printable(label), linewidth=1.7,
        marker=marker, markersize=3.5,
    )  # fmt: skip


def _switches(
    axes: Axes, panels: Sequence[TransformPanel], baselines: Mapping[str, np.ndarray]
) -> None:
    """Changes without a strength, side by side, beside the unchanged images."""
    names = ["unchanged", *(panel.name for panel in panels)]
    for number, ((label, baseline), style) in enumerate(
        zip(baselines.items(), NETWORKS, strict=False)
    ):
        values = np.column_stack([baseline, *(p.accuracies[label] for p in panels)])
        mean, sd = _mean_and_sd(values)
        color, _, marker = style
        axes.errorbar(
            # Beside each other, so that two networks of one accuracy are both seen.
            np.arange(len(names)) + 0.18 * (number - (len(baselines) - 1) / 2),
            mean,
            yerr=sd if len(values) > 1 else None,
            fmt=marker or "",
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
    tidy(axes, size=8)


def _finish_epochs(axes: Axes, metric: str) -> None:
    axes.set_xlabel("Epoch")
    axes.set_ylabel(METRICS[metric])
    tidy(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 1, last + 1)
    if not axes.lines:
        axes.text(
            0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center",
            color=GRAY,
        )  # fmt: skip
    elif metric == "accuracy":
        axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))


def _of_seeds(title: str, count: int) -> str:
    if count == 1:
        return title
    return f"{title}\nmean of {count} seeds, band ± 1 standard deviation"


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
