"""The one page: what is in it, that nothing else is needed, and how it is laid out."""

import dataclasses
import html
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from finished_runs import write_run

from jaxvision.report.compare import compare
from jaxvision.report.markdown import Code, Image, Section, Table, Text
from jaxvision.report.page import Chapter, Entry, Page, render
from jaxvision.report.runs import read_run

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'too'"

PUBLISHED = [
    {"row": row, "metric": "val_accuracy", "value": value, "source": "Niaz, 1.2"}
    for row, value in {"near": 0.5, "high": 0.1, "low": [0.8, 0.9]}.items()
]
FIGURES = {f"{row}/val_accuracy": [0.48, 0.50, 0.52] for row in ("near", "high", "low")}


def entry(run=None, **fields):
    """Of an experiment that shows `run`."""
    known = {
        "anchor": "baseline",
        "section": "1.2",
        "title": "The first network",
        "question": "How well?",
        "reference": "One run.",
        "command": "python -m experiments.part1_baseline",
        "run": run,
    }
    if run is not None:
        known["comparisons"] = compare(PUBLISHED, run.results, dataset="artists")
    return Entry(**{**known, **fields})


def page_of(*entries, **fields):
    chapter = Chapter("part-1", "Part 1", "About.", entries)
    known = {
        "sources": "Niaz: a report.",
        "made": datetime(2026, 3, 1, 9, 5, tzinfo=UTC),
    }
    return Page("A title", [chapter], **{**known, **fields})


@pytest.fixture
def run(tmp_path):
    return read_run(write_run(tmp_path / "runs", "part1_baseline", FIGURES).path)


class Reader(HTMLParser):
    """The tags of a page, checked for nesting, and its text."""

    EMPTY = frozenset(["img", "meta", "link", "br", "hr"])

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def words(text):
    return " ".join(text.split())


def test_everything_of_a_run_is_there(run):
    changed = [("epochs", "5", "50")]
    page = page_of(entry(run, changed=changed, variant="no batch norm"))
    read = Reader(render(page))
    text = words(read.text)
    for expected in (
        "1 of 1 experiments have been run, with 3 figures beside published ones",
        "Made on 1 March 2026, 09:05",
        "1 of 3 agree",
        "How well?",
        "no batch norm",
        "One run.",
        "artists: 451 images of 11 classes",
        "Took 1:15",
        "epochs 5 instead of 50",
        "near validation accuracy .500 ± .020 .500 agrees Niaz, 1.2",
        "high validation accuracy .500 ± .020 .100 ours is higher",
        "low validation accuracy .500 ± .020 .800 to .900 ours is lower",
        "2 published figures lie more than 2 of our standard deviations",
        "A caption.",
        run.command,
        "a device",
        "seeds 0, 1, 2 ",
        "numpy",
        "Niaz: a report.",
    ):
        assert expected in text
    assert "Demo" not in text
    assert "Not run" not in text


def test_nothing_comes_from_elsewhere(run):
    text = render(page_of(entry(run)))
    read = Reader(text)
    (policy,) = [tag for tag in read.all("meta") if "http-equiv" in tag]
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    assert read.all("script") == read.all("link") == []
    assert {a["src"][:11] for a in read.all("img")} == {"data:image/"}
    assert {a["href"][0] for a in read.all("a") + read.all("use")} == {"#"}
    assert "url(" not in text
    assert "@import" not in text


def test_links_lead_somewhere_and_names_are_unique(run):
    entries = [entry(run), entry(run, anchor="second"), entry(anchor="third")]
    read = Reader(render(page_of(*entries)))
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    wanted = {a["href"].removeprefix("#") for a in read.all("a") + read.all("use")}
    assert wanted <= set(names)
    assert {"baseline", "second", "third", "glance", "part-1"} <= wanted


def test_images_say_what_they_show_and_how_large_they_are(run):
    (image,) = Reader(render(page_of(entry(run)))).all("img")
    assert image["alt"] == "Accuracy over epochs."
    assert (image["width"], image["height"]) == ("45", "30")


def test_what_runs_say_is_no_html(tmp_path):
    sections = (
        Section(
            HOSTILE,
            [
                Text(f"{HOSTILE} ![p](http://a/p.png) [x](javascript:alert(1))"),
                Table([HOSTILE], [[HOSTILE]]),
                Image("curves.png", HOSTILE, HOSTILE),
            ],
        ),
    )
    run = read_run(
        write_run(
            tmp_path, "part1_baseline", {HOSTILE: [0.5]}, command=HOSTILE,
            sections=sections,
        ).path
    )  # fmt: skip
    text = render(page_of(entry(run, title=HOSTILE, variant=HOSTILE)))
    read = Reader(text)
    assert read.all("script") == []
    assert "http://a/p.png" not in {a.get("src") for a in read.all("img")}
    assert not any(a["href"].startswith("javascript") for a in read.all("a"))
    assert read.all("img")[0]["alt"] == HOSTILE
    assert read.text.count(HOSTILE) >= 8


def test_files_beside_the_page_are_named_and_not_linked(run):
    text = render(page_of(entry(run)))
    assert "see <code>curves.csv</code>." in text


