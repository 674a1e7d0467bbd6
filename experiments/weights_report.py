"""Part 2.3: hidden weights of perceptrons as images, side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.tables import Findings, Study
from jaxvision import plotting
from jaxvision.classifier import load_classifier
from jaxvision.data.dataset import Dataset
from jaxvision.errors import InputError
from jaxvision.explain import Network
from jaxvision.explain.images import color
from jaxvision.explain.weights import (
    hidden_weights,
    most_weighted_units,
    neighbor_correlation,
    unit_responses,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure, format_mean_sd
from jaxvision.report.run_folder import Measurement
from jaxvision.training.sweep import Run

MOST_WEIGHTED = 6
"""Most weighted units that are shown of each network."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """One trained perceptron.

    name: of its row in the table.
    network: of the first seed.
    weights: `[hidden, H, W, C]`.
    most_weighted: the units that speak most for the person, with their outgoing
        `votes`.
    units: further ones, by index.
    """

    name: str
    network: Network
    weights: np.ndarray
    most_weighted: np.ndarray
    votes: np.ndarray
    units: tuple[int, ...]

    @classmethod
    def of(cls, name: str, run: Run, label: int, units: tuple[int, ...]) -> "Shown":
        network = Network.of(load_classifier(run.folder))
        weights = hidden_weights(network)
        units = units or (0, len(weights) // 2)
        most_weighted = most_weighted_units(network, label, MOST_WEIGHTED)
        kernel = np.asarray(network.variables["params"]["head"]["logits"]["kernel"])
        return cls(
            name, network, weights, most_weighted, kernel[most_weighted, label], units
        )


def choose_person(dataset: Dataset, person: str | None) -> int:
    """Label of the class whose units are shown; None: the first.

    Raises:
      InputError: there is no such class.
    """
    if person is None:
        return 0
    if person not in dataset.classes:
        raise InputError(
            f"--person {person}: no class is called so; there are"
            f" {', '.join(dataset.classes)}"
        )
    return dataset.classes.index(person)


def add_images(
    findings: Findings, study: Study, label: int, units: tuple[int, ...]
) -> None:
    """Adds test accuracy, smoothness, and the images of weights and responses.

    Args:
      findings: with the runs of the table.
      study: that trained them.
      label: of the person.
      units: further units, by index; (): the first and the middle one.
    """
    runs = {
        name.rpartition("/")[2]: [run for _, run in several]
        for name, several in findings.runs.items()
    }
    shown = [Shown.of(name, several[0], label, units) for name, several in runs.items()]
    person = study.dataset.classes[label]
    _add_figures(findings, study, runs)
    findings.figures["hidden_weights"] = _weights_figure(study, shown, person)
    findings.figures["responses"] = _responses_figure(study, shown, label)
    seed = next(iter(study.datasets))
    findings.sections.append(_weights_section(person, seed))
    findings.sections.append(_responses_section(person))


def _weights_section(person: str, seed: int) -> markdown.Section:
    text = (
        "Each unit's weights in the shape of the image that it sees; gray is zero, "
        "and each has a scale of its own. First the units that speak most for "
        f"{markdown.escape(person)}, which are those with the largest outgoing weight "
        "to that name's logit, given beneath; then units by index, as a sample that "
        f"nobody chose. Networks of seed {seed}."
    )
    image = markdown.Image(
        "hidden_weights.png",
        "Weights of hidden units as small color images, a row a network.",
    )
    return markdown.Section(
        "2.3 hidden weights as images", [markdown.Text(text), image]
    )


def _responses_section(person: str) -> markdown.Section:
    text = (
        "The face, and what each of its values adds to the unit: weight times value. "
        "Beneath, the sum with the bias: what comes out of the unit if it is above "
        "zero."
    )
    image = markdown.Image(
        "responses.png", f"A face of {person} times the weights of hidden units."
    )
    return markdown.Section(
        "2.3 a unit's response to one face", [markdown.Text(text), image]
    )


def _add_figures(findings: Findings, study: Study, runs: dict[str, list[Run]]) -> None:
    """Test accuracy where images were set aside, and the smoothness of the weights,
    a value a seed."""
    seeds, rows = list(study.datasets), []
    has_test = bool(len(study.dataset.splits["test"]))
    for name, several in runs.items():
        classifiers = [load_classifier(run.folder) for run in several]
        smooth = [
            float(neighbor_correlation(hidden_weights(Network.of(c))).mean())
            for c in classifiers
        ]
        smoothness = Measurement(
            f"weights/{name}/neighbor_correlation", smooth, seeds, "correlation", "–"
        )
        findings.measurements.append(smoothness)
        findings.headline.append(smoothness.name)
        cells = [name]
        if has_test:
            accuracies = [c.card.recorded["test"]["accuracy"] for c in classifiers]
            test = Measurement(f"weights/{name}/test_accuracy", accuracies, seeds)
            findings.measurements.append(test)
            findings.headline.append(test.name)
            cells.append(format_mean_sd(test.mean, test.sd))
        rows.append([*cells, format_mean_sd(smoothness.mean, smoothness.sd)])
    header = ["network", *(["test accuracy"] if has_test else [])]
    header.append("correlation of neighboring weights")
    findings.sections.append(
        markdown.Section(
            "2.3 how smooth the weights are",
            [
                markdown.Table(header, rows),
                markdown.Text(
                    "Of each weight with those of the pixels to its right and below, "
                    "mean over the units: about 0 where the weights are noise, near 1 "
                    "where they form a smooth image."
                ),
            ],
        )
    )


def _weights_figure(
    study: Study, shown: Sequence[Shown], person: str
) -> plotting.Figure:
    rows = []
    for network in shown:
        units = [*network.most_weighted.tolist(), *network.units]
        captions = [f"unit {unit}" for unit in units]
        for number, vote in enumerate(network.votes):
            captions[number] += f": {format_figure(float(vote))}"
        images = list(color(network.weights[units]))
        rows.append(plotting.ImageRow(_two_lines(network.name), images, captions))
    headings = [f"top {number}" for number in range(1, MOST_WEIGHTED + 1)]
    return plotting.image_grid(
        rows,
        [*headings, *("by index" for _ in shown[0].units)],
        title=f"Hidden units: the most weighted for {person}, and by index",
        width=1.3,
        demo=study.dataset.is_demo,
    )


def _responses_figure(
    study: Study, shown: Sequence[Shown], label: int
) -> plotting.Figure:
    """The person's first test image, or training image where none was set aside."""
    dataset = next(iter(study.datasets.values()))
    order = [*dataset.splits["test"], *dataset.splits["val"], *dataset.splits["train"]]
    index = next(int(i) for i in order if dataset.labels[i] == label)
    face = dataset.image(index)
    rows = []
    for network in shown:
        units = [*network.most_weighted[:2].tolist(), *network.units]
        responses = unit_responses(network.network, face[None], units)[0]
        biases = np.asarray(
            network.network.variables["params"]["backbone"]["fc1"]["bias"]
        )
        images, captions = [face], [plotting.shorten(dataset.classes[label], 15)]
        for unit, response in zip(units, responses, strict=True):
            total = float(response.sum() + biases[unit])
            images += [color(network.weights[unit][None])[0]]
            images += [color(response[None])[0]]
            captions += [f"unit {unit}", format_figure(total)]
        rows.append(plotting.ImageRow(_two_lines(network.name), images, captions))
    most_weighted = [f"top {number}" for number in (1, 2)]
    by_index = ["by index" for _ in shown[0].units]
    headings = [h for name in (*most_weighted, *by_index) for h in (name, "× the face")]
    return plotting.image_grid(
        rows,
        ["the face", *headings],
        title=f"What units make of one face of {dataset.classes[label]}",
        width=1.3,
        demo=dataset.is_demo,
    )


def _two_lines(name: str) -> str:
    return name.replace(", ", "\n")
