"""Figures: they hold what they were given, and odd input does not break them."""

import io
import math
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from jaxvision.metrics import RocCurve, reliability
from jaxvision.plotting import (
    DEMO_STAMP,
    FieldPanel,
    ImageRow,
    TransformPanel,
    confusion_matrix,
    curves_by_recipe,
    gallery,
    image_grid,
    learning_curves,
    prediction_caption,
    receptive_field_maps,
    reliability_diagram,
    roc_curves,
    transform_curves,
)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def drawn(figure: Figure, dpi: float = 50) -> np.ndarray:
    """Its pixels; a warning (a missing glyph, a layout that fails) is an error."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer, format="png", dpi=dpi)
    return np.asarray(Image.open(buffer).convert("RGB"))


def history(epochs: int, offset: float = 0.0) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch + offset,
            "train_accuracy": 1 - 1 / (epoch + 1),
            "val_loss": 2 / epoch + offset,
            "val_accuracy": 1 - 1.5 / (epoch + 1) - offset,
        }
        for epoch in range(1, epochs + 1)
    ]


def image(height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    return np.full((height, width, channels), 128, np.uint8)


def test_learning_curves_hold_the_history() -> None:
    rows = history(4)
    figure = learning_curves([rows], title="Faces")
    loss, accuracy = figure.axes
    curves = {line.get_label(): line for line in loss.lines}
    np.testing.assert_array_equal(curves["training"].get_xdata(), [1, 2, 3, 4])
    expected = [row["val_loss"] for row in rows]
    np.testing.assert_array_equal(curves["validation"].get_ydata(), expected)
    assert "test" not in curves
    assert loss.get_ylabel() == "Loss (nats per image)"
    assert accuracy.get_ylabel() == "Accuracy (share of images)"
    assert accuracy.get_xlabel() == "Epoch"
    assert "Faces" in texts(figure)
    drawn(figure)


def test_learning_curves_leave_out_what_is_not_finite() -> None:
    rows = history(3)
    rows[1]["train_loss"] = math.nan
    rows[2]["val_loss"] = math.inf
    del rows[0]["val_loss"]
    rows[0]["test_accuracy"] = 0.5
    figure = learning_curves([rows], title="x")
    loss, accuracy = figure.axes
    curves = {line.get_label(): line for line in loss.lines}
    np.testing.assert_array_equal(curves["training"].get_xdata(), [1, 3])
    np.testing.assert_array_equal(curves["validation"].get_xdata(), [2])
    assert "test" in {line.get_label() for line in accuracy.lines}
    drawn(figure)


@pytest.mark.parametrize("rows", [[], [{"epoch": 1}], history(1)])
def test_learning_curves_of_short_histories(rows: list[dict[str, float]]) -> None:
    drawn(learning_curves([rows], title="x"))
    drawn(learning_curves([rows, []], title="x"))


def test_seeds_have_mean_and_band() -> None:
    figure = learning_curves([history(3), history(2, offset=0.2)], title="x")
    loss = figure.axes[0]
    (mean,) = [line for line in loss.lines if line.get_label() == "training"]
    np.testing.assert_allclose(mean.get_ydata(), [1.1, 0.6, 1 / 3])
    band = loss.collections[0].get_paths()[0].get_extents()
    assert band.ymax == pytest.approx(1.1 + 0.2 / math.sqrt(2))
    assert any("mean of 2 seeds" in text for text in texts(figure))
    drawn(figure)


def test_a_reliability_diagram_has_the_bins_that_hold_images() -> None:
    before = reliability(np.array([[0.99, 0.01], [0.4, 0.6]]), np.array([1, 1]))
    after = reliability(np.array([[0.8, 0.2], [0.45, 0.55]]), np.array([1, 1]))
    figure = reliability_diagram(before, after, title="x", demo=True)
    first, second, _ = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xdata(), [0.6, 0.99])
    np.testing.assert_allclose(second.get_ydata(), [1, 0])
    assert f"after: calibration error {after.error:.3f}" in texts(figure)
    drawn(figure)


@pytest.mark.parametrize("count", [1, 2, 13])
def test_confusion_matrix_writes_every_count(count: int) -> None:
    matrix = np.diag(np.arange(7, 7 + count))
    matrix[0, -1] += 104
    names = [f"class number {index}" for index in range(count)]
    figure = confusion_matrix(matrix, names)
    shown = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert sorted(map(int, shown)) == sorted(matrix[matrix > 0].tolist())
    assert f"{names[0]} ({matrix[0].sum()})" in texts(figure)
    drawn(figure)


@pytest.mark.parametrize("count", [31, 300])
def test_confusion_matrix_of_many_classes_is_no_larger(count: int) -> None:
    names = [f"class {index}" for index in range(count)]
    figure = confusion_matrix(np.eye(count, dtype=int), names)
    assert max(figure.get_size_inches()) < 11
    assert not figure.axes[0].texts
    assert f"{names[0]} (1)" in texts(figure)
    drawn(figure)


def test_confusion_matrix_names_do_not_overlap() -> None:
    names = [f"a name of some length {index}" for index in range(30)]
    figure = confusion_matrix(np.eye(30, dtype=int) * 999, names)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in pairwise(rows))
    columns = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in pairwise(columns))
    cell = axes.transData.transform([[0, 0], [1, 0]])[:, 0]
    counts = [text.get_window_extent().width for text in axes.texts]
    assert max(counts) < cell[1] - cell[0]


def test_confusion_matrix_of_a_class_without_images() -> None:
    figure = confusion_matrix(np.array([[0, 0], [1, 2]]), ["a", "b"])
    assert "Confusion matrix: 2 of 3 right (0.667)" in texts(figure)
    drawn(figure)
    drawn(confusion_matrix(np.zeros((2, 2), int), ["a", "b"]))


def test_confusion_matrix_needs_a_name_for_each_class() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        confusion_matrix(np.eye(2), ["a", "b", "c"])


def test_gallery_tells_right_from_wrong_without_color() -> None:
    images = [image(), image(4, 9, 1), image(9, 4)[..., 0]]
    captions = ["a  0.91\ntrue: a", "b  0.52\ntrue: a", "c"]
    figure = gallery(images, captions, [True, False, True], columns=2, title="Test")
    captions = [text for text in texts(figure) if text[0] in "✓✗"]
    assert captions == ["✓ a  0.91\ntrue: a", "✗ b  0.52\ntrue: a", "✓ c"]
    frames = [axes.patches[0] for axes in figure.axes if axes.patches]
    assert len({frame.get_edgecolor() for frame in frames}) == 2
    assert frames[0].get_linestyle() != frames[1].get_linestyle()
    drawn(figure)


def test_gallery_shows_the_images_upright_and_in_proportion() -> None:
    tall = np.zeros((40, 20, 3), np.uint8)
    tall[:20] = (255, 0, 255)
    figure = gallery([tall], ["x"], [True], title="")
    pixels = drawn(figure, dpi=100)
    rows, columns = np.nonzero((pixels == (255, 0, 255)).all(axis=-1))
    assert 0.9 < np.ptp(rows) / np.ptp(columns) < 1.1
    assert rows.max() < pixels.shape[0] / 2


@pytest.mark.parametrize("count", [0, 1, 7])
def test_gallery_of_few(count: int) -> None:
    labels = [f"painter {index}" for index in range(count)]
    figure = gallery([image()] * count, labels, [True] * count, columns=3, title="All")
    assert {f"✓ {label}" for label in labels} <= set(texts(figure))
    drawn(figure)


def test_as_many_captions_as_images() -> None:
    with pytest.raises(ValueError, match="2 captions"):
        gallery([image()], ["a", "b"], [True], title="x")
    with pytest.raises(ValueError, match="1 captions"):
        ImageRow("", [image()] * 2, ["a"])


@pytest.mark.parametrize(
    "name", ["$x_1", "$x$ $\\bad{", "a\nb\tc", "\\", "na\udcefve", "", "%d {0}"]
)
def test_any_name_can_be_drawn(name: str) -> None:
    drawn(confusion_matrix(np.eye(2, dtype=int), [name, "b"], title=name))
    caption = prediction_caption(name, name, 0.5)
    drawn(gallery([image()], [caption], [True], title=name))
    drawn(learning_curves([history(2)], title=name))
    drawn(curves_by_recipe({name: [history(2)]}, "loss", title=name))
    drawn(image_grid([ImageRow(name, [image()])], [name]))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_receptive_fields_are_framed_where_they_are_said_to_be(count: int) -> None:
    gradient = np.zeros((9, 12))
    gradient[2:5, 3:8] = 1e-9
    gradient[3, 5] = 2.0
    panel = FieldPanel("conv1: 3×5", gradient, (2, 3, 4, 7))
    figure = receptive_field_maps([panel] * count, title="net")
    assert texts(figure).count("conv1: 3×5") == count
    assert {"row (pixels)", "column (pixels)", "by recursion"} <= set(texts(figure))
    axes = figure.axes[0]
    (frame,) = axes.patches
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((2.5, 1.5), 5, 3)
    shown = axes.images[0]
    colors = shown.cmap(shown.norm(shown.get_array()))
    # White for what has no gradient, and for nothing else however faint.
    np.testing.assert_array_equal(colors[..., 3] > 0, gradient > 0)
    assert (colors[gradient > 0][:, :3].min(axis=1) < 0.9).all()
    drawn(figure)


def test_a_layer_without_any_gradient_is_drawn_too() -> None:
    panel = FieldPanel("conv1", np.zeros((4, 4)), (0, 0, 1, 1))
    drawn(receptive_field_maps([panel], title="net"))


@pytest.mark.parametrize(
    "make",
    [
        lambda demo: learning_curves([history(2)], title="x", demo=demo),
        lambda demo: curves_by_recipe(
            {"a": [history(2)] * 2}, "loss", title="x", demo=demo
        ),
        lambda demo: confusion_matrix(np.eye(2, dtype=int), ["a", "b"], demo=demo),
        lambda demo: gallery([image()], ["a"], [True], title="x", demo=demo),
    ],
)
def test_demo_data_is_stamped_within_the_figure(make) -> None:
    assert DEMO_STAMP not in texts(make(False))
    figure = make(True)
    figure.draw_without_rendering()
    (stamp,) = [t for t in figure.findobj(Text) if t.get_text() == DEMO_STAMP]
    box, whole = stamp.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= whole.y1


def test_captions_name_what_and_how_surely() -> None:
    assert prediction_caption("Ada", "Bob", 0.916) == "Bob  0.92\ntrue: Ada"


def test_threads_draw_the_same() -> None:
    def draw(_: int) -> bytes:
        return drawn(learning_curves([history(5)], title="x")).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(4)))) == 1


def test_no_window_and_no_pyplot() -> None:
    program = "import sys, jaxvision.plotting; print('pyplot' in str([*sys.modules]))"
    root = Path(__file__).resolve().parents[1]
    said = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=root)
    assert said == "False\n"


def panel(name: str, strengths: tuple[float, ...], seeds: int = 2) -> TransformPanel:
    rng = np.random.default_rng(len(name))
    values = {label: rng.random((seeds, len(strengths))) for label in ("a", "b")}
    return TransformPanel(name, "degrees", strengths, values)


def test_transform_curves_begin_with_the_unchanged_images() -> None:
    panels = [
        panel("rotation", (5.0, 15.0, 30.0)),
        panel("vertical flip", (1.0,)),
        panel("$blur", (1.0, 2.0, 3.0)),
    ]
    baselines = {"a": np.array([0.9, 0.7]), "b": np.array([0.6, 0.6])}
    figure = transform_curves(
        panels, baselines, chance=0.1, title="Changed images", demo=True
    )
    curves, _, switches = figure.axes
    solid, dashed, guessing = curves.get_lines()
    np.testing.assert_array_equal(solid.get_xdata(), [0, 5, 15, 30])
    np.testing.assert_allclose(
        solid.get_ydata(), [0.8, *panels[0].accuracies["a"].mean(axis=0)]
    )
    assert dashed.get_ydata()[0] == pytest.approx(0.6)
    assert set(guessing.get_ydata()) == {0.1}
    assert curves.get_xlabel() == "strength (degrees)"
    assert curves.get_ylabel() == "Accuracy (share)"
    ticks = [tick.get_text() for tick in switches.get_xticklabels()]
    assert ticks == ["unchanged", "vertical\nflip"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["a", "b", "guessing"]
    assert {"rotation", "$blur", "on or off", DEMO_STAMP} <= set(texts(figure))
    drawn(figure)


@pytest.mark.parametrize("strengths", [(1.0,), (0.1, 0.2)])
def test_transform_curves_of_one_change_and_one_seed(strengths: tuple) -> None:
    figure = transform_curves(
        [panel("change", strengths, seeds=1)],
        {"a": np.array([0.9]), "b": np.array([0.8])},
        chance=0.5,
        title="Changed validation images",
    )
    assert len(figure.legends[0].get_texts()) == 3
    drawn(figure)


def test_blocks_lie_side_by_side() -> None:
    rows = [
        ImageRow("blur\npixels", [image(), image()], ["1", "2"]),
        ImageRow("in\tvert", [image(9, 5, 1)], ["on"], [True]),
        ImageRow("rotation\ndegrees", [image()] * 2, ["5", "9"], [True, False]),
    ]
    figure = image_grid(rows, title="a$b.png under every change", blocks=2, demo=True)
    assert sum(len(axes.images) for axes in figure.axes) == 5
    assert {"blur", "pixels", "1", "2", "✓ on", "✓ 5", "✗ 9", DEMO_STAMP} <= set(
        texts(figure)
    )
    whole = image_grid(rows, title="a$b.png under every change", demo=True)
    assert figure.get_figheight() < whole.get_figheight()
    drawn(figure)
    drawn(image_grid(rows[:1], blocks=2))


def test_image_grid_has_a_row_and_a_heading_each() -> None:
    rows = [
        ImageRow("anna\nnamed so", [image(), image(), None], correct=[True]),
        ImageRow("berta", [image(), None, image()], ["x", "", "z"], [False]),
    ]
    figure = image_grid(rows, ["face", "gray", "overlay"], title="Faces", demo=True)
    found = texts(figure)
    assert {"anna", "named so", "berta", "face", "gray", "overlay", "✗ x"} <= set(found)
    assert sum(len(axes.images) for axes in figure.axes) == 4
    drawn(figure)


def test_image_grid_is_as_high_as_its_images() -> None:
    def height(*sides: int) -> float:
        row = ImageRow("", [image(*sides)])
        return image_grid([row], title="").get_figheight()

    assert height(4, 16) < 0.5 * height(16, 16)
    assert height(16, 4) == height(16, 16)


def test_both_panels_of_configurations_show_everything():
    history = [
        {"epoch": 1, "train_accuracy": 0.6, "val_accuracy": 0.1},
        {"epoch": 2, "train_accuracy": 0.9, "val_accuracy": 0.7},
    ]
    figure = curves_by_recipe({"a": [history]}, "accuracy", title="")
    low, high = figure.axes[1].get_ylim()
    assert low < 0.1
    assert high > 0.9


@pytest.mark.parametrize(("first", "scale"), [(3.0, "linear"), (300.0, "log")])
def test_losses_of_configurations_that_fall_far_have_a_log_scale(first, scale):
    history = [
        {"epoch": 1, "train_loss": 2.0, "val_loss": first},
        {"epoch": 2, "train_loss": 1.0, "val_loss": 1.5},
    ]
    figure = curves_by_recipe({"a": [history]}, "loss", title="")
    assert [axes.get_yscale() for axes in figure.axes] == [scale] * 2
    assert "Loss" in figure.axes[0].get_ylabel()


def test_accuracy_of_recipes_draws_a_line_each_in_both_panels():
    def history(offset, epochs):
        return [
            {"epoch": e, "train_accuracy": 0.1 * e, "val_accuracy": 0.05 * e + offset}
            for e in range(1, epochs + 1)
        ]

    figure = curves_by_recipe(
        {"a": [history(0, 5), history(0.3, 3)], "b": [history(0, 4), history(0.2, 4)]},
        "accuracy",
        title="dropout",
        demo=True,
    )
    train, val = figure.axes
    assert [line.get_label() for line in train.lines] == ["a", "b"]
    assert val.lines[0].get_ydata()[0] == pytest.approx(0.2)
    # The seed that stopped after 3 epochs keeps its .45.
    assert val.lines[0].get_ydata()[-1] == pytest.approx(0.35)
    assert len(val.collections) == 2  # the bands
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert train.get_xlabel() == "Epoch"
    assert "Accuracy" in train.get_ylabel()


def test_roc_curves_are_drawn_whole_and_as_errors() -> None:
    false, true = np.array([0, 0, 0.5, 1]), np.array([0, 0.8, 1, 1])
    curve = RocCurve(false, true, np.array([3.0, 2.0, 1.0, 0.0]), 0.95)
    figure = roc_curves({"seed 0": curve}, positive="face", title="ROC")
    whole, errors = figure.axes
    np.testing.assert_array_equal(whole.lines[0].get_xydata().T, [false, true])
    assert len(errors.lines) == 1
    assert {"true positive rate (face found)", "seed 0: AUC 0.9500"} <= set(
        texts(figure)
    )
    drawn(figure)