def test_demo_data_is_marked_and_not_compared(tmp_path):
    written = write_run(tmp_path, "part1_baseline", FIGURES, is_demo=True)
    text = words(Reader(render(page_of(entry(read_run(written.path)), entry()))).text)
    assert "All of these experiments ran on images drawn by code" in text
    assert "not compared: demo data" in text
    assert "artists, drawn by code: 451 images" in text
    assert ".500 ± .020 .500 demo data Niaz, 1.2" in text
    assert "agree " not in text
    assert "Where we differ" not in text


def test_other_data_is_not_compared(tmp_path):
    six = tuple("abcdef")
    written = write_run(tmp_path, "part2_mlp", FIGURES, classes=six)
    text = words(Reader(render(page_of(entry(read_run(written.path))))).text)
    assert "not compared: other data" in text
    assert ".500 ± .020 .500 other data Niaz, 1.2" in text
    assert "ours is higher Niaz" not in text
    assert "Where we differ" not in text


def test_what_was_not_run_is_listed_with_its_command():
    page = page_of(entry(), entry(anchor="b", problem="error: no such folder"))
    text = words(Reader(render(page)).text)
    assert "0 of 2 experiments have been run" in text
    assert text.count("python -m experiments.part1_baseline") == 4
    assert "error: no such folder This command runs it:" in text


def test_a_missing_image_leaves_a_visible_hole(tmp_path, capsys):
    outside = tmp_path / "outside.png"
    written = write_run(tmp_path / "runs", "part1_baseline", FIGURES)
    shutil.copy(written.path / "curves.png", outside)
    report = written.path / "report.md"
    away = report.read_text().replace("(curves.png)", "(../../../outside.png)")
    (written.path / "curves.png").unlink()
    for content in (report.read_text(), away):
        report.write_text(content)
        read = Reader(render(page_of(entry(read_run(written.path)))))
        assert read.all("img") == []
        assert "is missing. It shows: Accuracy over epochs." in words(read.text)
        assert "left out" in capsys.readouterr().err


def test_a_run_without_a_report_shows_its_figures(tmp_path):
    path = write_run(tmp_path, "part1_baseline", FIGURES).path
    (path / "report.md").unlink()
    text = words(Reader(render(page_of(entry(read_run(path))))).text)
    assert "near/val_accuracy .500 ± .020 3 accuracy" in text
    assert "How well?" in text


def test_parts_of_a_run_are_folded(tmp_path):
    whole = write_run(tmp_path, "part1_baseline", FIGURES).path
    inner = f"part1_baseline/{whole.name}"
    write_run(tmp_path, inner, FIGURES, name="vgg12")
    read = Reader(render(page_of(entry(read_run(whole)))))
    assert "vgg12: more of this part" in words(read.text)
    assert len(read.all("img")) == 2


def test_learning_rates_are_not_rounded_to_nothing(tmp_path):
    figures = {"tuned/rate": [0.0001, 0.0003], "tuned/one": [2.5e-5]}
    run = read_run(write_run(tmp_path, "comics_tune", figures).path)
    entries = [{"row": "tuned", "metric": "rate", "value": 1e-4, "source": "a report"}]
    comparisons = compare(entries, run.results, dataset="artists")
    page = page_of(entry(run, comparisons=comparisons))
    text = words(Reader(render(page)).text)
    assert "tuned rate 0.0002 ± 0.0001 0.0001 agrees" in text
    assert "2.5e-05" in text


def test_warnings_stand_at_the_top(run):
    page = page_of(entry(run), warnings=["runs/x: damaged"])
    assert "Left out: runs/x: damaged" in words(Reader(render(page)).text)


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no Chromium")
def test_it_fits_a_screen_and_a_telephone(run, tmp_path):
    """Nothing is wider than the window, and the browser loads nothing."""
    header, row = ["x" * 30] * 6, ["word " * 20, "y" * 200, *"1234"]
    long = Section("Long", [Table(header, [row])])
    code = Section("Code", [Code("python " + "z" * 300)])
    report = "\n\n".join([run.report, long.render(), code.render()])
    wide = dataclasses.replace(run, report=report)
    page = html.escape(render(page_of(entry(wide), entry(anchor="absent"))))
    frames = "".join(
        f'<iframe width="{width}" height="800" srcdoc="{page}"></iframe>'
        for width in (400, 1280)
    )
    script = """<script>onload = () => {
      for (const frame of document.querySelectorAll("iframe")) {
        const inner = frame.contentWindow, root = inner.document.documentElement;
        const found = inner.performance.getEntriesByType("resource")
          .filter(entry => !entry.name.startsWith("data:")).length;
        const line = document.createElement("p");
        line.textContent = `width ${frame.width} lacks ` +
          `${root.scrollWidth - root.clientWidth} loads ${found}`;
        document.body.append(line);
        frame.remove();
      }
    }</script>"""
    frames_page = tmp_path / "frames.html"
    frames_page.write_text(f"{frames}{script}", "utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    dom = subprocess.run(
        ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", profile,
         "--dump-dom", frames_page.as_uri()],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    shown = re.findall(r"width (\d+) lacks (\d+) loads (\d+)", dom)
    assert shown == [("400", "0", "0"), ("1280", "0", "0")]
