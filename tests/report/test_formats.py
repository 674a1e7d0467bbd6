"""How figures are written."""

import math

import pytest

from jaxvision.report.formats import (
    format_count,
    format_duration,
    format_figure,
    format_mean_sd,
    format_names,
    shorten,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9124, ".912"),
        (1.0, "1.000"),
        (0.0, ".000"),
        (-0.02, "-.020"),
        (1.25, "1.250"),
        (41.321, "41.32"),
        (512.06, "512.1"),
        (1520.4, "1520"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_figure(value: float | None, text: str) -> None:
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (0.912, 0.0081, ".912 ± .008"),
        (1.0, 0.0, "1.000 ± .000"),
        (512.06, 3.25, "512.1 ± 3.2"),
        (0.912, None, ".912"),
        (None, None, "–"),
        (math.nan, math.nan, "–"),
    ],
)
def test_mean_and_sd(mean: float | None, sd: float | None, text: str) -> None:
    assert format_mean_sd(mean, sd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.42, "8.4 s"),
        (59.96, "1:00"),
        (125, "2:05"),
        (3599.7, "1:00:00"),
        (3725, "1:02:05"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_count() -> None:
    counts = [format_count(number, "seed") for number in (0, 1, 2)]
    assert counts == ["0 seeds", "1 seed", "2 seeds"]


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("short", 10, "short"),
        ("john robert cozens", 12, "john rob…ens"),
        ("two\nlines", 20, "two lines"),
        ("exactly ten", 11, "exactly ten"),
    ],
)
def test_shorten(text: str, limit: int, short: str) -> None:
    assert shorten(text, limit) == short
    assert len(shorten(text, limit)) <= limit


def test_names_are_on_one_line_and_short() -> None:
    assert format_names(["a\x1b[31m", "b\nc", "d  e "]) == "a\\x1b[31m, b\\nc, d  e "
    long = format_names(["x" * 500, "y" * 255])
    assert len(long) == 60 + 2 + 60
    many = format_names([f"class {i}" for i in range(1000)])
    assert many.endswith("class 9, …, class 999 (1000 in all)")
    assert many.count(",") == 11
