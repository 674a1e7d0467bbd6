"""What an experiment found: its trials, and their figures over the seeds."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxvision.classifier import Classifier, Evaluation
from jaxvision.data.dataset import DecodedDataset
from jaxvision.declaration import Experiment, Table
from jaxvision.report.run_folder import Measurement, RunFolder
from jaxvision.settings import Recipe, RunConfig
from jaxvision.training.history import val_score
from jaxvision.typing import Row


@dataclasses.dataclass(frozen=True)
class Trial:
    """One recipe, trained with one seed.

    history: a row an epoch.
    seconds: that the training took.
    folder: of its checkpoint; None: nothing was kept.
    reused: whether it was read and not trained.
    dataset, classifier, evaluations: the images in its split, the network and what it
        does on each split; of a sweep none. Cross-validation has one evaluation,
        "fold", and neither history nor classifier.
    """

    recipe: Recipe
    seed: int
    history: Sequence[Row]
    seconds: float
    folder: Path | None
    reused: bool = False
    dataset: DecodedDataset | None = None
    classifier: Classifier | None = None
    evaluations: Mapping[str, Evaluation] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> Row:
        """The epoch of the highest validation accuracy; of equal ones, the lower
        loss."""
        return max(self.history, key=val_score)

    @property
    def held_out(self) -> Evaluation:
        """On the test images, or the validation images where none were set aside."""
        return next(
            self.evaluations[split]
            for split in ("test", "val", "fold")
            if split in self.evaluations
        )


@dataclasses.dataclass(frozen=True)
class Results:
    """What an experiment found.

    Attributes:
      tables: table -> row -> the recipes' table.
      trials: (table, row) -> the trials, one a seed.
      missing: row -> why its weights are out of reach, of rows left out.
      dataset: the images, in the split of the first seed.
      run: the run folder.
      checkpoint: the folder of the networks.
    """

    experiment: Experiment
    config: RunConfig
    recipe: Recipe | None
    options: Any
    tables: Mapping[str, Table]
    trials: Mapping[tuple[str, str], Sequence[Trial]]
    missing: Mapping[str, str]
    dataset: DecodedDataset
    run: RunFolder
    checkpoint: Path

    @property
    def folds(self) -> int | None:
        """Of a cross-validation, how many; else None."""
        return self.config.data.folds

    @property
    def swept(self) -> bool:
        """Whether its networks were trained all at once, as a sweep."""
        return self.experiment.sweep and self.folds is None

    @property
    def single(self) -> bool:
        """Whether one recipe was trained, whose figures have no row's name."""
        return list(self.trials) == [("", "")]

    @cached_property
    def measurements(self) -> dict[tuple[str, str], dict[str, Measurement]]:
        """(table, row) -> metric -> measurement over the seeds.

        A measurement's own name is `<table>/<row>/<metric>`, without what is empty.
        """
        return {key: _measurements(*key, trials) for key, trials in self.trials.items()}

    @property
    def headline(self) -> str:
        """The metric that matters most."""
        first = next(iter(self.measurements.values()))
        names = ("test_accuracy", "val_accuracy", "fold_accuracy")
        return next(name for name in names if name in first)


METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "accuracy",
    "macro_f1": "F1",
    "calibration_error": "share",
    "loss": "nats",
}
"""What is measured of every split, and its unit."""


def _measurements(
    table: str, row: str, trials: Sequence[Trial]
) -> dict[str, Measurement]:
    """Metric -> measurement of one row."""
    seeds = [trial.seed for trial in trials]

    def measure(metric: str, values: Sequence[float], **about: str) -> Measurement:
        name = "/".join(filter(None, (table, row, metric)))
        return Measurement(
            name, values, seeds, table=table, row=row, metric=metric, **about
        )

    if not trials[0].evaluations:
        last = [trial.history[-1] for trial in trials]
        best = [trial.best["val_accuracy"] for trial in trials]
        return {
            "train_accuracy": measure(
                "train_accuracy", [row["train_accuracy"] for row in last], split="train"
            ),
            "val_accuracy": measure(
                "val_accuracy", [row["val_accuracy"] for row in last], split="val"
            ),
            "best_val_accuracy": measure("best_val_accuracy", best, split="val"),
            "epochs": measure(
                "epochs", [len(t.history) for t in trials], unit="epochs", split="val"
            ),
            "seconds": measure(
                "seconds", [t.seconds for t in trials], unit="s", split="train"
            ),
        }
    found = {
        f"{split}_{metric}": measure(
            f"{split}_{metric}",
            [trial.evaluations[split].row[metric] for trial in trials],
            unit=unit,
            split=split,
        )
        for metric, unit in METRICS.items()
        for split in ("test", "val", "train", "fold")
        if split in trials[0].evaluations
    }
    curves = [trial.held_out.roc_curve() for trial in trials]
    if all(curves):
        split = trials[0].held_out.split
        areas = [curve.auc for curve in curves if curve]
        found[f"{split}_auc"] = measure(f"{split}_auc", areas, unit="area", split=split)
    if not trials[0].history:
        return found
    # The median: the first epoch is compiled in.
    seconds = [
        statistics.median(row["seconds"] for row in trial.history) for trial in trials
    ]
    found["seconds_per_epoch"] = measure(
        "seconds_per_epoch", seconds, unit="s", split="train"
    )
    return found
