"""One page of all experiments: a single HTML file that needs nothing else.

Images are within it, and there is no script; a content security policy forbids the
browser to load anything from elsewhere. What it shows comes from run folders (`runs`)
and from the caller's list of experiments; nothing in them is taken for HTML.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from jaxvision.report import markdown
from jaxvision.report.compare import SDS, Comparison, bounds
from jaxvision.report.formats import format_duration, format_figure, format_mean_sd
from jaxvision.report.images import Embedded, embed
from jaxvision.report.runs import FinishedRun

FEW = 12
"""This many figures stand openly where nothing was published; more are folded."""

VERDICTS = {
    "agrees": "agrees",
    "higher": "ours is higher",
    "lower": "ours is lower",
    "unknown": "one seed",
    "demo": "not compared: demo data",
}
"""In words, in the order in which they are counted."""

_NUMBER = re.compile(r"[-+−]?[\d.,:]*\d[\d.,:]*%?( ± [\d.]*\d)?|–")


@dataclass(frozen=True)
class Entry:
    """An experiment, run or not.

    anchor: names it within the page.
    section: of the assignment, such as "1.4", or what it belongs to.
    title, question: in words.
    reference: what was published of it, in words.
    command: that runs it, with our settings.
    run: None: it has not been run.
    comparisons: its figures beside published ones.
    changed: settings of the run that are not the experiment's own: name, the run's
        value, the experiment's.
    variant: what tells it from other runs of the experiment, such as "model alexnet".
    problem: why there is no run, where it was tried.
    """

    anchor: str
    section: str
    title: str
    question: str
    reference: str
    command: str
    run: FinishedRun | None = None
    comparisons: Sequence[Comparison] = ()
    changed: Sequence[tuple[str, str, str]] = ()
    variant: str = ""
    problem: str = ""

    @property
    def is_demo(self) -> bool:
        return self.run is not None and self.run.results["data"]["is_demo"]

    @property
    def rows(self) -> list[tuple["Entry", Comparison]]:
        """Its comparisons, each with the experiment it is of."""
        return [(self, comparison) for comparison in self.comparisons]

    @property
    def verdicts(self) -> list[str]:
        """Of each comparison, a key of `VERDICTS`."""
        return [comparison.verdict or "demo" for comparison in self.comparisons]


@dataclass(frozen=True)
class Chapter:
    """Experiments on one question.

    about: what was asked, on which images.
    """

    anchor: str
    title: str
    about: str
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Page:
    """What the page shows.

    sources: who published the figures, in words.
    warnings: run folders that could not be read, with the reason.
    """

    title: str
    chapters: Sequence[Chapter]
    sources: str
    made: datetime
    warnings: Sequence[str] = ()

    @property
    def entries(self) -> list[Entry]:
        return [entry for chapter in self.chapters for entry in chapter.entries]


def render(page: Page) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxvision.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=format_duration,
        day=_day,
        words=_words,
        value=_value,
    )
    environment.globals.update(
        mean_sd=_mean_sd,
        blocks=_blocks,
        environment=_environment,
        figures_table=_figures_table,
        headline=_headline,
        interval=_interval,
        numeric=_numeric_columns,
        settings=_settings,
        verdicts=VERDICTS,
        sds=SDS,
        few=FEW,
    )
    ran = [entry for entry in page.entries if entry.run is not None]
    counts = Counter(verdict for entry in ran for verdict in entry.verdicts)
    rows = [row for entry in page.entries for row in entry.rows]
    return environment.get_template("page.html.j2").render(
        page=page,
        ran=ran,
        counts=counts,
        differing=[row for row in rows if row[1].verdict in ("higher", "lower")],
    )


def _blocks(run: FinishedRun, section: markdown.Section) -> list[dict[str, Any]]:
    """What a section shows, each with its kind and what the template needs of it."""
    return [_block(run, block) for block in section.blocks]


def _block(run: FinishedRun, block: markdown.Block) -> dict[str, Any]:
    match block:
        case markdown.Text(text):
            return {"kind": "text", "html": _html(text)}
        case markdown.Table(header, rows):
            cells = [[_cell(cell) for cell in row] for row in rows]
            return {"kind": "table", "header": header, "rows": cells}
        case markdown.Code(code):
            return {"kind": "code", "code": code}
        case markdown.Image(file, alt, caption):
            embedded = _embedded(run, file)
            kind = "missing" if embedded is None else "image"
            return {
                "kind": kind,
                "file": file,
                "alt": alt,
                "caption": caption,
                "embedded": embedded,
            }


def _embedded(run: FinishedRun, file: str) -> Embedded | None:
    """An image of a run, from its folder or another's beside it; None, said on
    stderr and in the page, where there is none."""
    path = (run.path / file).resolve()
    try:
        if not path.is_relative_to(run.path.resolve().parents[1]):
            raise OSError("it lies outside the runs")
        return embed(path)
    except OSError as error:
        print(f"{run.path / file}: left out: {error}", file=sys.stderr)
        return None


def _html(text: str) -> Markup:
    """Markdown, without HTML and images; links into the run folder, where the page
    does not reach, become the names of their files."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    for token in tokens:
        _unlink(token.children or [])
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def _unlink(tokens: Iterable[Token]) -> None:
    local = False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href"))
            local = not target.startswith(("https://", "http://"))
        if local and token.type in ("link_open", "link_close"):
            token.tag, token.attrs = "code", {}


