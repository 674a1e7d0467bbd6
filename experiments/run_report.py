"""The run folder of a training experiment: figures, tables, results and report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.tables import beside_published
from jaxvision import plotting
from jaxvision.classifier import Classifier, softmax
from jaxvision.data.dataset import Dataset
from jaxvision.metrics import (
    RocCurve,
    class_metrics,
    confusion_matrix,
    roc_curve,
    wilson_interval,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure, format_mean_sd
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder
from jaxvision.training.loop import Row

GALLERY = 12
"""Images of each kind, right and wrong, in the gallery."""

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "accuracy",
    "macro_f1": "F1",
    "loss": "nats",
}
"""What is measured of every split, and its unit."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One seed, trained and measured.

    dataset: in the seed's own split.
    figures: loss and accuracy of every split that has images.
    held_out: the split that the figures and galleries show: "test", or "val" where
        nothing was set aside for the test.
    logits: `[n, K]` of its images.
    """

    seed: int
    dataset: Dataset
    classifier: Classifier
    figures: dict[str, Row]
    held_out: str
    logits: np.ndarray

    @property
    def indices(self) -> np.ndarray:
        """`[n]` of the held-out images."""
        return self.dataset.splits[self.held_out]

    @property
    def labels(self) -> np.ndarray:
        """`[n]` of the held-out images."""
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
    published: tuple[str, str] | None = None,
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
      published: section and row of `published.json` whose figures stand beside ours.
    """
    dataset = outcomes[0].dataset
    figures = measurements(outcomes)
    run.write_results(
        figures,
        data=DataSummary.of(dataset),
        seconds=seconds,
    )
    best = max(outcomes, key=lambda outcome: outcome.figures["val"]["accuracy"])
    for outcome in outcomes:
        outcome.dataset.write_splits(run.path / f"splits-seed-{outcome.seed}.csv")
        _write_predictions(run, outcome)
    run.write_csv("bad_images", ["image", "reason"], dataset.bad)
    run.write_csv("identical_images", ["images"], [[*g] for g in dataset.duplicates])
    sections = [
        markdown.Section("How it was done", [markdown.Text(notes)]),
        *([] if published is None else [_published(figures, *published)]),
        _curves(run, outcomes, best),
        _intervals(outcomes),
        *_roc(run, outcomes),
        _confusion(run, outcomes),
        _classes(outcomes),
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
            note=best.dataset.pairs_note,
        ),
        markdown.bad_images_section(dataset.bad, "bad_images.csv"),
        markdown.duplicates_section(
            dataset.duplicates, "identical_images.csv", conflicts=dataset.conflicts
        ),
        markdown.checkpoint_section(checkpoint, resume=resume),
    ]
    markdown.write_report(run, title=title, question=question, sections=sections)
    run.close()


def measurements(outcomes: Sequence[Outcome]) -> list[Measurement]:
    """Accuracies, F1 and loss of every split, a value a seed; of two classes, the area
    under the ROC curve of the held-out split."""
    seeds = [outcome.seed for outcome in outcomes]
    held_out = outcomes[0].held_out
    areas = [curve.auc for curve in _roc_curves(outcomes)]
    figures = [
        Measurement(
            f"{split}_{metric}",
            [outcome.figures[split][metric] for outcome in outcomes],
            seeds,
            unit=unit,
            split=split,
        )
        for metric, unit in METRICS.items()
        for split in ("test", "val", "train")
        if split in outcomes[0].figures
    ]
    if areas:
        name = f"{held_out}_auc"
        figures.append(Measurement(name, areas, seeds, "area", held_out))
    return figures


def _published(
    figures: Sequence[Measurement], section: str, row: str
) -> markdown.Section:
    measured = {row: {figure.name: figure for figure in figures}}
    table = beside_published(section, measured)
    return markdown.Section("Beside what was published", [table])


def _intervals(outcomes: Sequence[Outcome]) -> markdown.Section:
    """Of each seed's accuracy: what this many images can say."""
    held_out = outcomes[0].held_out
    rows = []
    for outcome in outcomes:
        correct = int(np.sum(outcome.logits.argmax(-1) == outcome.labels))
        count = len(outcome.labels)
        low, high = wilson_interval(correct, count)
        rows.append(
            [
                str(outcome.seed),
                f"{correct} of {count}",
                format_figure(correct / count),
                f"{format_figure(low)} to {format_figure(high)}",
            ]
        )
    header = ["seed", f"{held_out} images right", "accuracy", "95 % interval"]
    note = markdown.Text(
        "Wilson's interval: where the accuracy on ever more images of this kind may "
        "lie, judged by so few. The sd over seeds says how far another split and "
        "another start of the training move it."
    )
    table = markdown.Table(header, rows)
    return markdown.Section("Accuracy with its confidence interval", [table, note])


def _roc_curves(outcomes: Sequence[Outcome]) -> list[RocCurve]:
    """A curve a seed where there are two classes, with images of both."""
    if any(len(np.unique(outcome.labels)) < 2 for outcome in outcomes):
        return []
    if len(outcomes[0].dataset.classes) != 2:
        return []
    # The difference of the logits is the logit of the second class's probability.
    return [roc_curve(o.labels, o.logits[:, 1] - o.logits[:, 0]) for o in outcomes]


