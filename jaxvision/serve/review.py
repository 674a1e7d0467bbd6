"""The labels of the data set, the most doubtful first, and what a person says of them.

Nothing happens to the images: what a person says goes into a CSV, as a whole at each
mark, which the setting `data.corrections` takes.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.corrections import (
    ACTIONS,
    Correction,
    read_corrections,
    write_corrections,
)
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.splits import merge_groups
from jaxvision.errors import InputError
from jaxvision.label_errors import (
    likely_wrong,
    out_of_fold_probabilities,
    suspicion_order,
)
from jaxvision.serve.survey import Survey
from jaxvision.storage import check_replaceable

PAGE = 24
"""Images that are shown at once; a group of copies is not parted."""

OTHERS = 3
"""Other classes that are offered for an image."""


class Review:
    """Marks, and the order in which images are looked at."""

    def __init__(self, path: Path) -> None:
        """
        Args:
          path: of the CSV; what is in it is taken over, and lines of images that the
            data set does not have are left in it.

        Raises:
          InputError: it is there, and no such CSV; or it cannot be written there.
        """
        check_replaceable(path)
        self.path = path
        self._marks: dict[str, Correction] = {}
        if path.exists():
            self._marks = {row.path: row for row in read_corrections(path)}
        self._found: _Found | None = None

    def begin(self, survey: Survey) -> None:
        """Judges every label; takes seconds."""
        self._found = _Found.of(survey)

    def list(self, order: str, start: int) -> dict[str, Any]:
        """Images in an order, for the page.

        Args:
          order: "doubt": the most doubtful label first; "copies": identical and nearly
            identical images, group by group.
          start: how many of the order came before.

        Raises:
          InputError: no such order, or nothing is judged yet.
        """
        found = self._found
        if found is None:
            raise InputError("the labels are not judged yet")
        if order not in found.orders:
            raise InputError(
                f"no order {order!r}; there are: {', '.join(found.orders)}"
            )
        groups = found.orders[order]
        items: list[dict[str, Any]] = []
        for number, group in enumerate(groups[start:], start):
            if len(items) >= PAGE:
                break
            items += [
                {**found.describe(index), "group": number, "mark": self._mark(index)}
                for index in group
            ]
            start = number + 1
        return {
            "items": items,
            "next": start if start < len(groups) else None,
            "groups": len(groups),
            "likely_wrong": int(found.wrong.sum()),
            **self.tally(),
        }

    def mark(self, index: int, action: str, label: int) -> dict[str, Any]:
        """Notes what a person says of an image, and writes all of it.

        Args:
          index: of the image.
          action: of `ACTIONS`, or "" to take the mark away.
          label: number of the right class, with the action "label".

        Raises:
          InputError: no such image, action or class, or the CSV can't be written; the
            old one is then untouched.
        """
        if self._found is None:
            raise InputError("the data set is not read yet")
        dataset = self._found.survey.dataset
        if not 0 <= index < len(dataset.images):
            raise InputError(f"no image {index}")
        if action not in (*ACTIONS, ""):
            raise InputError(f"no action {action!r}; there are: {', '.join(ACTIONS)}")
        if not 0 <= label < len(dataset.classes):
            raise InputError(f"no class {label}")
        marks, path = dict(self._marks), dataset.images[index]
        marks.pop(path, None)
        for known in ACTIONS:
            if action == known:
                right = dataset.classes[label] if known == "label" else ""
                marks[path] = Correction(path, known, right, dataset.digests[index])
        write_corrections(self.path, marks.values())
        self._marks = marks
        return {"mark": self._mark(index), **self.tally()}

    def tally(self) -> dict[str, Any]:
        """How many marks there are, and in which file."""
        return {"marked": len(self._marks), "file": str(self.path)}

    def _mark(self, index: int) -> dict[str, str] | None:
        assert self._found is not None
        mark = self._marks.get(self._found.survey.dataset.images[index])
        return None if mark is None else {"action": mark.action, "label": mark.label}


@dataclasses.dataclass(frozen=True)
class _Found:
    """What is known of the labels.

    probabilities: `[N, K]`, by heads that have not seen the image.
    wrong: `[N]` bool, whether the label is likely wrong.
    orders: by name, groups of indices.
    alike: index -> how it is like the others of its group of copies.
    """

    survey: Survey
    probabilities: np.ndarray
    wrong: np.ndarray
    orders: dict[str, list[list[int]]]
    alike: dict[int, str]

    @classmethod
    def of(cls, survey: Survey) -> "_Found":
        dataset = survey.dataset
        identical, copies = dataset.groups, _copies(dataset)
        probabilities = out_of_fold_probabilities(
            survey.features,
            dataset.labels,
            len(dataset.classes),
            images=dataset.images,
            groups=merge_groups([*identical, *copies]),
        )
        order = suspicion_order(probabilities, dataset.labels)
        alike = {
            index: "identical"
            if len({dataset.digests[other] for other in group}) == 1
            else "nearly identical"
            for group in copies
            for index in group
        }
        return cls(
            survey,
            probabilities,
            likely_wrong(probabilities, dataset.labels),
            {"doubt": [[int(index)] for index in order], "copies": copies},
            alike,
        )

    def describe(self, index: int) -> dict[str, Any]:
        """An image for the page: its label's probability, and other classes."""
        classes = self.survey.dataset.classes
        row, label = self.probabilities[index], self.survey.dataset.labels[index]
        others = [k for k in np.argsort(-row, kind="stable") if k != label][:OTHERS]
        return {
            **self.survey.describe(index),
            "probability": float(row[label]),
            "others": [
                {"label": classes[k], "probability": float(row[k])} for k in others
            ],
            "wrong": bool(self.wrong[index]),
            "alike": self.alike.get(index, ""),
        }


def _copies(dataset: DecodedDataset) -> list[list[int]]:
    """Groups of indices of images that are identical or nearly so: those of different
    labels first."""
    index_of = {path: index for index, path in enumerate(dataset.images)}
    pairs: list[Sequence[str]] = [
        *dataset.duplicates,
        *((pair.image, pair.other) for pair in dataset.similar),
    ]
    groups = merge_groups([index_of[path] for path in pair] for pair in pairs)
    return sorted(groups, key=lambda group: len(set(dataset.labels[group])) == 1)
