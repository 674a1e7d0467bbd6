"""`jaxvision weights …`: published weights, downloaded, converted and verified."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxvision.cli.flags import Shown, run
from jaxvision.errors import InputError
from jaxvision.storage import CACHE_VARIABLE, cache_folder

if TYPE_CHECKING:
    from jaxvision.pretrained import Source

TOLERANCE = 5e-4
"""Float32 sums in another order differ by less; a wrong epsilon or padding by more."""

Name = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME"), Shown("NAME")
]


@dataclasses.dataclass(frozen=True)
class _List:
    """Lists the pretrained weights, and where they come from."""


@dataclasses.dataclass(frozen=True)
class _Fetch:
    """Downloads the published file, unless it is here, and checks it."""

    name: Name
    """Of the weights; `jaxvision weights list` shows them."""


@dataclasses.dataclass(frozen=True)
class _Convert:
    """Converts a file of weights that is already here."""

    name: Name
    """Of the weights; `jaxvision weights list` shows them."""
    file: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE"), Shown("FILE")
    ]
    """A torch state dict, .pth, Keras's .h5, or .safetensors."""


@dataclasses.dataclass(frozen=True)
class _Verify:
    """Checks hash, conversion, values and the network's answer."""

    name: Name
    """Of the weights; `jaxvision weights list` shows them."""


def show(arguments: Sequence[str]) -> None:
    run(_List, _show, arguments, "jaxvision weights list")


def fetch(arguments: Sequence[str]) -> None:
    run(_Fetch, _fetch, arguments, "jaxvision weights fetch")


def convert(arguments: Sequence[str]) -> None:
    run(_Convert, _convert, arguments, "jaxvision weights convert")


def verify(arguments: Sequence[str]) -> None:
    run(_Verify, _verify, arguments, "jaxvision weights verify")


def _show(config: _List) -> None:
    from rich.console import Console
    from rich.table import Table

    from jaxvision.pretrained import SOURCES

    table = Table()
    table.add_column("name", no_wrap=True)
    for heading in ("top-1 %", "MB", "here", "license"):
        table.add_column(heading, overflow="fold")
    for source in SOURCES.values():
        table.add_row(
            source.name,
            "–" if source.top1 is None else f"{source.top1:g}",
            _megabytes(source),
            _state(source),
            source.license,
        )
    console = Console()
    console.print(table)
    for source in SOURCES.values():
        console.print(f"{source.name}: {source.origin}", soft_wrap=True)
    console.print(f"cache ({CACHE_VARIABLE}): {cache_folder()}", soft_wrap=True)


def _megabytes(source: "Source") -> str:
    return "–" if source.size_bytes is None else f"{source.size_bytes / 1e6:.0f}"


def _state(source: "Source") -> str:
    from jaxvision.pretrained import store
    from jaxvision.pretrained.fetch import find_file

    if store.is_whole(store.converted_folder(source, source.digest)):
        return "converted"
    try:
        return "file" if find_file(source) is not None else "no"
    except InputError:
        return "no (package missing)"


def _fetch(config: _Fetch) -> None:
    from jaxvision.pretrained import find_source
    from jaxvision.pretrained.fetch import fetch

    source = find_source(config.name)
    print(f"cache ({CACHE_VARIABLE}): {cache_folder()}", file=sys.stderr)
    print(fetch(source))


def _convert(config: _Convert) -> None:
    from jaxvision.pretrained import find_source, load, store
    from jaxvision.pretrained.fetch import file_digest

    source = find_source(config.name)
    pretrained = load(source.name, weights=config.file)
    digest = file_digest(config.file, source)
    if digest != source.digest:
        print(
            f"note: {config.file} fits, but is not the published file (its"
            f" {source.algorithm.upper()} is {digest}): give it as --weights to use it"
        )
    print(f"{source.name}: {pretrained.report.summary()}")
    print(store.converted_folder(source, digest))


def _verify(config: _Verify) -> None:
    from jaxvision.pretrained import find_source
    from jaxvision.pretrained.convert import read_variables
    from jaxvision.pretrained.fetch import fetch
    from jaxvision.pretrained.golden import GOLDEN_ANSWERS, answer_error

    source = find_source(config.name)
    file = fetch(source)
    what = "its" if source.size_bytes is None else "size and"
    print(f"ok    {file}: {what} {source.algorithm.upper()} is the published one")
    variables, report = read_variables(file, source)
    print(f"ok    converted both ways, all values finite: {report.summary()}")
    if source.name not in GOLDEN_ANSWERS:
        print("skip  no reference answers are stored for these weights")
        return
    off = answer_error(source, variables)
    if not off <= TOLERANCE:
        raise InputError(
            f"{file}: the answers of {source.name} are {off:.2g} off the reference's"
            f" (allowed: {TOLERANCE:g}); this machine computes them wrongly"
        )
    print(f"ok    answer to the drawn image within {off:.1g} of the reference's")