def _roc(run: RunFolder, outcomes: Sequence[Outcome]) -> list[markdown.Section]:
    curves = _roc_curves(outcomes)
    if not curves:
        return []
    dataset = outcomes[0].dataset
    first, second = dataset.classes
    figure = plotting.roc_curves(
        {
            f"seed {outcome.seed}: AUC {curve.auc:.4f}": (
                curve.false_positive_rate,
                curve.true_positive_rate,
            )
            for outcome, curve in zip(outcomes, curves, strict=True)
        },
        positive=second,
        title=f"ROC curve, {outcomes[0].held_out} images",
        demo=dataset.is_demo,
    )
    run.save_figure("roc_curve", figure)
    run.write_csv(
        "roc_curve",
        ["seed", "threshold", "false_positive_rate", "true_positive_rate"],
        [
            [outcome.seed, *point]
            for outcome, curve in zip(outcomes, curves, strict=True)
            for point in zip(
                curve.thresholds.tolist(),
                curve.false_positive_rate.tolist(),
                curve.true_positive_rate.tolist(),
                strict=True,
            )
        ],
    )
    image = markdown.Image(
        "roc_curve.png",
        f"Share of {second} found over the share of {first} taken for it, as the "
        "threshold moves.",
        "One curve a seed, each on its own split; every point, with the logit that is "
        "its threshold, stands in roc_curve.csv.",
    )
    return [markdown.Section("ROC curve", [image])]


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
    image = markdown.Image(
        "learning_curves.png",
        "Loss and accuracy on the training and validation images over the epochs.",
        "Training figures are taken while the network learns, with dropout and "
        "augmentation; they can lie below those of the validation images.",
    )
    return markdown.Section("Learning curves", [image])


def _confusion(run: RunFolder, outcomes: Sequence[Outcome]) -> markdown.Section:
    dataset = outcomes[0].dataset
    matrix = sum(
        confusion_matrix(o.labels, o.logits.argmax(-1), len(dataset.classes))
        for o in outcomes
    )
    figure = plotting.confusion_matrix(matrix, dataset.classes, demo=dataset.is_demo)
    run.save_figure("confusion_matrix", figure)
    image = markdown.Image(
        "confusion_matrix.png",
        "For each true class, how many images were given each name.",
        f"The {outcomes[0].held_out} images of {len(outcomes)} seed(s), counted "
        "together.",
    )
    return markdown.Section("Confusion matrix", [image])


def _classes(outcomes: Sequence[Outcome]) -> markdown.Section:
    """Precision, recall and F1 of each class, on the held-out images."""
    names = outcomes[0].dataset.classes
    each = [class_metrics(o.labels, o.logits.argmax(-1), len(names)) for o in outcomes]

    def spread(values: Sequence[float]) -> str:
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return format_mean_sd(float(np.mean(values)), sd)

    rows = [
        [
            name,
            f"{np.mean([figures.support[c] for figures in each]):g}",
            *(
                spread([getattr(figures, metric)[c] for figures in each])
                for metric in ("precision", "recall", "f1")
            ),
        ]
        for c, name in enumerate(names)
    ]
    header = ["class", "images", "precision", "recall", "F1"]
    held_out = outcomes[0].held_out
    note = markdown.Text(
        f"The {held_out} images, mean over {len(outcomes)} seed(s) ± sd. Precision: "
        "of the images named so, the share that is; recall: of the class's images, "
        "the share that is named so; F1: their harmonic mean. Balanced accuracy is "
        "the mean recall, macro F1 the mean F1: rare classes count as common ones."
    )
    return markdown.Section("Classes", [markdown.Table(header, rows), note])


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
        [dataset.image(int(indices[i])) for i in chosen],
        [
            plotting.prediction_caption(
                names[labels[i]], names[predicted[i]], float(probabilities[i].max())
            )
            for i in chosen
        ],
        [bool(predicted[i] == labels[i]) for i in chosen],
        title=f"Seed {outcome.seed}, {outcome.held_out} images: right, then the "
        "surest wrong",
        demo=dataset.is_demo,
    )
    run.save_figure("gallery", figure)
    image = markdown.Image(
        "gallery.png",
        "Images with the name the network gave, its probability and the truth.",
        "Right predictions from all classes, then the wrong ones that the network "
        "was surest of.",
    )
    return markdown.Section("Gallery", [image])


def _write_predictions(run: RunFolder, outcome: Outcome) -> None:
    dataset = outcome.dataset
    probabilities = softmax(outcome.logits)
    rows = [
        [
            dataset.images[index],
            dataset.classes[label],
            dataset.classes[int(row.argmax())],
            float(row.max()),
        ]
        for index, label, row in zip(
            outcome.indices, outcome.labels, probabilities, strict=True
        )
    ]
    header = ["image", "true", "predicted", "probability"]
    run.write_csv(f"predictions-seed-{outcome.seed}", header, rows)
