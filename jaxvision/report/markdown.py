"""`report.md`, the document of a run: what it is made of, and `write_report`.

Figures come from `results.json`, settings from `config.json`; the caller adds the
sections that only this run has. The page of all experiments renders the same Markdown
(`jaxvision.report.page`).
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxvision.report.formats import (
    format_duration,
    format_figure,
    format_mean_sd,
    shorten,
)
from jaxvision.report.run_folder import Measurement, RunFolder, flatten

RESULTS, PUBLISHED, DETAILS = "Results", "Published figures", "Details"
"""Headings that the page of all experiments knows: it has the first two in a form of
its own, and folds what stands below the third."""

LONGEST_LIST = 50
"""Rows of a list that the report shows; the file beside it has them all."""

LONGEST_CELL = 200
"""Characters of a cell; of longer texts, such as names of classes, the middle is left
out."""

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
            all(_NUMBER.fullmatch(_text(row[column])) for row in self.rows)
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


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in order.

    aside: few readers need it: it stands below "Details" at the end.
    measurements: what it shows that `results.json` is to hold too.
    """

    heading: str
    blocks: Sequence[Block]
    aside: bool = False
    measurements: Sequence[Measurement] = ()

    def render(self) -> str:
        mark = "###" if self.aside else "##"
        parts = [f"{mark} {escape(self.heading)}", *(b.render() for b in self.blocks)]
        return "\n\n".join(parts)


def write_report(
    run_folder: RunFolder,
    *,
    title: str,
    question: str,
    sections: Sequence[Section],
    show_headline: bool = True,
) -> Path:
    """Writes `report.md`: the question, the data, the figures that matter most (those
    of `headline` in `results.json`), the sections, and below "Details" those that are
    aside, the command, settings, versions and machine.

    show_headline: False where a section has these figures.

    Call it after `write_config` and `write_results`, when all images are saved.

    Raises:
      InputError: there are no results yet, or the folder can't be written.
    """
    results = run_folder.read_results()
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Image):
                # A report with a hole in it is a defect of the program that wrote it.
                (run_folder.path / block.file).stat()
    details = [
        *(section for section in sections if section.aside),
        Section("How to run it again", [Code(results["command"])], aside=True),
        settings_section(run_folder.read_config()),
        environment_section(results),
    ]
    parts = [f"# {escape(title)}"]
    if results["data"]["is_demo"]:
        parts.append(DEMO_WARNING)
    parts += [question, data_line(results)]
    if results["figures"] and show_headline:
        parts.append(results_section(results).render())
    parts += [section.render() for section in sections if not section.aside]
    parts += [f"## {DETAILS}", *(section.render() for section in details)]
    return run_folder.write_text("report.md", "\n\n".join(parts) + "\n")


def results_section(results: Mapping[str, Any]) -> Section:
    """The figures that matter most: mean ± sample standard deviation over seeds."""
    figures = results["figures"]
    rows = [
        [
            name,
            format_mean_sd(figures[name]["mean"], figures[name]["sd"]),
            figures[name]["n"],
            figures[name]["unit"],
        ]
        for name in results["headline"] or figures
    ]
    note = (
        "n is the number of seeds, sd the sample standard deviation over them. Every "
        "figure of every seed stands in [results.json](results.json)."
    )
    table = Table(["figure", "mean ± sd", "n", "unit"], rows)
    return Section(RESULTS, [table, Text(note)])


def data_line(results: Mapping[str, Any]) -> str:
    """The data set as `results.json` has it, and the duration."""
    data = results["data"]
    classes = f" of {len(data['classes'])} classes" if data["classes"] else ""
    return (
        f"Data: {escape(data['name'])}, {data['num_images']} images{classes}"
        + (", drawn by code" if data["is_demo"] else "")
        + f". The run took {format_duration(results['seconds'])}."
    )


def settings_section(config: Mapping[str, Any]) -> Section:
    """`config.json` flattened: a row a setting."""
    rows = [[name, _setting(value)] for name, value in flatten(config).items()]
    return Section("Settings", [Table(["setting", "value"], rows)], aside=True)


def environment_section(results: Mapping[str, Any]) -> Section:
    """Versions, machine and duration as `results.json` has them."""
    machine = {
        name: ", ".join(value) if isinstance(value, list) else value
        for name, value in results["machine"].items()
    }
    duration = format_duration(results["seconds"])
    entries = {**machine, "duration": duration, **results["versions"]}
    rows = [[name, _setting(value)] for name, value in entries.items()]
    table = Table(["", ""], rows)
    return Section("Versions and machine", [table], aside=True)


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
    if note:
        text += f" {note}."
    table = Table(["class", *counts], rows)
    return Section("Splits", [table, Text(text)], aside=True)


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


def similar_section(
    pairs: Sequence[tuple[str, str, str, str, int]], file: str
) -> Section:
    """Pairs of nearly identical images; those in different splits first.

    file: where in the run folder all of them are listed.
    """
    rows = sorted(pairs, key=lambda pair: pair[1] == pair[3])
    header = ["image", "split", "nearly the same", "split", "bits of 256 that differ"]
    return _list_section("Nearly identical images", header, rows, file)


def ignored_section(ignored: Mapping[str, int], notes: Sequence[str]) -> Section:
    """What a folder holds besides the images of its classes, counted by kind."""
    table = Table(["ignored", "count"], [[*item] for item in ignored.items()])
    parts = [*([table] if ignored else []), *(Text(escape(note)) for note in notes)]
    return Section("The folder", parts, aside=True)


def use_section(checkpoint: Path | None, *, resume: str | None = None) -> Section:
    """What to type next.

    checkpoint: folder of the network; None: none was kept.
    resume: the command that continues the run, where it can be continued.
    """
    lines = []
    if checkpoint is not None:
        folder = shlex.quote(str(checkpoint))
        lines += [
            f"jaxvision evaluate {folder}",
            f"jaxvision predict {folder} IMAGE.jpg",
            f"jaxvision explain {folder} IMAGE.jpg",
        ]
    if resume is not None:
        lines.append(f"{resume}  # continues the run")
    return Section("Use it", [Code("\n".join(lines))])


def escape(text: str) -> str:
    """`text` on one line, shown by Markdown letter for letter."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", text)
    # Within a word an underscore is no mark-up, and escapes would be hard to read.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def _list_section(
    heading: str, header: Sequence[str], rows: Sequence[Sequence[Any]], file: str
) -> Section:
    blocks: list[Block] = [Table(header, rows[:LONGEST_LIST])]
    if len(rows) > LONGEST_LIST:
        more = len(rows) - LONGEST_LIST
        blocks.append(Text(f"… and {more} more, all of them in {_link(file)}."))
    return Section(heading, blocks, aside=True)


_NUMBER = re.compile(r"[-+−]?[\d.,:]*\d[\d.,:]*%?( ± [\d.]*\d)?|–")


def _text(value: Any) -> str:
    return format_figure(value) if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    text = _text(value)
    return escape(shorten(text, LONGEST_CELL) if len(text) > LONGEST_CELL else text)


def _link(file: str) -> str:
    return f"[{escape(file)}]({quote(file)})"


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value in (None, {}) else str(value)