def _cell(value: Any) -> str:
    return _figure(value) if isinstance(value, float) else str(value)


def _numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """For each column whether all its cells are numbers."""
    return [
        all(_NUMBER.fullmatch(cell) for cell in column)
        for column in zip(*rows, strict=True)
    ]


def _figures_table(run: FinishedRun) -> list[list[str]]:
    """Every figure of a run, or those of its headline: name, mean ± sd, n, unit."""
    figures = run.results["figures"]
    shown = run.story and run.story.headline
    return [
        [
            name,
            _mean_sd(figure["mean"], figure["sd"]),
            str(figure["n"]),
            figure["unit"],
        ]
        for name, figure in figures.items()
        if not shown or name in shown
    ]


def _headline(run: FinishedRun) -> dict[str, Any] | None:
    """The accuracy that stands for a run at a glance: the highest of its headline, or
    the first on test images, or else validation images; None where it has none."""
    figures = run.results["figures"]
    chosen = run.story and run.story.headline
    named = [
        (name, figure)
        for name, figure in figures.items()
        if figure["unit"] == "accuracy"
        and figure["mean"] is not None
        and (not chosen or name in chosen)
    ]
    if not named:
        return None
    if not chosen:
        order = {"test": 0, "val": 1}
        named = sorted(named, key=lambda entry: order.get(entry[1]["split"], 2))[:1]
    name, figure = max(named, key=lambda entry: entry[1]["mean"])
    *_, row, metric = ["", "", *name.split("/")]
    return {
        "row": row,
        "metric": _words(metric),
        "figure": figure,
        "of": len(named),
    }


def _environment(run: FinishedRun) -> list[list[str]]:
    """Versions, machine and duration."""
    (table,) = markdown.environment_section(run.results).blocks
    return [list(row) for row in table.rows]


def _settings(run: FinishedRun) -> list[list[str]]:
    """Every setting of a run."""
    (table,) = markdown.settings_section(run.config).blocks
    return [list(row) for row in table.rows]


def _interval(comparison: Comparison) -> dict[str, float]:
    """Where the small chart of a comparison has its marks, as shares of its width:
    ours, two standard deviations to either side, and what was published."""
    low, high = bounds(comparison.value)
    spread = SDS * (comparison.sd or 0.0)
    whole = 1.0
    if "accuracy" not in comparison.metric:
        whole = 1.1 * max(high, comparison.mean + spread, 1e-9)

    def place(value: float) -> float:
        return round(100 * min(max(value / whole, 0.0), 1.0), 2)

    return {
        "ours": place(comparison.mean),
        "from": place(comparison.mean - spread),
        "to": place(comparison.mean + spread),
        "low": place(low),
        "high": place(high),
    }


def _mean_sd(mean: float | None, sd: float | None) -> str:
    if mean is not None and _is_tiny(mean):
        return _figure(mean) if sd is None else f"{_figure(mean)} ± {sd:.1g}"
    return format_mean_sd(mean, sd)


def _figure(value: float) -> str:
    return f"{value:.2g}" if _is_tiny(value) else format_figure(value)


def _is_tiny(value: float) -> bool:
    """Whether three decimals would leave nothing of it, as of a learning rate."""
    return 0 < abs(value) < 1e-3


def _value(value: float | Sequence[float]) -> str:
    low, high = bounds(value)
    shown = [
        _figure(bound) if bound < 1 else f"{bound:g}"
        for bound in dict.fromkeys((low, high))
    ]
    return " to ".join(shown)


def _words(name: str) -> str:
    """`best_val_accuracy` as people say it."""
    words = name.replace("_", " ")
    return re.sub(r"\bval\b", "validation", words).replace("train ", "training ")


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M}"
