"""What was published: every figure that the assignment's reports give."""

import json
from functools import cache
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_name("published.json")
"""Section, table where several have the row, row, metric, value (or [lowest, highest])
and source of each figure."""

SOURCES = (
    "Niaz: P. P. Niaz, “Convolutional Neural Networks for Artist and Celebrity "
    "Detection”, Koç University. Gözpınar: C. Gözpınar, “Assignment 2 Report”, "
    "COMP541, Koç University, 2022. Their figures are of single runs on 91 validation "
    "images unless said otherwise; such a run has itself a standard error of about "
    ".05. Richter: J. P. Richter, “Image Classification with Convolutional Neural "
    "Networks”, Università degli Studi di Milano, 2024, on the Prado's paintings. "
    "“Face/comic recognizer”: project of the course Algorithms for massive datasets."
)


def published(section: str) -> tuple[dict[str, Any], ...]:
    """The published figures of a section of the assignment or of a report."""
    return tuple(entry for entry in _entries() if entry["section"] == section)


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(PUBLISHED.read_text("utf-8")))
