"""All experiments, collected from the modules that declare them.

python -m experiments.catalog                             # the table of the README
"""

import dataclasses
import importlib
import pkgutil
from functools import cache

import experiments
from jaxvision.declaration import Question


@dataclasses.dataclass(frozen=True)
class Chapter:
    """Experiments on one question.

    name: short, for links; experiments name their chapter by it.
    """

    name: str
    title: str
    about: str


CHAPTERS = (
    Chapter(
        "part-1",
        "Part 1: who painted it",
        "451 paintings by 11 artists, 50×50 pixels: small convolutional networks, from "
        "the assignment's first one to the best that its questions lead to.",
    ),
    Chapter(
        "part-2",
        "Part 2: celebrity faces",
        "40 people of FaceScrub, 70 faces of each to learn from: a network on raw "
        "pixels, then one that knows ImageNet, and what they look at.",
    ),
    Chapter(
        "prado",
        "Prado: five Spanish painters",
        "2,364 images of the Prado by Goya, Bayeu, Haes, Pizarro and Ribera, 224×224 "
        "pixels: three networks from scratch, and pretrained ones.",
    ),
    Chapter(
        "comics",
        "Faces or comics",
        "20,000 images of faces and of comics drawn from them, 96×96 pixels, gray: two "
        "classes, many images.",
    ),
    Chapter(
        "beyond",
        "Beyond the assignment",
        "What the assignment and the reports did not ask.",
    ),
)
"""In the order of the page of all experiments."""


@cache
def collect() -> dict[str, Question]:
    """The `EXPERIMENT` of every module of this package, by name.

    They are in the order of their chapters, and of their sections within one: what an
    experiment takes from another stands before it.
    """
    found: list[Question] = []
    for module in pkgutil.iter_modules(experiments.__path__):
        declared = importlib.import_module(f"experiments.{module.name}")
        if hasattr(declared, "EXPERIMENT"):
            found.append(declared.EXPERIMENT)
    places = {chapter.name: place for place, chapter in enumerate(CHAPTERS)}
    found.sort(key=lambda one: (places[one.chapter], one.section, one.order, one.name))
    return {one.name: one for one in found}


def table() -> str:
    """The experiments of each chapter, as a table in Markdown."""
    rows = []
    for chapter in CHAPTERS:
        names = [
            f"[{name}](experiments/{name}.py)"
            for name, experiment in collect().items()
            if experiment.chapter == chapter.name
        ]
        rows.append(f"| {chapter.title} | {', '.join(names)} |")
    header = ["| chapter | `python -m experiments.NAME` |", "|---|---|"]
    return "\n".join([*header, *rows])


if __name__ == "__main__":
    print(table())
