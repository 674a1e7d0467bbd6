"""Which of our figures stand beside which published ones, and the verdicts."""

import math

import pytest

from jaxvision.report.compare import compare, verdict


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


def published(row, metric, value=0.5):
    return {"row": row, "metric": metric, "value": value, "source": "Niaz, 1.2"}


def results(*names, is_demo=False, mean=0.52, split="val"):
    figure = {"mean": mean, "sd": 0.02, "n": 3, "split": split}
    return {"data": {"is_demo": is_demo}, "figures": dict.fromkeys(names, figure)}


@pytest.mark.parametrize(
    "name",
    ["dropout/dropout 0.1/val_accuracy", "dropout 0.1/val_accuracy", "dropout 0.1"],
)
def test_figures_are_found_by_row_and_metric(name):
    other = "dropout/dropout 0/val_accuracy"
    (found,) = compare([published("dropout 0.1", "val_accuracy")], results(other, name))
    assert (found.figure, found.verdict, found.n) == (name, "agrees", 3)


def test_a_whole_run_is_a_row():
    entries = [published("plain", "test_accuracy"), published("other", "test_accuracy")]
    ours = results("test_accuracy", split="test")
    assert compare(entries, ours) == []
    (found,) = compare(entries, ours, row="plain")
    assert (found.row, found.figure) == ("plain", "test_accuracy")


def test_an_accuracy_stands_beside_none_of_another_split():
    assert compare([published("blur 2", "test_accuracy")], results("blur 2")) == []


def test_drawn_images_compare_with_nothing():
    (found,) = compare(
        [published("blur 2", "val_accuracy")], results("blur 2", is_demo=True)
    )
    assert found.verdict is None


def test_figures_that_are_not_finite_are_left_out():
    entry = published("blur 2", "val_accuracy")
    assert compare([entry], results("blur 2", mean=None)) == []
