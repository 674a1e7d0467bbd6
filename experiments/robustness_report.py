"""A network of several seeds under changed images: measured, drawn and written."""

import dataclasses
import json
import math
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.checkpoints import load_trained
from experiments.tables import apart
from jaxvision import plotting
from jaxvision.classifier import Classifier, ModelCard, seed_folders
from jaxvision.data.dataset import Dataset
from jaxvision.data.transforms import TRANSFORMS
from jaxvision.errors import InputError
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure, format_mean_sd
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder
from jaxvision.robustness import (
    ASSIGNMENT,
    BASELINE,
    RobustnessRow,
    measure_robustness,
    transformed,
)

PUBLISHED = Path(__file__).with_name("published.json")
"""Figures of the assignment's reports."""


@dataclasses.dataclass(frozen=True)
class SeedRobustness:
    """One seed of a network.

    seed: of its training.
    images: paths of those it was measured on.
    rows: see `measure_robustness`.
    """

    seed: int
    images: frozenset[str]
    rows: list[RobustnessRow]


@dataclasses.dataclass(frozen=True)
class NetworkRobustness:
    """All seeds of a network, and the best of them to draw images with.

    label: its name in figures and tables.
    split: the part of the images it was measured on.
    classifier, dataset: of the seed with the highest accuracy on unchanged images.
    """

    label: str
    folder: Path
    split: str
    transforms: tuple[str, ...]
    seeds: tuple[SeedRobustness, ...]
    classifier: Classifier
    dataset: Dataset

    def accuracies(self, transform: str) -> np.ndarray:
        """`[S, n]`: a row a seed, a column a strength."""
        return np.array(
            [
                [row.accuracy for row in seed.rows if row.transform == transform]
                for seed in self.seeds
            ]
        )

    def baseline(self) -> Measurement:
        """Accuracy on unchanged images."""
        return self._measurement("unchanged", self.accuracies(BASELINE)[:, 0])

    def of_transform(self, transform: str) -> Measurement:
        """Mean accuracy over the strengths of a transform."""
        return self._measurement(transform, self.accuracies(transform).mean(axis=1))

    def of_strength(self, transform: str, strength: float) -> Measurement:
        """Accuracy under one transform at one strength."""
        column = TRANSFORMS[transform].strengths.index(strength)
        name = f"{transform} {strength:g}"
        return self._measurement(name, self.accuracies(transform)[:, column])

    def overall(self) -> Measurement:
        """Mean over all transforms, each with the same weight."""
        means = [self.accuracies(name).mean(axis=1) for name in self.transforms]
        return self._measurement("mean over all changes", np.mean(means, axis=0))

    def find_image(self, path: str | None) -> int:
        """Index of an image in `dataset`.

        None: the first of the split that is classified correctly, so that the contact
        sheet shows what makes it unrecognizable; the first of all if there is none.

        Raises:
          InputError: there is no image of that path.
        """
        if path is None:
            indices = self.dataset.splits[self.split]
            _, logits = self.classifier.evaluate(self.dataset, self.split)
            right = logits.argmax(-1) == self.dataset.labels[indices]
            return int(indices[right.argmax()])
        if path not in self.dataset.images:
            raise InputError(
                f"--image {path}: {self.dataset.root} has no such image; give a "
                f"path within it, such as {self.dataset.images[0]}"
            )
        return self.dataset.images.index(path)

    def _measurement(self, name: str, values: np.ndarray) -> Measurement:
        seeds = [seed.seed for seed in self.seeds]
        return Measurement(name, values.tolist(), seeds, split=self.split)


