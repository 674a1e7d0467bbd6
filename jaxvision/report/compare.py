"""Our figures beside published ones: which agree, and by how much others differ."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxvision.config import to_plain

Value = float | Sequence[float]
"""A published figure, or the [lowest, highest] of several."""

Verdict = Literal["agrees", "higher", "lower", "unknown", "other", "demo"]

VERDICTS: dict[Verdict, str] = {
    "agrees": "agrees",
    "higher": "ours is higher",
    "lower": "ours is lower",
    "unknown": "one seed",
    "other": "other data",
    "demo": "demo data",
}
"""In words. Our mean agrees within two of our standard deviations; one seed has none.
Other images than the published ones, and images drawn by code, are not compared."""

SDS = 2.0
"""This many standard deviations apart still agree."""


@dataclass(frozen=True)
class PublishedData:
    """How many classes and images the published figures are of; None: not known."""

    classes: int
    images: int | None = None


PUBLISHED_DATA: dict[str, PublishedData] = {
    "artists": PublishedData(11, 451),
    "faces": PublishedData(40),
    "prado": PublishedData(5, 2364),
    "comics": PublishedData(2, 20000),
}
"""By the name that experiments have for the data set."""


def verdict(value: Value, mean: float, sd: float | None) -> Verdict:
    """How our mean and standard deviation over seeds compare to a published figure."""
    if sd is None or not math.isfinite(sd) or not math.isfinite(mean):
        return "unknown"
    low, high = bounds(value)
    if mean < low - SDS * sd:
        return "lower"
    if mean > high + SDS * sd:
        return "higher"
    return "agrees"


def bounds(value: Value) -> tuple[float, float]:
    """Lowest and highest of a published figure."""
    low, high = value if isinstance(value, Sequence) else (value, value)
    return float(low), float(high)


def is_published(data: Mapping[str, Any], dataset: str) -> bool:
    """Whether the images are as many, of as many classes, as the published ones.

    Args:
      data: of the run, as in `results.json`.
      dataset: name in `PUBLISHED_DATA`.
    """
    known = PUBLISHED_DATA[dataset]
    images = data["num_images"] + data["num_bad"]
    return len(data["classes"]) == known.classes and known.images in (None, images)


@dataclass(frozen=True)
class Comparison:
    """One published figure beside ours.

    table, row, metric, value, source: as published.
    figure: name of ours in `results.json`.
    mean, sd, n: ours, over n seeds.
    """

    table: str
    row: str
    metric: str
    value: Value
    source: str
    figure: str
    mean: float
    sd: float | None
    n: int
    verdict: Verdict


def compare(
    published: Iterable[Mapping[str, Any]],
    results: Mapping[str, Any],
    *,
    dataset: str,
    row: str = "",
) -> list[Comparison]:
    """Every published figure that a run has one of its own for, in published order.

    Args:
      published: entries with `row`, `metric`, `value`, `source`; and `table`, where
        several tables of the run have the row.
      results: of the run, as in `results.json`.
      dataset: name in `PUBLISHED_DATA` of the images that the figures are of.
      row: the published row that the whole run is, whose figures have none.

    Raises:
      ValueError: a published figure without `table` fits several tables.
    """
    data = results["data"]
    other: Verdict | None = None
    if data["is_demo"]:
        other = "demo"
    elif not is_published(data, dataset):
        other = "other"
    found = []
    for entry in published:
        name = _figure_name(entry, results["figures"], row)
        if name is None or (ours := results["figures"][name])["mean"] is None:
            continue
        mean, sd, value = ours["mean"], ours["sd"], entry["value"]
        found.append(
            Comparison(
                ours["table"],
                entry["row"],
                entry["metric"],
                value,
                entry["source"],
                name,
                mean,
                sd,
                ours["n"],
                other or verdict(value, mean, sd),
            )
        )
    return found


def _figure_name(
    entry: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]], row: str
) -> str | None:
    names = [
        name
        for name, figure in figures.items()
        if figure["metric"] == entry["metric"]
        and (figure["row"] or row) == entry["row"]
        and entry.get("table") in (None, figure["table"])
    ]
    if len(names) > 1:
        raise ValueError(f"{entry['row']} of {entry['source']} fits {names}: name one")
    return names[0] if names else None


def published_row(
    rows: Sequence[tuple[str, Mapping[str, Any]]], settings: Mapping[str, Any]
) -> str:
    """The published row that a whole run is; "" for none.

    Args:
      rows: (row, settings that make a run this row).
      settings: of the run, as from `run_settings`.
    """
    for row, wanted in rows:
        if to_plain(wanted).items() <= {**settings}.items():
            return row
    return ""
