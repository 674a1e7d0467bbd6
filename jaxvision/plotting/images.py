"""Images side by side: one grid for galleries and rows of images; and what single nodes
see of an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import ImageGrid

from jaxvision.plotting.style import (
    DEMO_STAMP,
    DPI,
    GRAY,
    GREEN,
    INK,
    LEGEND,
    LIGHT,
    STAMP,
    TITLE,
    VERMILION,
    blues,
    new_figure,
)
from jaxvision.report.formats import printable, shorten

GAP = 0.12
"""Inches between images."""

LETTERS = 8.0
"""Size of captions, in points."""

LINE = LETTERS * 1.35 / 72
"""Inches from one line of a caption to the next."""


@dataclass(frozen=True)
class ImageRow:
    """A row of `image_grid`.

    name: to the left of the row; further lines of it are gray.
    images: uint8 `[h, w]` or `[h, w, C]` with C 1 or 3, of any sizes; None: nothing
        there.
    captions: one beneath each image, of one line or more; none: no captions.
    correct: whether each image was classified correctly: right ones are framed in green
        with ✓, wrong ones in vermilion, dashed, with ✗; None: not known. It may be
        shorter than the row.
    """

    name: str
    images: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()
    correct: Sequence[bool | None] = ()

    def __post_init__(self) -> None:
        if self.captions and len(self.captions) != len(self.images):
            raise ValueError(
                f"{len(self.captions)} captions, {len(self.images)} images"
            )


def image_grid(
    rows: Sequence[ImageRow],
    columns: Sequence[str] = (),
    *,
    title: str = "",
    width: float = 1.6,
    blocks: int = 1,
    demo: bool = False,
) -> Figure:
    """Rows of images.

    Args:
      rows: from top to bottom.
      columns: headings of the columns; none: no headings.
      width: of an image with the gap beside it, in inches.
      blocks: side by side, each with its share of the rows.
    """
    per_block = max(-(-len(rows) // blocks), 1)
    count = max((len(row.images) for row in rows), default=1) or 1
    letters = max((len(n) for row in rows for n in row.name.split("\n")), default=0)
    lines = max((c.count("\n") + 1 for row in rows for c in row.captions), default=0)
    side = width - GAP
    left = GAP + (0.084 * letters + GAP if letters else 0)
    below = lines * LINE + (0.04 if lines else 0)
    top = (0.42 if title else 0.1) + (0.26 if columns else 0)
    heights = [
        # Of the rows that lie beside each other the tallest counts.
        side * max(map(_tallest, rows[number::per_block]))
        for number in range(min(per_block, len(rows)))
    ]
    block_width = left + count * width
    # Wide enough for the title (about 0.085 inches a character) and the stamp.
    figure_width = max(blocks * block_width + GAP, 0.085 * len(title) + 0.3, 2.6)
    grid_height = sum(heights) + (len(heights) - 1) * (below + GAP) if heights else 0
    bottom = below + GAP + (0.32 if demo else 0)
    figure_height = top + grid_height + bottom
    figure = Figure(figsize=(figure_width, figure_height), dpi=DPI)
    for block in range(blocks if rows else 0):
        own = rows[block * per_block : (block + 1) * per_block]
        rect = (
            (block * block_width + left) / figure_width,
            bottom / figure_height,
            (count * width - GAP) / figure_width,
            grid_height / figure_height,
        )
        grid = ImageGrid(
            figure, rect, (per_block, count), axes_pad=(GAP, below + GAP),  # type: ignore[arg-type]
            label_mode="all",
        )  # fmt: skip
        for axes in grid.axes_all:
            axes.set_axis_off()
        for number, axes_row in enumerate(grid.axes_row):
            for axes in axes_row:
                axes.set(xlim=(0, 1), ylim=(0, heights[number] / side))
            if number < len(own):
                _draw_row(axes_row, own[number], side, left - GAP)
        for axes, heading in zip(grid.axes_row[0], columns, strict=False):
            axes.annotate(
                printable(heading), (0.5, 1), (0, 7), xycoords="axes fraction",
                textcoords="offset points", ha="center", fontsize=9, color=INK,
                parse_math=False,
            )  # fmt: skip
    edge = GAP / figure_width
    if title:
        figure.text(edge, 1 - 0.13 / figure_height, printable(title), va="top", **TITLE)
    if demo:
        figure.text(1 - edge, 0.1 / figure_height, DEMO_STAMP, va="bottom", **STAMP)
    return figure


def gallery(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    correct: Sequence[bool],
    *,
    columns: int = 6,
    title: str = "",
    demo: bool = False,
) -> Figure:
    """Images with their predictions, in rows.

    Args:
      images: as of an `ImageRow`.
      captions: one or two lines each, see `prediction_caption`.
      correct: whether each was classified correctly.
    """
    if not len(images) == len(captions) == len(correct):
        raise ValueError(f"{len(images)} images, {len(captions)} captions")
    rows = [
        ImageRow("", images[cut], captions[cut], correct[cut])
        for cut in (slice(i, i + columns) for i in range(0, len(images), columns))
    ]
    return image_grid(rows, title=title, width=1.75, demo=demo)


def prediction_caption(true: str, predicted: str, probability: float) -> str:
    """Two lines for `gallery`: what was predicted, how surely, and what it is."""
    return f"{shorten(predicted, 17)}  {probability:.2f}\ntrue: {shorten(true, 19)}"


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
    figure = new_figure(max(2.35 * columns + 1.1, 4.6), 2.45 * rows + 0.9, title=title)
    grid = figure.subplots(rows, columns, squeeze=False)
    # The darkest shade stands for everything fainter: no pixel that counts is white.
    look = {
        "cmap": blues(0.2),
        "norm": LogNorm(vmin=1e-4, vmax=1, clip=True),
        "interpolation": "nearest",
    }
    frames, images = [], []
    for panel, axes in zip_longest(panels, grid.flat):
        if panel is None:
            axes.set_axis_off()
            continue
        gradient = np.asarray(panel.gradient, float)
        shares = np.ma.masked_equal(gradient / (gradient.max() or 1.0), 0)
        images.append(axes.imshow(shares, **look))
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
        frames.append(axes.add_patch(frame))
        axes.set_title(printable(panel.title), fontsize=9, color=INK, parse_math=False)
        axes.tick_params(color=GRAY, labelcolor=INK, labelsize=8)
        axes.spines[:].set_color(LIGHT)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    figure.supxlabel("column (pixels)", fontsize=9, color=INK)
    figure.supylabel("row (pixels)", fontsize=9, color=INK)
    bar = figure.colorbar(images[-1], ax=grid, aspect=18 * rows, extend="min")
    bar.set_label("gradient by a pixel / the largest", fontsize=9, color=INK)
    figure.legend(handles=frames[-1:], loc="outside lower right", **LEGEND)
    return figure


def _tallest(row: ImageRow) -> float:
    """Greatest height of the row's images, as a share of the longer side."""
    shapes = [image.shape[:2] for image in row.images if image is not None]
    return max((height / max(height, width) for height, width in shapes), default=1.0)


