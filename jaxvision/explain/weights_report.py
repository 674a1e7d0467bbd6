"""Hidden weights of perceptrons as images, side by side: sections of an experiment."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxvision import plotting
from jaxvision.classifier import Classifier, load_classifier
from jaxvision.explain.images import color
from jaxvision.explain.methods import TrainedNetwork
from jaxvision.explain.weights import (
    find_label,
    hidden_weights,
    most_weighted_units,
    neighbor_correlation,
    unit_responses,
)
from jaxvision.report import markdown
from jaxvision.report.formats import format_figure, format_mean_sd
from jaxvision.report.run_folder import Measurement
from jaxvision.results import Results

MOST_WEIGHTED = 6
"""Most weighted units that are shown of each network."""


@dataclasses.dataclass(frozen=True)
class _Shown:
    """One trained perceptron.

    name: of its row in the table.
    weights: `[hidden, H, W, C]`.
    most_weighted: the units that speak most for the person, with their outgoing
        `votes`.
    units: further ones, by index.
    """

    name: str
    network: TrainedNetwork
    weights: np.ndarray
    most_weighted: list[int]
    votes: np.ndarray
    units: tuple[int, ...]


def weights_sections(results: Results) -> list[markdown.Section]:
    """Of an experiment whose rows are perceptrons that are kept: test accuracy,
    smoothness of the weights, and the images of weights and responses.

    Args:
      results: with options of the type `WeightsOptions`.

    Raises:
      InputError: a person or a unit that there is not.
    """
    label = find_label(results.dataset, results.options.person)
    classifiers = {
        key: [load_classifier(t.folder) for t in trials if t.folder is not None]
        for key, trials in results.trials.items()
    }
    shown = [
        _show(row, several[0], label, results.options.units)
        for (_, row), several in classifiers.items()
    ]
    return [
        _smoothness_section(classifiers),
        _weights_section(results, shown, label),
        _responses_section(results, shown, label),
    ]


def _show(
    name: str, classifier: Classifier, label: int, units: tuple[int, ...]
) -> _Shown:
    network = TrainedNetwork.of(classifier)
    weights = hidden_weights(network)
    most_weighted = most_weighted_units(network, label, MOST_WEIGHTED)
    kernel = np.asarray(network.variables["params"]["head"]["logits"]["kernel"])
    votes = kernel[most_weighted, label]
    units = units or (0, len(weights) // 2)
    return _Shown(name, network, weights, most_weighted.tolist(), votes, units)


def _smoothness_section(
    classifiers: dict[tuple[str, str], list[Classifier]],
) -> markdown.Section:
    """A value a seed, and test accuracy where images were set aside."""
    measurements, rows = [], []
    for (table, row), several in classifiers.items():
        values = {
            "neighbor_correlation": [
                float(neighbor_correlation(hidden_weights(TrainedNetwork.of(c))).mean())
                for c in several
            ]
        }
        if all("test" in c.card.recorded for c in several):
            values["test_accuracy"] = [
                c.card.recorded["test"]["accuracy"] for c in several
            ]
        cells = [row]
        for metric, figures in values.items():
            measurement = Measurement(
                "/".join(filter(None, (table, row, metric))),
                figures,
                [c.card.seed for c in several],
                *(("correlation", "–") if metric == "neighbor_correlation" else ()),
                table=table,
                row=row,
                metric=metric,
            )
            measurements.append(measurement)
            cells.append(format_mean_sd(measurement.mean, measurement.sd))
        rows.append(cells)
    header = ["network", "correlation of neighboring weights", "test accuracy"]
    text = (
        "Of each weight with those of the pixels to its right and below, mean over the "
        "units: about 0 for noise, near 1 for a smooth image."
    )
    return markdown.Section(
        "How smooth the weights are",
        [markdown.Table(header[: len(rows[0])], rows), markdown.Text(text)],
        measurements=measurements,
    )


def _weights_section(
    results: Results, shown: Sequence[_Shown], label: int
) -> markdown.Section:
    person = results.dataset.classes[label]
    rows = []
    for one in shown:
        units = [*one.most_weighted, *one.units]
        captions = [f"unit {unit}" for unit in units]
        for number, vote in enumerate(one.votes):
            captions[number] += f": {format_figure(float(vote))}"
        images = list(color(one.weights[units]))
        rows.append(plotting.ImageRow(_two_lines(one.name), images, captions))
    figure = plotting.image_grid(
        rows,
        _headings(MOST_WEIGHTED, shown),
        title=f"Hidden units: the most weighted for {person}, and by index",
        width=1.3,
        demo=results.dataset.is_demo,
    )
    results.run.save_figure("hidden_weights", figure)
    image = markdown.Image(
        "hidden_weights.png",
        "Weights of hidden units as small color images, a row a network.",
        f"Gray is zero; each image has a scale of its own. First the units with the "
        f"largest weight to the logit of {person}, given beneath; then units by index. "
        f"Seed {results.config.seeds[0]}.",
    )
    return markdown.Section("Hidden weights as images", [image])


def _responses_section(
    results: Results, shown: Sequence[_Shown], label: int
) -> markdown.Section:
    """The person's first test image, or training image where none was set aside."""
    dataset = results.dataset
    person = dataset.classes[label]
    order = np.concatenate([dataset.splits[name] for name in ("test", "val", "train")])
    face = dataset.image(int(order[dataset.labels[order] == label][0]))
    rows = []
    for one in shown:
        units = [*one.most_weighted[:2], *one.units]
        responses = unit_responses(one.network, face[None], units)[0]
        biases = np.asarray(one.network.variables["params"]["backbone"]["fc1"]["bias"])
        images, captions = [face], [plotting.shorten(person, 15)]
        for unit, response in zip(units, responses, strict=True):
            total = float(response.sum() + biases[unit])
            images += [color(one.weights[unit][None])[0], color(response[None])[0]]
            captions += [f"unit {unit}", format_figure(total)]
        rows.append(plotting.ImageRow(_two_lines(one.name), images, captions))
    headings = [h for name in _headings(2, shown) for h in (name, "× the face")]
    figure = plotting.image_grid(
        rows,
        ["the face", *headings],
        title=f"What units make of one face of {person}",
        width=1.3,
        demo=dataset.is_demo,
    )
    results.run.save_figure("responses", figure)
    image = markdown.Image(
        "responses.png",
        f"A face of {person} times the weights of hidden units.",
        "What each value of the face adds to the unit, weight times value; beneath, "
        "the sum with the bias.",
    )
    return markdown.Section("A unit's response to one face", [image])


def _headings(count: int, shown: Sequence[_Shown]) -> list[str]:
    most_weighted = [f"top {number}" for number in range(1, count + 1)]
    return [*most_weighted, *("by index" for _ in shown[0].units)]


def _two_lines(name: str) -> str:
    return name.replace(", ", "\n")
