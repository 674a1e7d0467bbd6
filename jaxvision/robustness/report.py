"""Trained networks of several seeds on changed images: a run folder.

run = robustness(RobustnessConfig(Path("checkpoints/part1_tuning/TIME")))
"""

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxvision import plotting
from jaxvision.classifier import (
    Classifier,
    load_classifier,
    load_training_data,
    seed_folders,
)
from jaxvision.config import check
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.transforms import TRANSFORMS
from jaxvision.errors import InputError
from jaxvision.report import markdown
from jaxvision.report.formats import format_count, format_figure, format_mean_sd
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    print_run,
)
from jaxvision.results import Results
from jaxvision.robustness.config import RobustnessConfig
from jaxvision.robustness.measure import (
    ASSIGNMENT,
    BASELINE,
    RobustnessRow,
    measure_robustness,
    strengths_of,
    transformed,
)

UNCHANGED, OVERALL = "unchanged", "mean over all changes"
"""Names of figures, beside those of transforms (`blur`) and strengths (`blur 2`)."""


@dataclasses.dataclass(frozen=True)
class NetworkRobustness:
    """All seeds of a network under changed images.

    label: its name in figures and tables.
    split: the part of the images it was measured on.
    rows: seed -> what `measure_robustness` gave.
    images: for each seed, the paths of those it was measured on.
    classifier, dataset: of the seed with the highest accuracy on unchanged images, to
        draw images with.
    """

    label: str
    split: str
    transforms: tuple[str, ...]
    rows: Mapping[int, Sequence[RobustnessRow]]
    images: tuple[frozenset[str], ...]
    classifier: Classifier
    dataset: DecodedDataset

    def accuracies(self, transform: str) -> np.ndarray:
        """`[S, n]`: a row a seed, a column a strength."""
        return np.array(
            [
                [row.accuracy for row in rows if row.transform == transform]
                for rows in self.rows.values()
            ]
        )

    @cached_property
    def summary(self) -> dict[str, Measurement]:
        """By name: unchanged images; the mean over all transforms, each with the same
        weight; and each transform's mean over its strengths."""
        means = {name: self.accuracies(name).mean(axis=1) for name in self.transforms}
        values = {
            UNCHANGED: self.accuracies(BASELINE)[:, 0],
            OVERALL: np.mean(list(means.values()), axis=0),
            **means,
        }
        return {name: self._measurement(name, each) for name, each in values.items()}

    @cached_property
    def strengths(self) -> dict[tuple[str, float], Measurement]:
        """(transform, strength) -> accuracy."""
        return {
            (name, strength): self._measurement(f"{name} {strength:g}", column)
            for name in self.transforms
            for strength, column in zip(
                TRANSFORMS[name].strengths, self.accuracies(name).T, strict=True
            )
        }

    def find_image(self, path: str | None) -> int:
        """Index of an image in `dataset`.

        None: the first of the split that is classified correctly, so that the contact
        sheet shows what makes it unrecognizable; the first of all if there is none.

        Raises:
          InputError: there is no image of that path.
        """
        dataset = self.dataset
        if path is None:
            found = self.classifier.evaluate(dataset, self.split)
            right = found.predictions == found.labels
            return int(dataset.splits[self.split][right.argmax()])
        if path not in dataset.images:
            raise InputError(
                f"{dataset.root} has no such image; give a path within it, such as "
                f"{dataset.images[0]}",
                setting="image",
                value=path,
            )
        return dataset.images.index(path)

    def _measurement(self, name: str, values: np.ndarray) -> Measurement:
        return Measurement(
            name, values.tolist(), list(self.rows), split=self.split, row=name,
            metric=f"{self.split}_accuracy",
        )  # fmt: skip


def robustness(config: RobustnessConfig) -> Path:
    """Measures one trained network, or two, under changed images; writes table,
    figures, results and report.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: no finished checkpoint there, other classes, an empty split, or a
        transform or image that there is not; before the run folder is made.
    """
    began = time.monotonic()
    check(config)
    transforms = config.transforms or ASSIGNMENT
    strengths_of(transforms)
    checkpoints = {config.label: config.checkpoint}
    if config.compare is not None:
        if config.compare_label == config.label:
            raise InputError(
                "give it another name",
                setting="compare_label",
                value=config.compare_label,
            )
        checkpoints[config.compare_label] = config.compare
    networks = [
        measure_network(
            label,
            seed_folders(folder),
            split=config.split,
            root=config.root,
            transforms=transforms,
            seed=config.seed,
        )
        for label, folder in checkpoints.items()
    ]
    if networks[0].dataset.classes != networks[-1].dataset.classes:
        raise InputError(
            "its classes are not those of `checkpoint`",
            setting="compare",
            value=config.compare,
        )
    image = networks[0].find_image(config.image)
    run = RunFolder.create("robustness", root=config.runs)
    run.write_config(config)
    sections = _sections(run, networks, image=image, seed=config.seed)
    figures = [m for section in sections for m in section.measurements]
    headline = [m for m in figures if m.name.endswith((UNCHANGED, OVERALL))]
    dataset = networks[0].dataset
    run.write_results(
        figures,
        data=DataSummary.of(dataset),
        seconds=time.monotonic() - began,
        headline=[figure.name for figure in headline],
    )
    markdown.write_report(
        run,
        title="Robustness to changed images",
        question="Which changes of an image does the network take no notice of, and "
        "which make it fail?",
        sections=sections,
    )
    print_run(run, headline, is_demo=dataset.is_demo)
    return run.path


