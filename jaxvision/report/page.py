"""One page of all experiments: a single HTML file that needs nothing else.

What it tells of a run is the Markdown of its `report.md`; figures come from
`results.json`. Images are within the page, and there is no script; a content security
policy forbids the browser to load anything from elsewhere. Nothing in a run or in the
caller's list of experiments is taken for HTML.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from jaxvision.data.decode import BadImage
from jaxvision.report.compare import SDS, VERDICTS, Comparison, Verdict, bounds
from jaxvision.report.formats import (
    format_duration,
    format_line,
    format_mean_sd,
    format_value,
    format_words,
)
from jaxvision.report.images import embed
from jaxvision.report.markdown import DETAILS, PUBLISHED, RESULTS
from jaxvision.report.runs import FinishedRun
from jaxvision.storage import remove_leftovers, write_atomically, writing

FEW = 12
"""This many figures stand openly where nothing was published; more are folded."""


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
        return self.run is not None and self.run.is_demo

    @property
    def rows(self) -> list[tuple["Entry", Comparison]]:
        """Its comparisons, each with the experiment it is of."""
        return [(self, comparison) for comparison in self.comparisons]

    @property
    def verdicts(self) -> list[Verdict]:
        return [comparison.verdict for comparison in self.comparisons]

    @property
    def not_compared(self) -> Verdict | None:
        """Why its figures are not compared; None: they are."""
        reasons = {"other", "demo"} & set(self.verdicts)
        return cast(Verdict, reasons.pop()) if reasons else None


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


def entry_of(run: FinishedRun) -> Entry:
    """The entry of a run of no declared experiment: its report says what it asked."""
    blocks = [block.strip() for block in run.report.split("\n\n") if block.strip()]
    title = next((b for b in blocks if b.startswith("# ")), f"# {run.experiment}")
    question = next((b for b in blocks if b.endswith("?") and b[0] != "#"), "")
    return Entry(
        anchor=f"{run.experiment}-{run.path.name}",
        section="",
        title=title.removeprefix("# "),
        question=question,
        reference="",
        command=run.command,
        run=run,
        variant=run.path.name,
    )


def write_page(page: Page, path: Path) -> None:
    """Writes the page and prints what is on it and, last, where it is.

    Raises:
      InputError: it cannot be written.
    """
    content = render(page).encode("utf-8", "backslashreplace")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    write_atomically(path, content)
    ran = sum(entry.run is not None for entry in page.entries)
    print(f"{ran} of {len(page.entries)} experiments, {len(content) / 1e6:.1f} MB")
    print(path)


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
        duration=format_duration, day=_day, words=format_words, value=format_value
    )
    environment.globals.update(
        mean_sd=format_mean_sd,
        document=document,
        figures_table=_figures_table,
        headline=_headline,
        interval=_interval,
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


@dataclass(frozen=True)
class Part:
    """A section of a report.

    folded: whether few readers need it.
    """

    heading: Markup
    folded: bool
    html: Markup


def document(run: FinishedRun) -> list[Part]:
    """The sections of a run's report, without those that the page has in a form of its
    own: what stands before the first section, the results and the published figures."""
    reader = _reader()
    tokens = reader.parse(run.report)
    marks = [
        number
        for number, token in enumerate(tokens)
        if token.type == "heading_open" and token.tag in ("h2", "h3")
    ]
    parts, chapter = [], ""
    for first, last in pairwise([*marks, len(tokens)]):
        heading = tokens[first + 1]
        if tokens[first].tag == "h2":
            chapter = heading.content
        body = _with_figures(run.path, tokens[first + 3 : last])
        if body and chapter not in (RESULTS, PUBLISHED):
            parts.append(
                Part(
                    _html(reader, [heading]),
                    folded=chapter == DETAILS,
                    html=_html(reader, body),
                )
            )
    return parts


def _reader() -> MarkdownIt:
    """Markdown, without HTML; links into the run folder, where the page does not
    reach, become the names of their files."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.core.ruler.push("page", lambda state: _adapt(state.tokens))
    for name, render in (
        ("image", lambda _renderer, tokens, i, *_: escape(_alt(tokens[i]))),
        ("table_open", lambda *_: SCROLL + "<table>"),
        ("table_close", lambda *_: "</table></div>"),
    ):
        reader.add_render_rule(name, render)
    return reader


SCROLL = '<div class="scroll" role="region" tabindex="0" aria-label="Table">'


