"""`jaxvision data …`: folders of images, prepared, drawn or downloaded."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvision.cli.flags import Shown, cast, run, variant
from jaxvision.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from jaxvision.data.facescrub import Face, Outcome

GOES_ON = "interrupted; the same command goes on from here"

_MALFORMED_SHOWN = 5


def prepare(arguments: Sequence[str]) -> None:
    """Decodes a folder of images once, into shards that any training run reads.

    jaxvision data prepare PHOTOS OUT --size 96 --gray

    The result is a folder that training takes in place of the images, with the same
    numbers.
    """
    from jaxvision.data.prepare import PrepareConfig

    changes = {"root": _place(Path, "PHOTOS"), "out": _place(Path, "OUT")}
    _run("prepare", PrepareConfig, changes, _prepare, arguments, prepare.__doc__)


def demo(arguments: Sequence[str]) -> None:
    """Draws a demo set: one subfolder of JPEGs per class.

    jaxvision data demo faces OUT
    """
    from jaxvision.data.demo import DemoConfig, DemoKind

    changes = {"kind": _place(DemoKind, "KIND"), "out": _place(Path, "OUT")}
    _run("demo", DemoConfig, changes, _demo, arguments, demo.__doc__)


def comics(arguments: Sequence[str]) -> None:
    """Draws a comic of each face of a folder: the classes face and comic, in pairs.

    jaxvision data comics FACES OUT
    """
    from jaxvision.data.comics import ComicsConfig

    changes = {"faces": _place(Path, "FACES"), "out": _place(Path, "OUT")}
    _run("comics", ComicsConfig, changes, _comics, arguments, comics.__doc__)


def facescrub(arguments: Sequence[str]) -> None:
    """Downloads, verifies and crops the faces of FaceScrub's lists.

    jaxvision data facescrub LISTS --out data/facescrub

    The result has one subfolder per person. A second call downloads only what is still
    missing.
    """
    from jaxvision.data.facescrub import FaceScrubConfig

    changes = {"list": _place(tuple[Path, ...], "LISTS")}
    _run(
        "facescrub", FaceScrubConfig, changes, _facescrub, arguments, facescrub.__doc__
    )


def _place(kind: Any, name: str) -> Any:
    """The type of a field that is given by its place on the command line."""
    return Annotated[
        kind, tyro.conf.Positional, tyro.conf.arg(metavar=name), Shown(name)
    ]


def _run(
    name: str,
    kind: type,
    changes: Mapping[str, Any],
    function: Any,
    arguments: Sequence[str],
    about: str | None,
) -> None:
    """Runs `function` of a config of the library, some of whose fields are places."""
    run(
        variant(kind, changes),
        lambda config: function(cast(kind, config)),
        arguments,
        f"jaxvision data {name}",
        about,
        interrupted=GOES_ON,
    )


def _prepare(config: Any) -> None:
    from jaxvision.data import prepare as module
    from jaxvision.report.progress import Progress

    with Progress("preparing", unit="images") as progress:
        found = module.prepare(config, progress=progress)
    prepared = found.prepared
    for path, reason in prepared.bad.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    print(
        f"{config.out}: {len(prepared.records)} images of "
        f"{len(prepared.folder_index.classes)} classes in {len(prepared.shards)} "
        f"shards, {len(prepared.bad)} left out"
        + ("" if found.new else "; already complete and undamaged, nothing to do")
    )


def _demo(config: Any) -> None:
    from jaxvision.data.demo import write_demo
    from jaxvision.report.progress import Progress

    with Progress("drawing", unit="images") as progress:
        written = write_demo(config, progress=progress)
    state = "drawn" if written.drawn else "already complete, nothing to do"
    print(
        f"{config.out}: {sum(written.counts.values())} images of "
        f"{len(written.counts)} classes, {state}"
    )
    if config.contact_sheet is not None:
        print(config.contact_sheet)


def _comics(config: Any) -> None:
    from jaxvision.data.comics import write_comics
    from jaxvision.report.progress import Progress

    with Progress("drawing", unit="pairs") as progress:
        written = write_comics(config, progress=progress)
    for image in written.bad:
        print(f"left out: {image}", file=sys.stderr)
    print(f"{config.out}: {written.pairs} faces and their comics")


def _facescrub(config: Any) -> None:
    from rich.console import Console

    from jaxvision.data.facescrub import prepare_facescrub
    from jaxvision.report.progress import Progress

    if not config.list:
        raise InputError("give one or more lists", setting="list")
    with Progress("FaceScrub", unit="faces") as progress:
        prepared = prepare_facescrub(config, progress=progress)
    _print_malformed(prepared.malformed)
    Console().print(_table(prepared.outcomes))
    print(_hint(config.out, prepared.outcomes.values()))
    print(config.out)


def _print_malformed(malformed: Sequence[str]) -> None:
    if malformed:
        print(f"{len(malformed)} malformed lines are left out:", file=sys.stderr)
        for line in malformed[:_MALFORMED_SHOWN]:
            print(f"  {line}", file=sys.stderr)
        if len(malformed) > _MALFORMED_SHOWN:
            print("  …", file=sys.stderr)


def _table(outcomes: "Mapping[Face, Outcome]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from jaxvision.data.facescrub import STATUSES, count_by_person, count_by_status

    def cells(counts: Mapping[Any, int]) -> list[str]:
        return [str(count) for count in (*counts.values(), sum(counts.values()))]

    table = Table(box=SIMPLE_HEAD)
    table.add_column("person", no_wrap=True)
    for column in (*STATUSES, "total"):
        table.add_column(column, justify="right")
    for name, counts in count_by_person(outcomes).items():
        # As Text: a name is data, never rich's markup.
        table.add_row(Text(name), *cells(counts))
    table.add_section()
    table.add_row("total", *cells(count_by_status(outcomes.values())))
    return table


def _hint(out: Path, outcomes: "Iterable[Outcome]") -> str:
    failed = Counter(outcome.final for outcome in outcomes if outcome.status != "ok")
    hint = f"Every row and its reason: {out / 'rows.csv'}."
    if failed[True]:
        hint += " Failed rows are remembered; --retry-failed asks again."
    if failed[False]:
        hint += " Where no server could be asked, the next call asks."
    return hint