def robustness_sections(
    results: Results, rows: Collection[str] | None = None
) -> list[markdown.Section]:
    """Of an experiment whose rows are kept: its networks on changed validation images.

    Args:
      results: with options of the type `RobustnessOptions`.
      rows: one or two of its rows, by name; None: all there are.

    Raises:
      InputError: an unknown transform.
    """
    networks = [
        measure_network(
            row,
            [trial.folder for trial in trials if trial.folder is not None],
            split="val",
            root=results.dataset.root,
            transforms=results.options.transforms or ASSIGNMENT,
        )
        for (_, row), trials in results.trials.items()
        if rows is None or row in rows
    ]
    if not networks:
        return []
    image = networks[0].find_image(None)
    return _sections(results.run, networks, image=image, seed=0)


def measure_network(
    label: str,
    folders: Sequence[Path],
    *,
    split: str,
    root: Path | None = None,
    transforms: Sequence[str] = ASSIGNMENT,
    seed: int = 0,
) -> NetworkRobustness:
    """Measures each seed of a network on its own split.

    Args:
      label: name of the network in figures and tables.
      folders: checkpoint of each seed.
      split: "train", "val" or "test".
      root: of the images, where they have moved.
      transforms, seed: as in `measure_robustness`.

    Raises:
      InputError: no finished checkpoint there, other classes, or an empty split.
    """
    rows: dict[int, list[RobustnessRow]] = {}
    images: list[frozenset[str]] = []
    loaded: dict[int, tuple[Classifier, DecodedDataset]] = {}
    best = -1
    for folder in folders:
        classifier = load_classifier(folder)
        with Progress("reading images", unit="images") as progress:
            dataset = load_training_data(classifier, root, progress=progress)
        own = classifier.card.seed
        with Progress(f"{label}, seed {own}", unit="changed images") as progress:
            rows[own] = measure_robustness(
                classifier,
                dataset,
                split,
                transforms=transforms,
                seed=seed,
                progress=progress,
            )
        images.append(frozenset(dataset.images[i] for i in dataset.splits[split]))
        if best not in rows or rows[own][0].accuracy > rows[best][0].accuracy:
            best, loaded = own, {own: (classifier, dataset)}
    return NetworkRobustness(
        label, split, tuple(transforms), rows, tuple(images), *loaded[best]
    )