def measure_network(
    label: str,
    folder: Path,
    *,
    split: str,
    root: Path | None = None,
    transforms: Sequence[str] = ASSIGNMENT,
    seed: int = 0,
    seeds: Collection[int] | None = None,
) -> NetworkRobustness:
    """Measures each seed of a training run on its own split.

    Args:
      label: name of the network in figures and tables.
      folder: checkpoint folder of the run, or of one of its seeds.
      split: "train", "val" or "test".
      root: of the images, where they have moved.
      transforms, seed: as in `measure_robustness`.
      seeds: of the training run, those to measure; None: all.

    Raises:
      InputError: no finished checkpoint there, other classes, or an empty split.
    """
    measured: list[SeedRobustness] = []
    best: tuple[Classifier, Dataset] | None = None
    for seed_folder in seed_folders(folder):
        if seeds is not None and ModelCard.read(seed_folder).seed not in seeds:
            continue
        classifier, dataset = load_trained(seed_folder, root)
        name = f"{label}, seed {classifier.card.seed}"
        with Progress(name, unit="changed images") as progress:
            rows = measure_robustness(
                classifier,
                dataset,
                split,
                transforms=transforms,
                seed=seed,
                progress=progress,
            )
        if best is None or rows[0].accuracy > max(s.rows[0].accuracy for s in measured):
            best = classifier, dataset
        images = frozenset(dataset.images[i] for i in dataset.splits[split])
        measured.append(SeedRobustness(classifier.card.seed, images, rows))
    return NetworkRobustness(
        label, folder, split, tuple(transforms), tuple(measured), *best
    )


def write_robustness(
    run: RunFolder,
    networks: Sequence[NetworkRobustness],
    *,
    image: int,
    seed: int,
    began: float,
) -> None:
    """Writes table, figures, results and report of one network or of two.

    Args:
      run: folder, with its config.
      networks: of the same classes, measured under the same transforms.
      image: index in the first network's data set, for the contact sheet.
      seed: of the changes.
      began: `time.monotonic()` at the start.
    """
    first = networks[0]
    run.write_csv(
        "robustness",
        ["network", "seed", *(f.name for f in dataclasses.fields(RobustnessRow))],
        [
            [network.label, measured.seed, *dataclasses.astuple(row)]
            for network in networks
            for measured in network.seeds
            for row in measured.rows
        ],
    )
    sections = [
        markdown.Section("What it was invariant to", [_answer(n) for n in networks]),
        _curves_section(run, networks),
        *(_table_section(network) for network in networks),
    ]
    if len(networks) > 1:
        sections.insert(1, _comparison_section(*networks))
    sections += [
        _published_section(networks),
        _sheet_section(run, first, image, seed),
    ]
    dataset = first.dataset
    run.write_results(
        measurements(networks),
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
    )
    headline = [m.name for n in networks for m in _named(networks, n, _summary(n))]
    markdown.write_report(
        run,
        title="Robustness to changed images",
        question="Which changes of an image does the network take no notice of, and "
        "which make it fail?",
        sections=sections,
        headline=headline,
    )


def measurements(networks: Sequence[NetworkRobustness]) -> list[Measurement]:
    """Every figure by name: `unchanged`, `mean over all changes`, each transform's mean
    over its strengths, `blur`, and each strength, `blur 2`. Those of all networks but
    the first begin with its label, `compared: blur 2`."""
    return [
        measurement
        for network in networks
        for measurement in _named(
            networks,
            network,
            [
                *_summary(network),
                *(
                    network.of_strength(name, strength)
                    for name in network.transforms
                    for strength in TRANSFORMS[name].strengths
                ),
            ],
        )
    ]


def _summary(network: NetworkRobustness) -> list[Measurement]:
    means = [network.of_transform(name) for name in network.transforms]
    return [network.baseline(), network.overall(), *means]


def _named(
    networks: Sequence[NetworkRobustness],
    network: NetworkRobustness,
    figures: Sequence[Measurement],
) -> list[Measurement]:
    if network is networks[0]:
        return list(figures)
    return [
        dataclasses.replace(figure, name=f"{network.label}: {figure.name}")
        for figure in figures
    ]


