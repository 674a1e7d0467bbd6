"""How figures look: colors, letters, titles, and the stamp of demo data.

Style is given to each artist rather than to `rcParams`, which all threads share. Colors
are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with
color-blindness tell apart.
"""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxvision.report.formats import printable

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GRAY, LIGHT = "#222222", "#777777", "#DDDDDD"
DPI = 140
DEMO_STAMP = "demo data (drawn by code)"

SPLITS = {  # split: (name in the legend, color, dashes)
    "train": ("training", BLUE, "-"),
    "val": ("validation", VERMILION, "-"),
    "test": ("test", GREEN, "--"),
}

LINES = [
    (color, dashes)
    for dashes in ("-", "--")
    for color in (BLUE, VERMILION, GREEN, ORANGE)
]
"""Color and dashes of each of several lines."""

LEGEND: dict[str, Any] = {"fontsize": 9, "edgecolor": LIGHT, "labelcolor": INK}

TITLE: dict[str, Any] = {
    "ha": "left", "fontsize": 11, "fontweight": "bold", "color": INK,
    "parse_math": False,
}  # fmt: skip

STAMP: dict[str, Any] = {
    "ha": "right",
    "fontsize": 9,
    "fontweight": "bold",
    "color": INK,
    "bbox": {"boxstyle": "round,pad=0.3", "facecolor": "#FBE3A7", "edgecolor": ORANGE},
}


def new_figure(
    width: float, height: float, *, title: str, demo: bool = False
) -> Figure:
    """An empty figure of so many inches, with a title and, of demo data, the stamp."""
    layout = ConstrainedLayoutEngine(wspace=0.05, w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    figure.suptitle("\n".join(map(printable, title.splitlines())), x=0.012, **TITLE)
    return stamped(figure) if demo else figure


def stamped(figure: Figure) -> Figure:
    """The figure, marked as made from demo data."""
    # A label of the figure, so that the layout keeps room for it.
    figure.supxlabel(DEMO_STAMP, x=0.985, **STAMP)
    return figure


def tidy(axes: Axes, size: float = 9) -> None:
    """A light grid behind, no frame above and to the right."""
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.tick_params(color=GRAY, labelcolor=INK, labelsize=size)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def blues(palest: float) -> LinearSegmentedColormap:
    """From a blue that stands out from white to the darkest; masked values are
    white."""
    return LinearSegmentedColormap.from_list(
        "blues", colormaps["Blues"](np.linspace(palest, 1, 256))
    )
