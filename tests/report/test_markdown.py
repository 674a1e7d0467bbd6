"""`report.md`: what is in it, and that a Markdown reader sees what was meant."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from jaxvision.errors import InputError
from jaxvision.report.markdown import (
    DEMO_WARNING,
    LONGEST_CELL,
    LONGEST_LIST,
    Code,
    Image,
    Section,
    Table,
    bad_images_section,
    duplicates_section,
    escape,
    splits_section,
    use_section,
    write_report,
)
from jaxvision.report.run_folder import DataSummary, Measurement, RunFolder

HOSTILE = [
    "a|b",
    "*bold* _it_ __x__",
    "<b>tag</b> &lt;",
    "[x](y)",
    "`code`",
    "two\nlines",
    "back\\slash\\|",
    "~~gone~~",
    "snake_case_name",
]


def html(markdown: str) -> ElementTree.Element:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return ElementTree.fromstring(f"<page>{reader.render(markdown)}</page>")


def cells(page: ElementTree.Element) -> list[list[str]]:
    """The text of every table row."""
    return [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]


def finished_run(root: Path, *, is_demo: bool) -> RunFolder:
    folder = RunFolder.create(
        "part2_mlp", root=root, command="python -m experiments.part2_mlp --seeds '0 1'"
    )
    folder.write_config({"optim": {"learning_rate": 1e-3}, "sizes": (28, 28)})
    folder.write_results(
        [
            Measurement("accuracy", [0.8, 0.9], [0, 1]),
            Measurement("time | all", [12.5], [0], unit="s", split="train"),
        ],
        data=DataSummary("faces", "data/faces", is_demo, 12, ("ada", "bo|b")),
        seconds=75,
        headline=["accuracy"],
        devices=["a device"],
    )
    folder.save_figure("curves", Figure(figsize=(1, 1)))
    return folder


@pytest.mark.parametrize("text", HOSTILE)
def test_cells_show_any_text_letter_for_letter(text: str) -> None:
    table = Table(["name", text], [[text, 1], ["x", 2]])
    header, first, _ = cells(html(table.render()))
    shown = " ".join(text.split())
    assert header == ["name", shown]
    assert first == [shown, "1"]


def test_numbers_stand_right() -> None:
    table = Table(["name", "share"], [["a", 0.5], ["b", 12]])
    assert table.render().splitlines() == [
        "| name | share |",
        "| --- | ---: |",
        "| a | .500 |",
        "| b | 12 |",
    ]


def test_underscores_within_words_stay_readable() -> None:
    assert escape("learning_rate") == "learning_rate"


def test_code_that_holds_a_fence() -> None:
    code = "cat <<E\n```\nE"
    page = html(Code(code).render())
    assert page.findtext("pre/code") == code + "\n"


def test_the_report_holds_everything(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, is_demo=True)
    path = write_report(
        folder,
        title="Faces with an MLP",
        question="How far does a plain network get?",
        sections=[
            Section(
                "Learning curves", [Image("curves.png", "loss, accuracy", "Curves")]
            ),
            bad_images_section([("a|b.jpg", "truncated")], "bad.csv"),
        ],
    )
    text = path.read_text("utf-8")
    page = html(text)
    rows = cells(page)
    assert text.index(DEMO_WARNING) < text.index("How far does")
    assert ["accuracy", ".850 ± .071", "2", "accuracy"] in rows
    assert ["time | all", "12.50", "1", "s"] not in rows
    assert "Data: faces, 12 images of 2 classes, drawn by code. The run took" in text
    assert ["a|b.jpg", "truncated"] in rows
    assert ["optim.learning_rate", "0.001"] in rows
    assert ["sizes", "28, 28"] in rows
    assert ["duration", "1:15"] in rows
    assert ["devices", "a device"] in rows
    assert "numpy" in [row[0] for row in rows]
    assert page.findtext("pre/code") == f"{folder.command}\n"
    (image,) = page.iter("img")
    assert image.attrib == {"src": "curves.png", "alt": "loss, accuracy"}
    headings = [heading.text for heading in page.iter("h2")]
    assert headings == ["Results", "Learning curves", "Details"]
    assert [heading.text for heading in page.iter("h3")] == [
        "Bad images", "How to run it again", "Settings", "Versions and machine",
    ]  # fmt: skip


def test_real_data_has_no_warning(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, is_demo=False)
    path = write_report(folder, title="t", question="q", sections=[])
    assert "Demo" not in path.read_text("utf-8")


def test_a_report_needs_results_and_images(tmp_path: Path) -> None:
    empty = RunFolder.create("mlp", root=tmp_path)
    with pytest.raises(InputError, match="has not finished"):
        write_report(empty, title="t", question="q", sections=[])
    section = Section("x", [Image("missing.png", "nothing")])
    run = finished_run(tmp_path, is_demo=False)
    with pytest.raises(FileNotFoundError):
        write_report(run, title="t", question="q", sections=[section])
    assert not (run.path / "report.md").exists()


def test_lists_print_how_many_more_there_are() -> None:
    bad = [(f"{n}.jpg", "truncated") for n in range(LONGEST_LIST + 3)]
    page = html(bad_images_section(bad, "all bad.csv").render())
    assert len(cells(page)) == LONGEST_LIST + 1
    assert "and 3 more" in "".join(page.itertext())
    (link,) = page.iter("a")
    assert link.attrib["href"] == "all%20bad.csv"


def test_identical_images_of_two_classes_come_first() -> None:
    groups = [("a/1.jpg", "a/2.jpg"), ("a/3.jpg", "b/1.jpg", "b/2.jpg")]
    section = duplicates_section(groups, "d.csv", conflicts=groups[1:])
    assert cells(html(section.render()))[1:] == [
        ["3", "no", "a/3.jpg, b/1.jpg, b/2.jpg"],
        ["2", "yes", "a/1.jpg, a/2.jpg"],
    ]


def test_splits_add_up() -> None:
    counts = {"train": [70, 70], "val": [4, 5], "test": [4, 6]}
    section = splits_section(counts, ["ada", "bob"], "splits.csv")
    assert cells(html(section.render())) == [
        ["class", "train", "val", "test"],
        ["ada", "70", "4", "4"],
        ["bob", "70", "5", "6"],
        ["all", "140", "9", "10"],
    ]
    noted = splits_section(counts, ["ada", "bob"], "splits.csv", note="70 pairs")
    assert "splits.csv). 70 pairs.\n" in f"{noted.render()}\n"


def test_commands_survive_a_folder_with_spaces() -> None:
    section = use_section(Path("my runs/a"), resume="jaxvision train --resume x")
    page = html(section.render())
    assert (page.findtext("pre/code") or "").splitlines() == [
        "jaxvision evaluate 'my runs/a'",
        "jaxvision predict 'my runs/a' IMAGE.jpg",
        "jaxvision explain 'my runs/a' IMAGE.jpg",
        "jaxvision train --resume x  # continues the run",
    ]


def test_long_cells_are_shortened() -> None:
    (_, _, row) = Table(["class"], [["x" * 500 + "y"]]).render().splitlines()
    assert len(row) == LONGEST_CELL + len("|  |")
    assert row.startswith("| xxx")
    assert row.endswith("xy |")