def _answer(network: NetworkRobustness) -> markdown.Text:
    """The assignment's question, answered from the figures."""
    base = network.baseline()
    means = {name: network.of_transform(name).mean for name in network.transforms}
    ordered = sorted(means, key=lambda name: -means[name])

    def listed(names: Sequence[str]) -> str:
        return ", ".join(f"{_words(n)} ({format_figure(means[n])})" for n in names)

    few = min(3, -(-len(ordered) // 2))
    most = ordered[-few:][::-1]
    return markdown.Text(
        f"**{markdown.escape(network.label)}**, {_count(network)}: "
        f"{format_mean_sd(base.mean, base.sd)} on unchanged images. "
        f"Mean accuracy over the strengths of a change was highest under "
        f"{listed(ordered[:few])} and lowest under {listed(most)}."
    )


def _count(network: NetworkRobustness) -> str:
    """`91 validation images, 5 seeds`."""
    count, seeds = len(network.seeds[0].images), len(network.seeds)
    name = plotting.SPLITS[network.split][0]
    return f"{count} {name} images, {seeds} seed{'s' if seeds > 1 else ''}"


def _comparison_section(
    first: NetworkRobustness, second: NetworkRobustness
) -> markdown.Section:
    # Seeds whose images are the same make pairs, whose differences vary less.
    paired = [(s.seed, s.images) for s in first.seeds] == [
        (s.seed, s.images) for s in second.seeds
    ]
    rows = []
    for one, other in zip(_summary(first), _summary(second), strict=True):
        spread = None
        if paired:
            differences = np.subtract(other.values, one.values).tolist()
            spread = dataclasses.replace(one, values=differences).sd
        difference = format_mean_sd(other.mean - one.mean, spread)
        rows.append(
            [
                _words(one.name),
                format_mean_sd(one.mean, one.sd),
                format_mean_sd(other.mean, other.sd),
                difference if difference.startswith("-") else f"+{difference}",
            ]
        )
    note = (
        "Both were measured on the same images, seed by seed; the difference is that "
        "of the pairs."
        if paired
        else "Each was measured on the images of its own splits, which differ."
    )
    header = ["images", first.label, second.label, "difference"]
    return markdown.Section(
        f"What {second.label} gains over {first.label}",
        [markdown.Table(header, rows), markdown.Text(note)],
    )


def _published_section(networks: Sequence[NetworkRobustness]) -> markdown.Section:
    ours = {figure.name: figure for figure in measurements(networks[:1])}
    rows = []
    for entry in published_figures():
        if entry["row"] in ours:
            figure = ours[entry["row"]]
            rows.append(
                [
                    _words(figure.name),
                    format_figure(entry["value"]),
                    entry["source"],
                    format_mean_sd(figure.mean, figure.sd),
                    apart(entry["value"], figure),
                ]
            )
    if not rows:
        return markdown.Section("Published figures", [markdown.Text("None.")])
    label = networks[0].label
    header = ["images", "published", "source", label, "more than 2 sd apart"]
    note = markdown.Text(
        "Published figures are of single runs on the assignment's paintings, with "
        "other networks and with changes that PyTorch drew at random, most of them up "
        "to the strength and only for a part of the images."
    )
    return markdown.Section("Published figures", [markdown.Table(header, rows), note])


def published_figures(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """Validation accuracies that were published for changed images.

    Args:
      path: JSON list of entries with `section`, `row`, `metric`, `value`, `source`;
        `row` is a name of `measurements`.

    Returns:
      Those of section 1.7; none where there is no such file.
    """
    if not path.is_file():
        return []
    return [
        entry
        for entry in json.loads(path.read_text("utf-8"))
        if entry["section"] == "1.7" and entry["metric"] == "val_accuracy"
    ]


def _curves_section(
    run: RunFolder, networks: Sequence[NetworkRobustness]
) -> markdown.Section:
    first = networks[0]
    panels = [
        plotting.TransformPanel(
            _words(name),
            TRANSFORMS[name].unit,
            TRANSFORMS[name].strengths,
            {network.label: network.accuracies(name) for network in networks},
        )
        for name in first.transforms
    ]
    figure = plotting.transform_curves(
        panels,
        {network.label: network.accuracies(BASELINE)[:, 0] for network in networks},
        chance=1 / len(first.dataset.classes),
        title=f"Accuracy on changed {plotting.SPLITS[first.split][0]} images",
        demo=first.dataset.is_demo,
    )
    run.save_figure("curves", figure)
    several = max(len(network.seeds) for network in networks) > 1
    band = " Lines are means over the seeds, bands ± 1 standard deviation."
    image = markdown.Image(
        "curves.png",
        "Accuracy over the strength of each change.",
        "Strength 0 is the unchanged image; the dotted line is the accuracy of "
        f"guessing.{band if several else ''}",
    )
    return markdown.Section("A curve for each change", [image])


def _table_section(network: NetworkRobustness) -> markdown.Section:
    """On-or-off changes beside the unchanged images, then those of five strengths."""
    base = network.baseline()
    simple = [["unchanged", format_mean_sd(base.mean, base.sd)]]
    rows = []
    for name in network.transforms:
        spreads = {
            strength: format_mean_sd(figure.mean, figure.sd)
            for strength in TRANSFORMS[name].strengths
            for figure in [network.of_strength(name, strength)]
        }
        if len(spreads) == 1:
            simple.append([_words(name), *spreads.values()])
        else:
            cells = [f"{strength:g}: {spread}" for strength, spread in spreads.items()]
            rows.append([_words(name), TRANSFORMS[name].unit, *cells])
    size = "×".join(map(str, network.classifier.card.preprocessing.size))
    error = math.sqrt(base.mean * (1 - base.mean) / len(network.seeds[0].images))
    several = ", mean ± standard deviation" if len(network.seeds) > 1 else ""
    note = markdown.Text(
        f"Accuracy on {_count(network)} of {markdown.escape(str(network.folder))}"
        f"{several}; in the second table behind its strength. The changes were made to "
        f"every image as the network sees it, at {size} pixels; where one has a "
        "direction, each image has its own, the same at all strengths. The standard "
        "error that the number of images leaves one seed is about "
        f"{format_figure(error)}. All figures are in [robustness.csv](robustness.csv)."
    )
    header = ["change", "strength in", "1 (weakest)", "2", "3", "4", "5 (strongest)"]
    tables = [markdown.Table(["images", "accuracy"], simple)]
    if rows:
        tables.append(markdown.Table(header, rows))
    return markdown.Section(f"Every figure: {network.label}", [note, *tables])


def _sheet_section(
    run: RunFolder, network: NetworkRobustness, index: int, seed: int
) -> markdown.Section:
    """The contact sheet: unchanged and on-or-off in one strip, then a strip each."""
    switches = [(BASELINE, 0.0, "unchanged")]
    strips = [("on or off", "", switches)]
    for name in network.transforms:
        places = [(name, s, f"{s:g}") for s in TRANSFORMS[name].strengths]
        if len(places) == 1:
            switches.append((name, places[0][1], _words(name)))
        else:
            strips.append((_words(name), TRANSFORMS[name].unit, places))
    dataset = network.dataset
    path, true = dataset.images[index], dataset.classes[dataset.labels[index]]

    def strip(
        name: str, unit: str, places: Sequence[tuple[str, float, str]]
    ) -> plotting.TransformRow:
        images = [
            transformed(dataset, index, transform, strength, seed=seed)
            for transform, strength, _ in places
        ]
        right = [p.label == true for p in network.classifier.predict(images)]
        labels = [label for _, _, label in places]
        return plotting.TransformRow(name, unit, labels, images, right)

    figure = plotting.transform_sheet(
        [strip(*arguments) for arguments in strips],
        title=f"{plotting.shorten(path, 60)} under every change",
        demo=dataset.is_demo,
    )
    run.save_figure("contact_sheet", figure)
    image = markdown.Image(
        "contact_sheet.png",
        f"One image, {path}, under every change at every strength.",
        f"{path} as the network sees it. Green, ✓: {network.label}, seed "
        f"{network.classifier.card.seed}, named it {true}; red, dashed, ✗: it did not.",
    )
    return markdown.Section("One image under every change", [image])


def _words(transform: str) -> str:
    return transform.replace("_", " ")
