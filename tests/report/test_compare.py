"""Which of our figures stand beside which published ones, and the verdicts."""

import math

import pytest

from jaxvision.report.compare import compare, is_published, published_row, verdict


@pytest.mark.parametrize(
    ("value", "mean", "sd", "expected"),
    [
        (0.5, 0.55, 0.03, "agrees"),
        (0.5, 0.561, 0.03, "higher"),
        (0.5, 0.439, 0.03, "lower"),
        ([0.4, 0.6], 0.65, 0.03, "agrees"),
        ([0.4, 0.6], 0.67, 0.03, "higher"),
        ([0.4, 0.6], 0.33, 0.03, "lower"),
        (0.5, 0.5, None, "unknown"),
        (0.5, 0.5, math.nan, "unknown"),
        (0.5, 0.5, 0.0, "agrees"),
        (39, 45.0, 2.0, "higher"),
    ],
)
def test_more_than_two_standard_deviations_apart(value, mean, sd, expected):
    assert verdict(value, mean, sd) == expected


def published(row, metric, value=0.5, **table):
    source = "Niaz, 1.2"
    return {"row": row, "metric": metric, "value": value, "source": source, **table}


def results(*places, is_demo=False, mean=0.52, images=451, classes=11):
    """Figures of (table, row, metric) each."""
    data = {
        "is_demo": is_demo, "num_images": images, "num_bad": 0,
        "classes": ["x"] * classes,
    }  # fmt: skip
    figures = {
        "/".join(filter(None, place)): {
            "mean": mean, "sd": 0.02, "n": 3,
            **dict(zip(("table", "row", "metric"), place, strict=True)),
        }
        for place in places
    }  # fmt: skip
    return {"data": data, "figures": figures}


def compared(entries, ours, **options):
    return compare(entries, ours, dataset="artists", **options)


@pytest.mark.parametrize("table", ["", "dropout"])
def test_figures_are_found_by_row_and_metric(table):
    ours = results(
        (table, "rate 0", "val_accuracy"), (table, "rate .1", "val_accuracy")
    )
    (found,) = compared([published("rate .1", "val_accuracy")], ours)
    assert found.figure.endswith("rate .1/val_accuracy")
    assert (found.verdict, found.n, found.table) == ("agrees", 3, table)
    assert compared([published("rate .1", "test_accuracy")], ours) == []


def test_rows_of_several_tables_are_told_apart():
    row = ("decay 0", "val_accuracy")
    ours = results(("adam", *row), ("sgd", *row))
    (found,) = compared([published(*row, table="sgd")], ours)
    assert found.figure == "sgd/decay 0/val_accuracy"
    with pytest.raises(ValueError, match="decay 0"):
        compared([published(*row)], ours)


def test_a_whole_run_is_a_row():
    entries = [published("plain", "test_accuracy"), published("other", "test_accuracy")]
    ours = results(("", "", "test_accuracy"))
    assert compared(entries, ours) == []
    (found,) = compared(entries, ours, row="plain")
    assert (found.row, found.figure) == ("plain", "test_accuracy")


def test_settings_tell_which_row_a_run_is():
    rows = (("plain", {"hidden": (300,), "batch_norm": False}), ("any", {}))
    assert published_row(rows, {"hidden": [300], "batch_norm": False}) == "plain"
    assert published_row(rows, {"hidden": [100], "batch_norm": False}) == "any"
    assert published_row(rows[:1], {}) == ""


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({}, "agrees"),
        ({"is_demo": True}, "demo"),
        ({"images": 450}, "other"),
        ({"classes": 10}, "other"),
    ],
)
def test_other_images_compare_with_nothing(data, word):
    ours = results(("", "plain", "val_accuracy"), **data)
    (found,) = compared([published("plain", "val_accuracy")], ours)
    assert found.verdict == word


def test_bad_images_are_images_too_and_faces_are_any_number():
    data = results(images=450)["data"]
    assert not is_published(data, "artists")
    assert is_published({**data, "num_bad": 1}, "artists")
    assert is_published({**data, "classes": ["x"] * 40}, "faces")
    assert not is_published({**data, "classes": ["x"] * 6}, "faces")


def test_figures_that_are_not_finite_are_left_out():
    ours = results(("", "blur", "val_accuracy"), mean=None)
    assert compared([published("blur", "val_accuracy")], ours) == []