def _adapt(tokens: Sequence[Token]) -> None:
    """Local links become code, and the alignment of a cell a class."""
    local = False
    for token in tokens:
        _adapt(token.children or [])
        if token.type == "link_open":
            target = str(token.attrGet("href"))
            local = not target.startswith(("https://", "http://"))
        if local and token.type in ("link_open", "link_close"):
            token.tag, token.attrs = "code", {}
        if token.attrs.pop("style", "") == "text-align:right":
            token.attrs["class"] = "num"


def _with_figures(folder: Path, tokens: Sequence[Token]) -> list[Token]:
    """The tokens, with each paragraph that is an image as a figure, and those in
    italics as captions: of the figure before, or of a table."""
    found: list[Token] = []
    rest = list(tokens)
    while rest:
        if _is_paragraph(rest, "image"):
            (image,) = rest[1].children or []
            del rest[:3]
            caption = _take_caption(rest) if _is_paragraph(rest, "em_open") else ""
            found.append(_block(_figure(folder, image, caption)))
        elif _is_paragraph(rest, "em_open"):
            found.append(_block(f'<p class="caption">{_take_caption(rest)}</p>\n'))
        else:
            found.append(rest.pop(0))
    return found


def _take_caption(rest: list[Token]) -> str:
    """Takes a paragraph in italics away, and gives what it says as HTML."""
    children = (rest[1].children or [])[1:-1]
    del rest[:3]
    return _html(_reader(), [Token("inline", "", 0, children=children)])


def _block(html: str) -> Token:
    return Token("html_block", "", 0, content=html)


def _is_paragraph(tokens: Sequence[Token], kind: str) -> bool:
    """Whether the tokens begin with a paragraph that is an image, or all italics."""
    if [token.type for token in tokens[:2]] != ["paragraph_open", "inline"]:
        return False
    children = tokens[1].children or []
    if kind == "image":
        return [child.type for child in children] == ["image"]
    levels = [child.level for child in children[1:-1]]
    return children[0].type == kind and min(levels, default=0) > 0


def _figure(folder: Path, image: Token, caption: str) -> str:
    """An image of a run, from its folder or another's beside it; where there is none,
    a note, printed on stderr too."""
    file, alt = unquote(str(image.attrGet("src"))), escape(_alt(image))
    path = (folder / file).resolve()
    try:
        if not path.is_relative_to(folder.resolve().parents[1]):
            raise BadImage(file, "it lies outside the runs")
        embedded = embed(path)
    except BadImage as bad:
        line = format_line(f"{folder / file}: left out: {bad.reason}")
        print(line, file=sys.stderr)
        return (
            f'<p class="note">The image <code>{escape(file)}</code> is missing. It '
            f"shows: {alt}</p>\n"
        )
    shown = f'width="{embedded.width}" height="{embedded.height}" alt="{alt}"'
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><img src="{embedded.uri}" {shown}>{below}</figure>\n'


def _alt(image: Token) -> str:
    """What an image shows, in words."""
    return "".join(child.content for child in image.children or [])


def _html(reader: MarkdownIt, tokens: Sequence[Token]) -> Markup:
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def _figures_table(run: FinishedRun) -> list[tuple[str, str, int, str]]:
    """The figures that matter most: name, mean ± sd, n, unit."""
    figures = run.results["figures"]
    return [
        (
            name,
            format_mean_sd(figures[name]["mean"], figures[name]["sd"]),
            figures[name]["n"],
            figures[name]["unit"],
        )
        for name in run.results["headline"] or figures
    ]


def _headline(run: FinishedRun) -> dict[str, Any] | None:
    """The accuracy that stands for a run at a glance: the highest of its rows, on test
    images or else on validation images; None where it has none."""
    figures = run.results["figures"]
    named = [
        figures[name]
        for name in run.results["headline"] or figures
        if figures[name]["unit"] == "accuracy" and figures[name]["mean"] is not None
    ]
    if not named:
        return None
    order = {"test": 0, "val": 1}
    split = min((figure["split"] for figure in named), key=lambda s: order.get(s, 2))
    named = [figure for figure in named if figure["split"] == split]
    metric = named[0]["metric"]
    named = [figure for figure in named if figure["metric"] == metric]
    best = max(named, key=lambda figure: figure["mean"])
    return {
        "row": best["row"],
        "metric": format_words(metric or f"{split}_accuracy"),
        "figure": best,
        "of": len(named),
    }


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


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M}"
