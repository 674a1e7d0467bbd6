"""`report.md`: one page that ties together what a run wrote.

Figures come from `results.json`, settings from `config.json`; the caller adds the
sections that only this run has. `report.json` keeps these sections for the one page
of all experiments (`jaxvision.report.page`).
"""

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxvision.config import to_plain
from jaxvision.report.formats import format_duration, format_figure, format_mean_sd
from jaxvision.report.run_folder import RunFolder
from jaxvision.storage import write_json

STORY = "report.json"
"""Title, question and sections of a run, in its folder."""

LONGEST_LIST = 50
"""Rows of a list that the report shows; the file beside it has them all."""

DEMO_WARNING = (
    "> **Demo data.** The images were drawn by code to show that everything works. "
    "The figures say nothing about real images."
)


@dataclass(frozen=True)
class Text:
    """Markdown as it is."""

    markdown: str

    def render(self) -> str:
        return self.markdown


@dataclass(frozen=True)
class Table:
    """Cells are plain text or numbers and may hold any character."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def render(self) -> str:
        numeric = [
            all(isinstance(row[column], (int, float)) for row in self.rows)
            for column in range(len(self.header))
        ]
        lines = [self.header, *self.rows]
        rendered = [f"| {' | '.join(map(_cell, line))} |" for line in lines]
        marks = ["---:" if right and self.rows else "---" for right in numeric]
        rendered.insert(1, f"| {' | '.join(marks)} |")
        return "\n".join(rendered)


@dataclass(frozen=True)
class Image:
    """A file of the run folder; `alt` says in words what there is to see."""

    file: str
    alt: str
    caption: str = ""

    def render(self) -> str:
        image = f"![{escape(self.alt)}]({quote(self.file)})"
        return f"{image}\n\n*{escape(self.caption)}*" if self.caption else image


@dataclass(frozen=True)
class Code:
    """A block to be copied."""

    code: str
    language: str = "sh"

    def render(self) -> str:
        longest = max((len(run) for run in re.findall("`+", self.code)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}{self.language}\n{self.code}\n{fence}"


Block = Text | Table | Image | Code

BLOCKS = {"text": Text, "table": Table, "image": Image, "code": Code}
"""By their names in `report.json`."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order.

    aside: few readers need it, so that the one report of all experiments folds it.
    """

    heading: str
    blocks: Sequence[Block]
    aside: bool = False

    def render(self) -> str:
        parts = [f"## {escape(self.heading)}", *(b.render() for b in self.blocks)]
        return "\n\n".join(parts)


def write_report(
    run_folder: RunFolder,
    *,
    title: str,
    question: str,
    sections: Sequence[Section],
    headline: Collection[str] | None = None,
) -> Path:
    """Writes `report.md`: the question, the results, how to run it again and the data;
    then `sections`; then settings, versions, machine and duration. `report.json` beside
    it is what `read_story` reads.

    headline: names of the figures that stand in the results; None: all.

    Call it after `write_config` and `write_results`, when all images are saved.

    Raises InputError: there are no results yet, or the folder can't be written.
    """
    results = run_folder.read_results()
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Image):
                # A report with a hole in it is a defect of the program that wrote it.
                (run_folder.path / block.file).stat()
    shown = None if headline is None else tuple(headline)
    _write_story(run_folder.path, Story(title, question, shown, tuple(sections)))
    whole = [
        results_section(results, headline),
        Section("How to run it again", [Code(results["command"])]),
        data_section(results["data"]),
        *sections,
        settings_section(run_folder.read_config()),
        environment_section(results),
    ]
    parts = [f"# {escape(title)}"]
    if results["data"]["is_demo"]:
        parts.append(DEMO_WARNING)
    parts += [question, *(section.render() for section in whole)]
    return run_folder.write_text("report.md", "\n\n".join(parts) + "\n")


@dataclass(frozen=True)
class Story:
    """What a run has to show beside its figures.

    headline: names of the figures that matter most; None: all.
    """

    title: str
    question: str
    headline: tuple[str, ...] | None
    sections: tuple[Section, ...]


def read_story(folder: Path) -> Story:
    """What `write_report` was given.

    Raises:
      FileNotFoundError: there is no report.
      KeyError, TypeError, ValueError: it is damaged.
    """
    plain = json.loads((folder / STORY).read_text("utf-8"))
    sections = tuple(
        Section(
            section["heading"],
            [BLOCKS[block.pop("kind")](**block) for block in section["blocks"]],
            section["aside"],
        )
        for section in plain["sections"]
    )
    headline = plain["headline"]
    return Story(
        plain["title"],
        plain["question"],
        None if headline is None else tuple(headline),
        sections,
    )


def _write_story(folder: Path, story: Story) -> None:
    plain = to_plain(story)
    kinds = {kind: name for name, kind in BLOCKS.items()}
    for section, written in zip(story.sections, plain["sections"], strict=True):
        for block, entry in zip(section.blocks, written["blocks"], strict=True):
            entry["kind"] = kinds[type(block)]
    write_json(folder / STORY, plain)


def results_section(
    results: Mapping[str, Any], headline: Collection[str] | None = None
) -> Section:
    """Each figure of `results.json`, or those that `headline` names: mean ± sample
    standard deviation over seeds."""
    rows = [
        [
            name,
            format_mean_sd(figure["mean"], figure["sd"]),
            figure["n"],
            figure["unit"],
            figure["split"],
            figure["data"],
        ]
        for name, figure in results["figures"].items()
        if headline is None or name in headline
    ]
    header = ["figure", "mean ± sd", "n", "unit", "split", "data"]
    note = Text(
        "n is the number of seeds; sd is the sample standard deviation over them. "
        "Each seed's value is in `results.json`"
        + ("." if headline is None else ", and so are further figures.")
    )
    return Section("Results", [Table(header, rows), note])


def data_section(data: Mapping[str, Any]) -> Section:
    """The data set as `results.json` has it."""
    classes = data["classes"]
    rows = [
        ["name", data["name"]],
        ["folder", data["root"]],
        ["drawn by code", "yes" if data["is_demo"] else "no"],
        ["images", str(data["num_images"])],
        ["classes", f"{len(classes)}: {', '.join(classes)}"],
    ]
    return Section("Data", [Table(["data set", ""], rows)])


def settings_section(config: Mapping[str, Any]) -> Section:
    """`config.json` flattened: one row a setting, named like its flag."""
    rows = [[name, _setting(value)] for name, value in _flatten(config)]
    return Section("Settings", [Table(["setting", "value"], rows)])


def environment_section(results: Mapping[str, Any]) -> Section:
    """Versions, machine and duration as `results.json` has them."""
    machine = {
        name: ", ".join(value) if isinstance(value, list) else value
        for name, value in results["machine"].items()
    }
    duration = format_duration(results["seconds"])
    entries = {**machine, "duration": duration, **results["versions"]}
    rows = [[name, _setting(value)] for name, value in entries.items()]
    return Section("Versions and machine", [Table(["", ""], rows)])


def splits_section(
    counts: Mapping[str, Sequence[int]],
    classes: Sequence[str],
    file: str,
    *,
    note: str = "",
) -> Section:
    """Images of each class in each split.

    counts: name of the split -> number of images of each of `classes`.
    file: where in the run folder the splits are written.
    note: a clause on how they were made.
    """
    rows = [
        [name, *(split[index] for split in counts.values())]
        for index, name in enumerate(classes)
    ]
    rows.append(["all", *map(sum, counts.values())])
    text = f"Which image is where stands in {_link(file)}."
    note = Text(f"{text} {note}." if note else text)
    table = Table(["class", *counts], rows)
    return Section("Splits", [table, note], aside=True)


def bad_images_section(bad: Sequence[tuple[str, str]], file: str) -> Section:
    """Images that were left out, each with the reason.

    file: where in the run folder all of them are listed.
    """
    return _list_section("Bad images", ["image", "reason"], bad, file)


def duplicates_section(
    groups: Sequence[Sequence[str]],
    file: str,
    *,
    conflicts: Sequence[Sequence[str]] = (),
) -> Section:
    """Images whose contents are the same; they stay in one split together.

    file: where in the run folder all of them are listed.
    conflicts: those of `groups` whose images are of different classes; shown first.
    """
    known = set(map(tuple, conflicts))
    ordered = sorted(map(tuple, groups), key=lambda group: group not in known)
    rows = [
        [len(group), "no" if group in known else "yes", ", ".join(group)]
        for group in ordered
    ]
    header = ["copies", "of one class", "images"]
    return _list_section("Identical images", header, rows, file)


def checkpoint_section(
    checkpoint: Path, *, resume: str | None = None, image: str = "IMAGE.jpg"
) -> Section:
    """How to use what was trained.

    checkpoint: folder that `evaluate` and `predict` take.
    resume: the command that continues the run, where it can be continued.
    """
    folder = shlex.quote(str(checkpoint))
    blocks: list[Block] = [
        Text("Accuracy of this checkpoint on the test images:"),
        Code(f"python -m experiments.evaluate --checkpoint {folder}"),
        Text("Names and probabilities for images of your own:"),
        Code(f"python -m experiments.predict --checkpoint {folder} {image}"),
    ]
    if resume is not None:
        blocks += [Text("To continue the run:"), Code(resume)]
    return Section("Use it", blocks, aside=True)


def escape(text: str) -> str:
    """`text` on one line, shown by Markdown letter for letter."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", text)
    # Within a word an underscore is no mark-up, and escapes would be hard to read.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def _list_section(
    heading: str, header: Sequence[str], rows: Sequence[Sequence[Any]], file: str
) -> Section:
    if not rows:
        return Section(heading, [Text("None.")], aside=True)
    blocks: list[Block] = [Table(header, rows[:LONGEST_LIST])]
    if len(rows) > LONGEST_LIST:
        more = len(rows) - LONGEST_LIST
        blocks.append(Text(f"… and {more} more, all of them in {_link(file)}."))
    return Section(heading, blocks, aside=True)


def _cell(value: Any) -> str:
    return escape(format_figure(value) if isinstance(value, float) else str(value))


def _link(file: str) -> str:
    return f"[{escape(file)}]({quote(file)})"


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in config.items():
        full = prefix + name.replace("_", "-")
        if isinstance(value, dict) and value:
            rows += _flatten(value, f"{full}.")
        else:
            rows.append((full, value))
    return rows
