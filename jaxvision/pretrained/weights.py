"""Pretrained weights by name, and which of them to use."""

import dataclasses
from pathlib import Path

from jaxvision.errors import InputError
from jaxvision.pretrained import fetch, store
from jaxvision.pretrained.convert import Report, Variables, read_variables
from jaxvision.pretrained.sources import SOURCES, Source, find_source

PREFERRED = "alexnet"
"""What "auto" takes if it can: the backbone of the published experiments."""
BUNDLED = "efficientnet_lite0"
"""What it takes otherwise: its weights come with the installation."""


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
        return Pretrained(variables, source, report)
    file = fetch.fetch(source, download=download) if weights is None else weights
    variables, report = read_variables(file, source)
    store.save(folder, variables, report, source, digest)
    return Pretrained(variables, source, report)


def choose_backbone(name: str) -> Choice:
    """The backbone to use: the one asked for, or for "auto" the best within reach.

    "auto" is AlexNet if its weights are cached or can be downloaded, otherwise
    EfficientNet-Lite0. Nothing is downloaded here; a host that is out of reach costs
    seconds.

    Raises:
      InputError: the name is neither "auto" nor a key of `SOURCES`.
    """
    if name != "auto":
        if name not in SOURCES:
            raise InputError(
                f"no backbone {name!r}; there are: auto, {', '.join(SOURCES)}"
            )
        return Choice(name, "it was asked for")
    source = SOURCES[PREFERRED]
    if store.is_whole(store.converted_folder(source, source.digest)):
        return Choice(PREFERRED, "its converted weights are in the cache")
    if fetch.find_file(source) is not None:
        return Choice(PREFERRED, "its weights are in the cache")
    problem = fetch.out_of_reach(source.location)
    if problem is None:
        megabytes = source.size_bytes / 1e6
        return Choice(PREFERRED, f"its weights can be downloaded ({megabytes:.0f} MB)")
    return Choice(
        BUNDLED,
        f"its weights come with the installation, and those of {PREFERRED} are neither"
        f" cached nor within reach ({problem})",
    )


def _digest(weights: Path, source: Source) -> str:
    try:
        return fetch.file_digest(weights, source)
    except OSError as error:
        raise InputError(
            f"the weights {weights} cannot be read: {error.strerror or error}; give the"
            " path of a file"
        ) from None
