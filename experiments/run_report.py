"""The run folder of a training experiment: figures, tables, results and report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxvision import plotting
from jaxvision.data.dataset import Dataset
from jaxvision.inference import TrainedClassifier, softmax
from jaxvision.metrics import confusion_matrix
from jaxvision.report import markdown
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder
from jaxvision.train.loop import Row

GALLERY = 12
"""Pictures of each kind, right and wrong, in the gallery."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One seed, trained and measured.

    dataset: in the seed's own split.
    figures: loss and accuracy of every split that has pictures.
    held_out: the split that the figures and galleries show: "test", or "val" where
        nothing was set aside for the test.
    logits: `[n, K]` of its pictures.
    """

    seed: int
    dataset: Dataset
    classifier: TrainedClassifier
    figures: dict[str, Row]
    held_out: str
    logits: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """`[n]` of the held-out pictures."""
        return self.dataset.splits[self.held_out]

    @property
    def labels(self) -> np.ndarray:
        """`[n]` of the held-out pictures."""
        return self.dataset.labels[self.indices]


def write_run(
    run: RunFolder,
    checkpoint: Path,
    outcomes: Sequence[Outcome],
    *,
    title: str,
    question: str,
    notes: str,
    resume: str,
    seconds: float,
) -> None:
    """Writes everything that a finished run leaves.

    Args:
      run: folder; its history is there already.
      checkpoint: folder that `evaluate` and `predict` take.
      outcomes: one a seed.
      title, question: of the report.
      notes: Markdown on how the network was made.
      resume: the command that continues the run.
      seconds: that it took.
    """
    dataset = outcomes[0].dataset
    summary = DataSummary(
        dataset.name,
        dataset.root,
        dataset.is_demo,
        len(dataset.pictures),
        dataset.classes,
    )
    run.write_results(
        measurements(outcomes),
        data=summary,
        seconds=seconds,
        devices=[device.device_kind for device in jax.local_devices()],
    )
    best = max(outcomes, key=lambda outcome: outcome.figures["val"]["accuracy"])
    for outcome in outcomes:
        outcome.dataset.write_splits(run.path / f"splits-seed-{outcome.seed}.csv")
        _write_predictions(run, outcome)
    run.write_csv("bad_pictures", ["picture", "reason"], dataset.bad)
    run.write_csv(
        "identical_pictures", ["pictures"], [[*g] for g in dataset.duplicates]
    )
    sections = [
        markdown.Section("How it was done", [markdown.Text(notes)]),
        _curves(run, outcomes, best),
        _confusion(run, outcomes),
        _gallery(run, best),
        markdown.splits_section(
            {
                name: np.bincount(
                    best.dataset.labels[indices], minlength=len(dataset.classes)
                ).tolist()
                for name, indices in best.dataset.splits.items()
            },
            dataset.classes,
            f"splits-seed-{best.seed}.csv",
        ),
        markdown.bad_pictures_section(dataset.bad, "bad_pictures.csv"),
        markdown.duplicates_section(
            dataset.duplicates, "identical_pictures.csv", conflicts=dataset.conflicts
        ),
        markdown.checkpoint_section(checkpoint, resume=resume),
    ]
    markdown.write_report(run, title=title, question=question, sections=sections)
    run.close()


def measurements(outcomes: Sequence[Outcome]) -> list[Measurement]:
    """Accuracy and loss of every split, a value a seed."""
    seeds = [outcome.seed for outcome in outcomes]
    return [
        Measurement(
            f"{split}_{metric}",
            [outcome.figures[split][metric] for outcome in outcomes],
            seeds,
            unit="accuracy" if metric == "accuracy" else "nats",
            split=split,
        )
        for metric in ("accuracy", "loss")
        for split in ("test", "val", "train")
        if split in outcomes[0].figures
    ]


def _curves(
    run: RunFolder, outcomes: Sequence[Outcome], best: Outcome
) -> markdown.Section:
    demo = best.dataset.is_demo
    if len(outcomes) > 1:
        histories = [run.read_history(seed=outcome.seed) for outcome in outcomes]
        figure = plotting.learning_curves_seeds(
            histories, title="Learning curves", demo=demo
        )
    else:
        figure = plotting.learning_curves(
            run.read_history(seed=best.seed), title="Learning curves", demo=demo
        )
    run.save_figure("learning_curves", figure)
    picture = markdown.Picture(
        "learning_curves.png",
        "Loss and accuracy on the training and validation pictures over the epochs.",
        "Training figures are taken while the network learns, with dropout and "
        "augmentation; they can lie below those of the validation pictures.",
    )
    return markdown.Section("Learning curves", [picture])


def _confusion(run: RunFolder, outcomes: Sequence[Outcome]) -> markdown.Section:
    dataset = outcomes[0].dataset
    matrix = sum(
        confusion_matrix(o.labels, o.logits.argmax(-1), len(dataset.classes))
        for o in outcomes
    )
    figure = plotting.confusion_matrix(matrix, dataset.classes, demo=dataset.is_demo)
    run.save_figure("confusion_matrix", figure)
    picture = markdown.Picture(
        "confusion_matrix.png",
        "For each true class, how many pictures were given each name.",
        f"The {outcomes[0].held_out} pictures of {len(outcomes)} seed(s), counted "
        "together.",
    )
    return markdown.Section("Confusion matrix", [picture])


def _gallery(run: RunFolder, outcome: Outcome) -> markdown.Section:
    """The surest wrong predictions and as many right ones, spread over the classes."""
    dataset = outcome.dataset
    indices, labels = outcome.indices, outcome.labels
    probabilities = softmax(outcome.logits)
    predicted = outcome.logits.argmax(-1)
    surest = np.argsort(-probabilities.max(-1), kind="stable")
    wrong = [i for i in surest if predicted[i] != labels[i]][:GALLERY]
    right = [i for i in range(len(labels)) if predicted[i] == labels[i]]
    right = right[:: max(len(right) // GALLERY, 1)][:GALLERY]
    chosen = [*right, *wrong]
    names = dataset.classes
    figure = plotting.gallery(
        [dataset.picture(int(indices[i])) for i in chosen],
        [
            plotting.prediction_caption(
                names[labels[i]], names[predicted[i]], float(probabilities[i].max())
            )
            for i in chosen
        ],
        [bool(predicted[i] == labels[i]) for i in chosen],
        title=f"Seed {outcome.seed}, {outcome.held_out} pictures: right, then the "
        "surest wrong",
        demo=dataset.is_demo,
    )
    run.save_figure("gallery", figure)
    picture = markdown.Picture(
        "gallery.png",
        "Pictures with the name the network gave, its probability and the truth.",
        "Right predictions from all classes, then the wrong ones that the network "
        "was surest of.",
    )
    return markdown.Section("Gallery", [picture])


def _write_predictions(run: RunFolder, outcome: Outcome) -> None:
    dataset = outcome.dataset
    probabilities = softmax(outcome.logits)
    rows = [
        [
            dataset.pictures[index],
            dataset.classes[label],
            dataset.classes[int(row.argmax())],
            float(row.max()),
        ]
        for index, label, row in zip(
            outcome.indices, outcome.labels, probabilities, strict=True
        )
    ]
    header = ["picture", "true", "predicted", "probability"]
    run.write_csv(f"predictions-seed-{outcome.seed}", header, rows)