def _draw_row(
    axes_row: Sequence[Axes], row: ImageRow, side: float, margin: float
) -> None:
    """Images of at most `side` inches, on the lower edge of their cells, and the row's
    name in the margin, so many inches wide."""
    if row.name:
        _draw_name(axes_row[0], row.name, margin)
    for number, (axes, image) in enumerate(zip(axes_row, row.images, strict=False)):
        if image is None:
            continue
        right = row.correct[number] if number < len(row.correct) else None
        color, dashes, mark = _verdict(right)
        image = _as_shown(image)
        height, width = (length / max(image.shape[:2]) for length in image.shape[:2])
        left = (1 - width) / 2
        axes.imshow(
            image,
            extent=(left, left + width, 0, height),
            cmap="gray",
            vmin=0,
            vmax=255,
            interpolation="nearest"
            if side * DPI > 2 * max(image.shape[:2])
            else "antialiased",
        )
        axes.add_patch(
            Rectangle(
                (left, 0),
                width,
                height,
                fill=False,
                edgecolor=color,
                linestyle=dashes,
                linewidth=0.8 if right is None else 3,
                clip_on=False,
            )
        )
        # imshow sets limits of its own.
        axes.set(xlim=(0, 1), ylim=(0, axes_row[0].get_ylim()[1]))
        caption = row.captions[number] if row.captions else ""
        if caption:
            axes.annotate(
                "\n".join(map(printable, f"{mark}{caption}".split("\n"))),
                (0.5, 0), (0, -3), xycoords="axes fraction",
                textcoords="offset points", ha="center", va="top", fontsize=LETTERS,
                color=INK if right is None else color, parse_math=False,
            )  # fmt: skip


def _draw_name(axes: Axes, name: str, margin: float) -> None:
    """The first line bold, the others gray, in the middle of the row's height."""
    lines = name.split("\n")
    for number, line in enumerate(lines):
        down = (number - (len(lines) - 1) / 2) * LETTERS * 1.5
        axes.annotate(
            printable(line), (0, 0.5), (-72 * margin, -down),
            xycoords="axes fraction", textcoords="offset points", va="center",
            fontsize=9, fontweight="normal" if number else "bold",
            color=GRAY if number else INK, parse_math=False,
        )  # fmt: skip


def _verdict(
    right: bool | None,
) -> tuple[str, str | tuple[int, tuple[float, float]], str]:
    """Color and dashes of the frame, and the mark before the caption."""
    if right is None:
        return LIGHT, "-", ""
    return (GREEN, "-", "✓ ") if right else (VERMILION, (0, (3, 1.5)), "✗ ")


def _as_shown(image: np.ndarray) -> np.ndarray:
    """`[h, w, 3]`, or `[h, w]` where there is one channel."""
    image = np.asarray(image)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
