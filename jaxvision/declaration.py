"""What an experiment declares: a question, named recipes, and what its report shows.

    EXPERIMENT = Experiment(
        name="part1_pooling",
        section="1.3",
        title="Max pooling",
        question="What does max pooling change?",
        dataset="artists",
        tables={"pooling": Table({"none": PLAIN, "kernel 2": PLAIN.replace(...)})},
        sweep=True,
    )

Importing this imports no JAX, so that a command can show its settings at once.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxvision.data.config import DataConfig, DemoKind
from jaxvision.data.splits import SplitConfig
from jaxvision.settings import Recipe, RunConfig

if TYPE_CHECKING:
    from jaxvision.data.dataset import Dataset

DatasetName = Literal["artists", "faces", "prado", "comics"]

DEMO_SETS: dict[DatasetName, DemoKind] = {
    "artists": "paintings", "faces": "faces", "prado": "paintings", "comics": "comics",
}  # fmt: skip
"""The drawn set that stands in for each data set where no folder is given."""


@dataclasses.dataclass(frozen=True)
class SearchRange:
    """Values that tuning may give a setting: whole numbers, if both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether it is the ratio of two values that counts, not their difference."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Recipes that one question compares.

    recipes: by the names of the rows; published figures are looked up by them.
    about: what is compared, in a sentence or two.
    reference: the row that the others change something of; None: the first.
    save: rows of a sweep whose networks are kept, for `evaluate` and others.
    """

    recipes: Mapping[str, Recipe]
    about: str = ""
    reference: str | None = None
    save: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and its place among the other experiments."""

    name: str
    """Of its module and its folders."""
    section: str
    """Place in the assignment or report; published figures are looked up by it."""
    title: str
    question: str
    chapter: str = "beyond"
    """Of the page of all experiments; within it they are sorted by section."""
    order: int = 0
    """Place among experiments of one section."""
    reference: str = ""
    """What was published, in words."""
    published: Sequence[Mapping[str, Any]] = ()
    """Published figures of the section: entries with `row`, `metric`, `value` and
    `source`, and `table` where several tables have the row."""
    variants: tuple[str, ...] = ()
    """Settings by which runs differ as answers: of each combination the page of all
    experiments shows one."""
    published_rows: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """For an experiment without tables: a row of `published.json` and the settings that
    make a run this row."""
    network_of: str | None = None
    """The experiment whose newest network it takes."""
    tuned_by: str | None = None
    """The experiment whose newest settings it takes."""
    takes_image: bool = False
    """Whether it takes an image too, of those that the network was measured on."""
    laptop: tuple[str, ...] = ("",)
    """Arguments of each of its runs among all experiments, with fewer seeds, epochs and
    images, for two cores."""
    full: tuple[str, ...] = ("",)
    """Arguments of each of its runs with the published settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis(Question):
    """A question about a trained network, or one without weights, that trains none.

    config: dataclass of its settings.
    run: answers; gives the run folder.
    """

    config: type
    run: Callable[[Any], Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Question):
    """A question, and the recipes that answer it."""

    dataset: DatasetName
    recipe: Recipe | None = None
    """Its fields are settings of the experiment. Without `tables` it is what is
    trained; else they are made of it."""
    tables: (
        Mapping[str, Table] | Callable[[Recipe, Any], Mapping[str, Table]] | None
    ) = None
    """By name; the name "" is that of an experiment with one table."""
    options: type | None = None
    """Dataclass of further settings, for `tables` and `sections`."""
    sweep: bool = False
    """Many small networks, all at once: figures are read from the learning curves, and
    finished rows are kept and used again by every experiment that has them."""
    split: SplitConfig = SplitConfig()
    seeds: tuple[int, ...] = (0, 1, 2)
    folds: int | None = None
    """Cross-validation with this many folds; None: none."""
    measure_train: bool = False
    """Whether networks are measured on their training images too, because figures of
    those were published."""
    sections: Callable[[Any], Sequence[Any]] | None = None
    """Further sections of the report."""
    check: "Callable[[Dataset, Any], None] | None" = None
    """Raises `InputError` where the options do not suit the images."""
    search_space: Mapping[str, SearchRange] = dataclasses.field(default_factory=dict)
    """What `tune` may vary, by setting; names that the recipe has not are options of
    the network."""
    fixed: tuple[str, ...] = ()
    """Settings of the recipe that the tables decide."""
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Setting -> another name of its flag."""

    def tables_of(self, recipe: Recipe | None, options: Any = None) -> dict[str, Table]:
        """The tables that a run trains, by name."""
        if self.tables is None:
            assert recipe is not None
            return {"": Table({"": recipe})}
        if callable(self.tables):
            assert recipe is not None
            return dict(self.tables(recipe, options))
        return dict(self.tables)


def default_config(experiment: Experiment) -> RunConfig:
    """The settings of an experiment where none is given."""
    data = DataConfig(split=experiment.split, folds=experiment.folds)
    return RunConfig(
        data=data, seeds=experiment.seeds, measure_train=experiment.measure_train
    )