def _sections(
    run: RunFolder, networks: Sequence[NetworkRobustness], *, image: int, seed: int
) -> list[markdown.Section]:
    """Of one network, or of two of the same classes.

    Args:
      image: index in the first network's data set, for the contact sheet.
      seed: of the changes.
    """
    run.write_csv(
        "robustness",
        ["network", "seed", *(f.name for f in dataclasses.fields(RobustnessRow))],
        [
            [network.label, one, *dataclasses.astuple(row)]
            for network in networks
            for one, rows in network.rows.items()
            for row in rows
        ],
    )
    return [
        _curves_section(run, networks),
        *([_comparison_section(*networks)] if len(networks) > 1 else []),
        _sheet_section(run, networks[0], image, seed),
        *(_table_section(network, i > 0) for i, network in enumerate(networks)),
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
    image = markdown.Image(
        "curves.png",
        "Accuracy over the strength of each change.",
        "Strength 0 is the unchanged image; the dotted line is the accuracy of "
        "guessing. Lines are means over the seeds, bands ± 1 standard deviation.",
    )
    texts = [markdown.Text(_answer(network)) for network in networks]
    return markdown.Section("What the network is robust to", [*texts, image])


def _answer(network: NetworkRobustness) -> str:
    """The assignment's question, answered from the figures."""
    figures = network.summary
    order = sorted(network.transforms, key=lambda name: -figures[name].mean)
    few = min(3, -(-len(order) // 2))

    def listed(names: Sequence[str]) -> str:
        return ", ".join(
            f"{_words(name)} ({format_figure(figures[name].mean)})" for name in names
        )

    return (
        f"**{markdown.escape(network.label)}**: {_spread(figures[UNCHANGED])} on "
        f"unchanged images. Highest under {listed(order[:few])}; lowest under "
        f"{listed(order[-few:][::-1])}; means over the strengths."
    )


def _comparison_section(
    first: NetworkRobustness, second: NetworkRobustness
) -> markdown.Section:
    # Seeds whose images are the same make pairs, whose differences vary less.
    paired = list(first.rows) == list(second.rows) and first.images == second.images
    rows = []
    for name, one in first.summary.items():
        other, spread = second.summary[name], None
        if paired:
            differences = np.subtract(other.values, one.values).tolist()
            spread = dataclasses.replace(one, values=differences).sd
        difference = format_mean_sd(other.mean - one.mean, spread)
        signed = difference if difference.startswith("-") else f"+{difference}"
        rows.append([_words(name), _spread(one), _spread(other), signed])
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


def _sheet_section(
    run: RunFolder, network: NetworkRobustness, index: int, seed: int
) -> markdown.Section:
    """The contact sheet: unchanged and on-or-off in one strip, then a strip each."""
    dataset, classifier = network.dataset, network.classifier
    path, true = dataset.images[index], dataset.classes[dataset.labels[index]]

    def strip(
        name: str, unit: str, changes: Mapping[str, tuple[str, float]]
    ) -> plotting.ImageRow:
        images = [
            transformed(dataset, index, transform, strength, seed=seed)
            for transform, strength in changes.values()
        ]
        right = [p.label == true for p in classifier.predict(images)]
        return plotting.ImageRow(f"{name}\n{unit}", images, list(changes), right)

    switches: dict[str, tuple[str, float]] = {UNCHANGED: (BASELINE, 0.0)}
    strips = []
    for name in network.transforms:
        strengths = TRANSFORMS[name].strengths
        if len(strengths) == 1:
            switches[_words(name)] = (name, strengths[0])
        else:
            changes = {f"{s:g}": (name, s) for s in strengths}
            strips.append(strip(_words(name), TRANSFORMS[name].unit, changes))
    figure = plotting.image_grid(
        [strip("on or off", "", switches), *strips],
        title=f"{plotting.shorten(path, 60)} under every change",
        width=1.1,
        blocks=2,
        demo=dataset.is_demo,
    )
    run.save_figure("contact_sheet", figure)
    image = markdown.Image(
        "contact_sheet.png",
        f"One image, {path}, under every change at every strength.",
        f"Green, ✓: {network.label}, seed {classifier.card.seed}, predicts {true}; "
        "red, dashed, ✗: another class.",
    )
    return markdown.Section("One image under every change", [image])


def _table_section(network: NetworkRobustness, prefixed: bool) -> markdown.Section:
    """On-or-off changes beside the unchanged images, then those of five strengths.

    prefixed: whether the figures' names begin with the network's.
    """
    simple = [[UNCHANGED, _spread(network.summary[UNCHANGED])]]
    rows = []
    for name in network.transforms:
        spreads = {
            strength: _spread(network.strengths[name, strength])
            for strength in TRANSFORMS[name].strengths
        }
        if len(spreads) == 1:
            simple.append([_words(name), *spreads.values()])
        else:
            cells = [f"{strength:g}: {spread}" for strength, spread in spreads.items()]
            rows.append([_words(name), TRANSFORMS[name].unit, *cells])
    split = plotting.SPLITS[network.split][0]
    note = markdown.Text(
        f"Accuracy on {len(network.images[0])} {split} images, "
        f"{format_count(len(network.rows), 'seed')}, behind the strength. A change "
        "that has a direction has one for each image, the same at all strengths. "
        "[robustness.csv](robustness.csv) has every figure."
    )
    header = ["change", "strength in", "1 (weakest)", "2", "3", "4", "5 (strongest)"]
    tables = [markdown.Table(["images", "accuracy"], simple)]
    if rows:
        tables.append(markdown.Table(header, rows))
    figures = [*network.summary.values(), *network.strengths.values()]
    if prefixed:
        figures = [
            dataclasses.replace(figure, name=name, row=name)
            for figure in figures
            for name in [f"{network.label}: {figure.name}"]
        ]
    return markdown.Section(
        f"Every figure: {network.label}", [*tables, note], aside=True,
        measurements=figures,
    )  # fmt: skip


def _spread(figure: Measurement) -> str:
    return format_mean_sd(figure.mean, figure.sd)


def _words(name: str) -> str:
    return name.replace("_", " ")
