"""Pretrained weights by name, and which of them to use."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvision.errors import InputError
from jaxvision.pretrained import fetch, store
from jaxvision.pretrained.convert import Report, Variables, read_variables
from jaxvision.pretrained.sources import SOURCES, Source, find_source

PREFERRED = ("alexnet", "efficientnet_lite0")
"""What "auto" takes, the first within reach: the backbone of the published experiments,
and one whose weights come with the installation."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A network's published values."""

    variables: Variables
    """`params` and `batch_stats`: NumPy float32, as `model.apply` takes them."""
    source: Source
    report: Report


@dataclasses.dataclass(frozen=True)
class Choice:
    """A backbone, and why this one."""

    name: str
    reason: str
    """Half a sentence for people: it follows "because"."""


def load(
    name: str, *, weights: Path | None = None, download: bool = True
) -> Pretrained:
    """Pretrained variables, converted once and then read from the cache.

    Args:
      name: a key of `SOURCES`.
      weights: a file that was brought here otherwise; None for the published one.
      download: False to use only what is on this machine.

    Raises:
      InputError: no such weights; they are out of reach; the file is damaged or not
        this network's; the cache cannot be written.
    """
    source = find_source(name)
    digest = source.digest if weights is None else _digest(weights, source)
    folder = store.converted_folder(source, digest)
    if store.is_whole(folder):
        variables, report = store.restore(folder)
    else:
        file = fetch.fetch(source, download=download) if weights is None else weights
        variables, report = read_variables(file, source)
        store.save(folder, variables, report, source, digest)
    if report.prefix:
        print(
            f"{weights}: {report.prefix!r} before the names of all arrays is passed "
            "over",
            file=sys.stderr,
        )
    return Pretrained(variables, source, report)


def choose_backbone(name: str, prefer: Sequence[str] = PREFERRED) -> Choice:
    """The backbone to use: the one asked for, or for "auto" the first within reach.

    Within reach are weights that are cached or installed, and such that can be
    downloaded, unless others of the same network come after them and need not be.
    Nothing is downloaded here; a host that is out of reach costs seconds.

    Args:
      name: a key of `SOURCES`, or "auto".
      prefer: what "auto" takes, best first: keys of `SOURCES`. The last is what remains
        when none is within reach.

    Raises:
      InputError: the name is neither "auto" nor a key of `SOURCES`.
    """
    if name != "auto":
        if name not in SOURCES:
            raise InputError(
                f"no backbone {name!r}; there are: auto, {', '.join(SOURCES)}"
            )
        return Choice(name, "it was asked for")
    here = {each: _is_here(find_source(each)) for each in prefer}
    missed: list[str] = []
    for place, each in enumerate(prefer):
        source = SOURCES[each]
        if here[each] is not None:
            return Choice(each, "; ".join([f"its {here[each]}", *missed]))
        if source.package is not None:
            missed.append(f"{each} is not installed (package {source.package})")
        elif any(
            here[other] is not None and SOURCES[other].model == source.model
            for other in prefer[place + 1 :]
        ):
            missed.append(f"{each} is not cached")
        elif (problem := fetch.out_of_reach(source.location)) is not None:
            missed.append(f"{each} is neither cached nor within reach ({problem})")
        else:
            size = "" if (n := source.size_bytes) is None else f" ({n / 1e6:.0f} MB)"
            reason = f"its weights can be downloaded{size}"
            return Choice(each, "; ".join([reason, *missed]))
    return Choice(prefer[-1], "; ".join(missed))


def _is_here(source: Source) -> str | None:
    """What is on this machine of a source, in words that follow "its"."""
    if store.is_whole(store.converted_folder(source, source.digest)):
        return "converted weights are in the cache"
    try:
        if fetch.find_file(source) is None:
            return None
    except InputError:  # its package is not installed, or not whole
        return None
    if source.package is not None:
        return f"weights are installed (package {source.package})"
    return "weights are in the cache"


def _digest(weights: Path, source: Source) -> str:
    try:
        return fetch.file_digest(weights, source)
    except OSError as error:
        raise InputError(
            f"the weights {weights} cannot be read: {error.strerror or error}; give the"
            " path of a file"
        ) from None
