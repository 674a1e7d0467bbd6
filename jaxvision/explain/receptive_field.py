"""The receptive fields of a network by recursion and by the gradient: a run folder.

run = receptive_field(ReceptiveFieldConfig("alexnet"))
"""

import dataclasses
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxvision import plotting
from jaxvision.config import check
from jaxvision.explain.config import USUAL_SIZE, ReceptiveFieldConfig
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
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    print_run,
)

HEADER = ("layer", "nodes", "receptive field", "stride", "start", "the gradient")

METHOD = (
    "A window of k nodes and stride s over nodes that see r pixels each, j pixels "
    "apart, gives nodes that see r + (k − 1)·j pixels, j·s apart. Two convolutions f₁ "
    "and f₂ of stride 1 thus see (f₁ + f₂ − 1)² pixels: 7×7 for 5 and 3. The gradient "
    "agrees if that of one node in the middle of the layer fills this box from edge to "
    "edge, as far as it lies within the image; weights are made positive and maxima "
    "replaced by means, so that nothing cancels. `start` is the top and left pixel "
    "that the first node sees; below zero it lies in the padding."
)


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
    """

    name: str
    title: str
    fields: dict[str, Field | None]
    checks: list[Check]

    @classmethod
    def of(cls, name: str, title: str, backbone: Backbone, size: int) -> "Measured":
        """On images of `size`×`size` pixels."""
        shape = (size, size, 3)
        fields = receptive_fields(backbone, shape)
        return cls(name, title, fields, list(check_receptive_fields(backbone, shape)))

    def rows(self) -> list[list[str]]:
        """Cells below `HEADER`."""
        verdicts = {
            check.layer: "agrees" if check.agrees else "DIFFERS"
            for check in self.checks
        }
        return [
            [layer, "–", "whole image", "–", "–", "–"]
            if field is None
            else [
                layer,
                _pair(field.nodes),
                _pair(field.size),
                _pair(field.stride),
                f"{field.start[0]}, {field.start[1]}",
                verdicts.get(layer, "–"),
            ]
            for layer, field in self.fields.items()
        ]

    def measurements(self) -> list[Measurement]:
        """Sizes in pixels, and the share of layers on which both ways agree."""
        measured = {
            f"{layer}_receptive_field": (float(field.size[0]), "pixels")
            for layer, field in self.fields.items()
            if field is not None
        }
        if self.checks:
            agreeing = sum(check.agrees for check in self.checks)
            measured["agreeing_layers"] = (agreeing / len(self.checks), "share")
        return [
            Measurement(name, [value], [0], unit=unit, split="–")
            for name, (value, unit) in measured.items()
        ]


def receptive_field(config: ReceptiveFieldConfig) -> Path:
    """Measures the example of the assignment and a network; prints both tables and
    writes figures, results and report.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: there is no such network, or nothing is left of so few pixels.
    """
    began = time.monotonic()
    check(config)
    name = config.network
    size = config.image_size or USUAL_SIZE.get(name, 224)
    model = create_model(name, num_classes=2)
    check_fits(model, (size, size, 3))
    title = f"{name} on {size}×{size} pixels"
    measured = [example(), Measured.of(name, title, model.backbone, size)]
    for network in measured:
        _print_table(network)
    run = RunFolder.create("receptive_field", root=config.runs)
    run.write_config(dataclasses.replace(config, image_size=size))
    sections = [_section(run, network) for network in measured]
    run.write_results(
        measured[-1].measurements(),
        data=DataSummary("constant image", "made in memory", False, 1, ()),
        seconds=time.monotonic() - began,
    )
    markdown.write_report(
        run,
        title=f"Receptive fields of {name}",
        question="Which part of an image can a node of each layer see?",
        sections=[
            *sections,
            markdown.Section("How it was done", [markdown.Text(METHOD)]),
        ],
    )
    print_run(run)
    return run.path


def example() -> Measured:
    """The two convolutions on 15×15 pixels."""
    return Measured.of("example", "Convolutions of 5×5 and 3×3", TwoConvolutions(), 15)


def _pair(values: tuple[int, int]) -> str:
    return f"{values[0]}×{values[1]}"


def _print_table(network: Measured) -> None:
    table = Table(title=network.title, title_justify="left")
    for name in HEADER:
        table.add_column(name, no_wrap=True)
    for row in network.rows():
        table.add_row(*row)
    Console().print(table)


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
                "its largest. Frame: what the recursion says.",
            )
        )
    return markdown.Section(network.title, blocks)
