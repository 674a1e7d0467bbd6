"""Our figures beside published ones: who agrees, and by how much we are apart."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Value = float | Sequence[float]
"""A published figure, or the [lowest, highest] of several."""

Verdict = Literal["agrees", "higher", "lower", "unknown"]
"""Of our mean: within two of our standard deviations of what was published, above or
below that; unknown where there is no standard deviation, as of one seed."""

SDS = 2.0
"""This many standard deviations apart still agree."""


def verdict(value: Value, mean: float, sd: float | None) -> Verdict:
    """How our mean and standard deviation over seeds stand to a published figure."""
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


@dataclass(frozen=True)
class Comparison:
    """One published figure beside ours.

    row, metric, value, source: as published.
    figure: name of ours in `results.json`.
    mean, sd, n: ours, over n seeds.
    verdict: None where the images were drawn by code, which compares with nothing.
    """

    row: str
    metric: str
    value: Value
    source: str
    figure: str
    mean: float
    sd: float | None
    n: int
    verdict: Verdict | None


def compare(
    published: Iterable[Mapping[str, Any]],
    results: Mapping[str, Any],
    *,
    row: str | None = None,
) -> list[Comparison]:
    """Every published figure that a run has one of its own for, in published order.

    Args:
      published: entries with `row`, `metric`, `value`, `source`.
      results: of the run, as in `results.json`. Its figures are named
        `<table>/<row>/<metric>`, `<row>/<metric>`, or `<row>` for an accuracy.
      row: the row that the whole run is, whose figures are named `<metric>` alone.
    """
    figures, demo = results["figures"], results["data"]["is_demo"]
    found = []
    for entry in published:
        name = _figure_name(entry, figures, row)
        if name is None or (ours := figures[name])["mean"] is None:
            continue
        found.append(
            Comparison(
                entry["row"],
                entry["metric"],
                entry["value"],
                entry["source"],
                name,
                ours["mean"],
                ours["sd"],
                ours["n"],
                None if demo else verdict(entry["value"], ours["mean"], ours["sd"]),
            )
        )
    return found


def _figure_name(
    entry: Mapping[str, Any], figures: Mapping[str, Any], row: str | None
) -> str | None:
    wanted, metric = entry["row"], entry["metric"]
    if wanted == row and metric in figures:
        return metric
    for name, figure in figures.items():
        if name == f"{wanted}/{metric}" or name.endswith(f"/{wanted}/{metric}"):
            return name
        if name == wanted and metric == f"{figure['split']}_accuracy":
            return name
    return None
