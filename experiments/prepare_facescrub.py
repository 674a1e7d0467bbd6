"""FaceScrub, part 2's data: downloads, verifies and crops the faces of its lists.

The result is an image folder with one subfolder per person, ready for
`python -m experiments.part2_finetune --data.root OUT`. A second call downloads only
what is still missing, also after Ctrl-C.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxvision.data.facescrub import (
    STATUSES,
    Face,
    Outcome,
    count_by_person,
    count_by_status,
    prepare,
    read_lists,
)
from jaxvision.data.fetch import Limits
from jaxvision.errors import exit_on_input_error
from jaxvision.report.progress import Progress

_MALFORMED_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Prepares FaceScrub from its lists of addresses."""

    list: tuple[Path, ...]
    """Lists as FaceScrub publishes them: name, image id, face id, address, box and
    SHA-256, separated by tabs."""
    out: Path = Path("data/facescrub")
    """Image folder to write, one subfolder per person."""
    raw: Path | None = None
    """Folder of files named by their SHA-256, looked into before the network."""
    keep_raw: bool = False
    """Keep downloaded files in OUT/.raw, where later calls look as well."""
    download: bool = True
    """Use the network for what --raw does not hold."""
    retry_failed: bool = False
    """Ask again for what failed in an earlier call. By default dead links are
    remembered; where no server at all could be reached, nothing is."""
    workers: int = 16
    """Downloads at the same time."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    """Bounds for each download."""


def main(config: Config) -> None:
    """Fills `config.out`, prints the table and, as the last line, the folder."""
    faces, malformed = read_lists(config.list)
    _print_malformed(malformed)
    with Progress("FaceScrub", unit="faces") as progress:
        outcomes = prepare(
            faces,
            config.out,
            raw=config.raw,
            keep_raw=config.keep_raw,
            download=config.download,
            retry_failed=config.retry_failed,
            workers=config.workers,
            limits=config.limits,
            progress=progress,
        )
    Console().print(_table(outcomes))
    print(_hint(config.out, outcomes.values()))
    print(config.out)


def _print_malformed(malformed: Sequence[str]) -> None:
    if malformed:
        print(f"{len(malformed)} malformed lines are left out:", file=sys.stderr)
        for line in malformed[:_MALFORMED_SHOWN]:
            print(f"  {line}", file=sys.stderr)
        if len(malformed) > _MALFORMED_SHOWN:
            print("  …", file=sys.stderr)


def _table(outcomes: Mapping[Face, Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("person", no_wrap=True)
    for column in (*STATUSES, "total"):
        table.add_column(column, justify="right")
    people = count_by_person(outcomes)
    for name, counts in people.items():
        # As Text: a name is data, never rich's markup.
        table.add_row(Text(name), *_cells(counts))
    table.add_section()
    table.add_row("total", *_cells(count_by_status(outcomes.values())))
    return table


def _hint(out: Path, outcomes: Iterable[Outcome]) -> str:
    failed = [outcome for outcome in outcomes if outcome.status != "ok"]
    hint = f"Every row and its reason: {out / 'rows.csv'}."
    if any(outcome.final for outcome in failed):
        hint += " Failed rows are remembered; --retry-failed asks again."
    if not all(outcome.final for outcome in failed):
        hint += " Where no server could be asked, the next call asks."
    return hint


def _cells(counts: Mapping[str, int]) -> list[str]:
    return [str(count) for count in (*counts.values(), sum(counts.values()))]


if __name__ == "__main__":
    with exit_on_input_error():
        try:
            main(tyro.cli(Config))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
