"""The receptive fields of a network: measured, printed, and as a run folder."""

import dataclasses
import time

from rich.console import Console
from rich.table import Table

from jaxvision import plotting
from jaxvision.errors import InputError
from jaxvision.models import Backbone, check_fits, create_model
from jaxvision.models.backbone import Layer
from jaxvision.models.layers import Conv
from jaxvision.models.receptive_field import (
    Check,
    Field,
    check_receptive_fields,
    receptive_fields,
)
from jaxvision.report import markdown
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder

HEADER = ("layer", "nodes", "receptive field", "stride", "start", "the gradient")


class TwoConvolutions(Backbone):
    """The assignment's example: 5×5, then 3×3, both of stride 1 and not padded."""

    def layers(self, train: bool) -> list[Layer]:
        return [
            ("Z1", lambda x: Conv(4, 5, name="conv1")(x)),
            ("Z2", lambda x: Conv(4, 3, name="conv2")(x)),
        ]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A network's receptive fields by both ways.

    name: what the network's files are called by.
    title: of its table and its figure.
    fields: by layer, None for global ones.
    checks: of the layers before the first global one.
    seconds: that it took.
    """

    name: str
    title: str
    fields: dict[str, Field | None]
    checks: list[Check]
    seconds: float

    def rows(self) -> list[list[str]]:
        """Cells below `HEADER`."""
        checks = {check.layer: check for check in self.checks}
        return [_row(layer, field, checks) for layer, field in self.fields.items()]


def example() -> Measured:
    """The two convolutions on 15×15 pixels."""
    return _measure("example", "Convolutions of 5×5 and 3×3", TwoConvolutions(), 15)


def measure(name: str, size: int) -> Measured:
    """A network of `jaxvision.models` on `size`×`size` pixels.

    Raises:
      InputError: there is no such network, or nothing is left of so few pixels.
    """
    model = create_model(name, num_classes=2)
    if size < 1:
        raise InputError(f"--image-size is {size}; it must be at least 1")
    check_fits(model, (size, size, 3))
    return _measure(name, f"{name} on {size}×{size} pixels", model.backbone, size)


def _measure(name: str, title: str, backbone: Backbone, size: int) -> Measured:
    began = time.monotonic()
    shape = (size, size, 3)
    fields = receptive_fields(backbone, shape)
    checks = list(check_receptive_fields(backbone, shape))
    return Measured(name, title, fields, checks, time.monotonic() - began)


def _row(layer: str, field: Field | None, checks: dict[str, Check]) -> list[str]:
    if field is None:
        return [layer, "–", "whole image", "–", "–", "–"]
    verdict = "–"
    if layer in checks:
        verdict = "agrees" if checks[layer].agrees else "DIFFERS"
    return [
        layer,
        _pair(field.nodes),
        _pair(field.size),
        _pair(field.stride),
        f"{field.start[0]}, {field.start[1]}",
        verdict,
    ]


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}×{values[1]}"


def print_fields(network: Measured) -> None:
    """The table on the terminal."""
    table = Table(title=network.title, title_justify="left")
    for name in HEADER:
        table.add_column(name, no_wrap=True)
    for row in network.rows():
        table.add_row(*row)
    Console().print(table)


def write_fields(run: RunFolder, networks: list[Measured]) -> None:
    """Writes figures, tables, results and report; the last network is the run's."""
    *_, last = networks
    run.write_results(
        _measurements(last),
        data=DataSummary("constant image", "made in memory", False, 1, ()),
        seconds=sum(network.seconds for network in networks),
    )
    markdown.write_report(
        run,
        title=f"Receptive fields of {last.name}",
        question="Which part of an image can a node of each layer see?",
        sections=[_method(), *(_section(run, network) for network in networks)],
    )


def _measurements(network: Measured) -> list[Measurement]:
    """Sizes in pixels, and the share of layers on which both ways agree."""
    figures = [
        Measurement(
            f"{layer}_receptive_field", [field.size[0]], [0], unit="pixels", split="–"
        )
        for layer, field in network.fields.items()
        if field is not None
    ]
    agreeing = [check.agrees for check in network.checks]
    if agreeing:
        share = sum(agreeing) / len(agreeing)
        figures.append(
            Measurement("agreeing_layers", [share], [0], unit="share", split="–")
        )
    return figures


def _method() -> markdown.Section:
    text = (
        "A window of k nodes and stride s over nodes that see r pixels each, j pixels "
        "apart, the first from pixel a on, gives nodes that see r + (k − 1)·j pixels, "
        "j·s apart, the first from a − p·j on, with p the padding. Two convolutions "
        "f₁ and f₂ of stride 1 thus see (f₁ + f₂ − 1)² pixels, 7×7 for 5 and 3: "
        "deeper networks see more with fewer weights, and with a non-linearity "
        "between.\n\n"
        "The recursion follows the windows that the network calls as it runs. Beside "
        "it stands the gradient of one node in the middle of each layer by every "
        "pixel, with weights made positive and maxima replaced by means, so that "
        "nothing cancels. Both agree if the pixels with a gradient fill the box of "
        "the recursion from edge to edge, as far as it lies within the image. "
        "Layers after the first that sees the whole image are not compared. "
        "`start` is the top and left pixel that the first node sees; below zero it "
        "lies in the padding."
    )
    return markdown.Section("How it was done", [markdown.Text(text)])


def _section(run: RunFolder, network: Measured) -> markdown.Section:
    run.write_csv(network.name, HEADER, network.rows())
    blocks: list[markdown.Block] = [markdown.Table(HEADER, network.rows())]
    if network.checks:
        panels = [
            plotting.FieldPanel(
                f"{check.layer}: {_pair(check.field.size)}",
                check.gradient,
                dataclasses.astuple(check.expected),
            )
            for check in network.checks
        ]
        figure = plotting.receptive_field_maps(panels, title=network.title)
        run.save_figure(network.name, figure)
        blocks.append(
            markdown.Image(
                f"{network.name}.png",
                "For each layer, the pixels that a node in its middle has a gradient "
                "for, and a frame around those it sees by the recursion.",
                "Shade: gradient of a node in the middle of the layer, as a share of "
                "its largest; white: none. Frame: what the recursion says.",
            )
        )
    return markdown.Section(network.title, blocks)
