"""The command line of pretrained weights.

python -m jaxvision.pretrained list | fetch NAME | convert NAME FILE | verify NAME
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision.errors import InputError, exit_on_input_error
from jaxvision.pretrained import SOURCES, cache_folder, find_source, load, store
from jaxvision.pretrained.convert import read_variables
from jaxvision.pretrained.fetch import fetch, file_digest, find_file
from jaxvision.pretrained.sources import Source
from jaxvision.storage import CACHE_VARIABLE

LOGITS_TOLERANCE = 5e-4
"""Float32 sums in another order differ by less; a wrong epsilon or padding by more."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    with exit_on_input_error():
        options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxvision.pretrained",
        description="Published weights: list them, bring them here, convert, verify."
        f" They are kept in {cache_folder()} (environment variable {CACHE_VARIABLE}).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("list", help="show what there is and where it comes from")
    add.set_defaults(run=_list)
    add = commands.add_parser(
        "fetch", help="bring the published file here and check it"
    )
    add.add_argument("name", metavar="NAME", help=", ".join(SOURCES))
    add.set_defaults(run=_fetch)
    add = commands.add_parser("convert", help="convert a file that is already here")
    add.add_argument("name", metavar="NAME", help=", ".join(SOURCES))
    add.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a torch state dict, .pth, or Keras's .h5",
    )
    add.set_defaults(run=_convert)
    add = commands.add_parser(
        "verify", help="check hash, conversion, values and the network's answer"
    )
    add.add_argument("name", metavar="NAME", help=", ".join(SOURCES))
    add.set_defaults(run=_verify)
    return parser


def _list(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("name", no_wrap=True)
    for heading in ("top-1 %", "MB", "here", "license"):
        table.add_column(heading, overflow="fold")
    for source in SOURCES.values():
        table.add_row(
            source.name,
            f"{source.top1:g}",
            _megabytes(source),
            _state(source),
            source.license,
        )
    console = Console()
    console.print(table)
    for source in SOURCES.values():
        console.print(f"{source.name}: {source.origin}", soft_wrap=True)
    console.print(f"cache ({CACHE_VARIABLE}): {cache_folder()}", soft_wrap=True)


def _megabytes(source: Source) -> str:
    return "–" if source.size_bytes is None else f"{source.size_bytes / 1e6:.0f}"


def _state(source: Source) -> str:
    if store.is_whole(store.converted_folder(source, source.digest)):
        return "converted"
    try:
        return "file" if find_file(source) is not None else "no"
    except InputError:
        return "no (package missing)"


def _fetch(options: argparse.Namespace) -> None:
    source = find_source(options.name)
    print(f"cache ({CACHE_VARIABLE}): {cache_folder()}", file=sys.stderr)
    print(fetch(source))


def _convert(options: argparse.Namespace) -> None:
    source = find_source(options.name)
    pretrained = load(source.name, weights=options.file)
    digest = file_digest(options.file, source)
    if digest != source.digest:
        print(
            f"note: {options.file} fits, but is not the published file (its"
            f" {source.algorithm.upper()} is {digest}): give it as --weights to use it"
        )
    print(f"{source.name}: {pretrained.report.summary()}")
    print(store.converted_folder(source, digest))


def _verify(options: argparse.Namespace) -> None:
    from jaxvision.pretrained.golden import GOLDEN_LOGITS

    source = find_source(options.name)
    file = fetch(source)
    what = "its" if source.size_bytes is None else "size and"
    print(f"ok    {file}: {what} {source.algorithm.upper()} is the published one")
    variables, report = read_variables(file, source)
    print(f"ok    converted both ways, all values finite: {report.summary()}")
    if source.name not in GOLDEN_LOGITS:
        print("skip  no reference logits are stored for these weights")
        return
    off = _logits_error(source, variables)
    if not off <= LOGITS_TOLERANCE:
        raise InputError(
            f"{file}: the logits of {source.name} are {off:.2g} off the reference's"
            f" (allowed: {LOGITS_TOLERANCE:g}); this machine computes them wrongly"
        )
    print(f"ok    logits of the drawn image within {off:.1g} of the reference's")


def _logits_error(source: Source, variables: dict) -> float:
    import jax
    import numpy as np

    from jaxvision.models import create_model
    from jaxvision.pretrained.golden import (
        GOLDEN_CLASSES,
        GOLDEN_LOGITS,
        drawn_image,
    )

    image = drawn_image(source.preprocessing.size[0])
    images = source.preprocessing.normalize(image[None])
    model = create_model(source.model, source.num_classes)
    with jax.default_matmul_precision("highest"):
        logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    found = np.asarray(logits)[0, list(GOLDEN_CLASSES)]
    return float(np.abs(found - np.array(GOLDEN_LOGITS[source.name])).max())


if __name__ == "__main__":
    main()
