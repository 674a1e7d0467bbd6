"""Run folders as experiments leave them, made by hand."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision.report import markdown
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a run."""

    epochs: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)


CLASSES = ("ada", "bo|b", *(f"painter {number}" for number in range(9)))
"""As many as the published figures are of."""

SECTIONS = (
    markdown.Section(
        "Curves",
        [
            markdown.Text("As *ever*; see [curves.csv](curves.csv)."),
            markdown.Image("curves.png", "Accuracy over epochs.", "A caption."),
        ],
    ),
    markdown.Section("Rows", [markdown.Table(["row", "n"], [["one", 12]])]),
    markdown.Section("Use it", [markdown.Code("python -m x")], aside=True),
)


def write_run(
    root: Path,
    experiment: str,
    figures: dict[str, list[float]],
    *,
    name: str | None = None,
    config: object = None,
    command: str | None = None,
    is_demo: bool = False,
    sections: tuple[markdown.Section, ...] = SECTIONS,
    classes: tuple[str, ...] = CLASSES,
) -> RunFolder:
    """A finished run. `figures`: name -> one value a seed, on the validation images."""
    run = RunFolder.create(experiment, root=root, name=name, command=command)
    run.write_config(config or Settings())
    run.write_results(
        [
            Measurement(
                name,
                values,
                list(range(len(values))),
                split="val",
                **dict(
                    zip(("metric", "row", "table"), name.split("/")[::-1], strict=False)
                ),
            )
            for name, values in figures.items()
        ],
        data=DataSummary("artists", "data/artists", is_demo, 451, classes),
        seconds=75,
        devices=["a device"],
    )
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[10:20, 5:50] = (0, 90, 160)
    Image.fromarray(pixels).save(run.path / "curves.png")
    markdown.write_report(
        run, title="A title", question="What is asked?", sections=sections
    )
    return run
