"""The files of a data set: hashed and decoded, none more often than needed."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL

from jaxvision.data import decode
from jaxvision.data.config import DataConfig
from jaxvision.data.prepared import Prepared, geometry
from jaxvision.data.similar import difference_hash
from jaxvision.data.store import Images, ImageStore, LazyImages
from jaxvision.data.workers import map_in_order
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.typing import Progress

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class DecodedFiles:
    """What reading some files gave.

    Attributes:
      places: index into `store` of each usable image, by path.
      digests: SHA-256 of the file of each usable image, by path.
      bad: why each of the others can't be used, by path.
      hashes: `similar.difference_hash` of each usable image, by path; nothing where
        images are decoded later.
      store: pixels, as from `decode.decode_stored`.
      pillow: version that decoded them.
    """

    places: Mapping[str, int]
    digests: Mapping[str, str]
    bad: Mapping[str, str]
    hashes: Mapping[str, bytes]
    store: Images
    pillow: str


class ImageReader:
    """Reads the images of a folder or of a prepared set."""

    def __init__(
        self, root: Path, prepared: Prepared | None, config: DataConfig
    ) -> None:
        """Reads nothing yet.

        Args:
          root: what paths are relative to.
          prepared: the manifest of a prepared set at `root`.
          config: `on_bad`, `decode` and what the images may cost are used.
        """
        self._root = root
        self._prepared = prepared
        self._config = config
        self._digests: dict[str, str] = {}
        self._last: tuple[dict[str, Any], DecodedFiles] | None = None

    def digests(self, images: Sequence[str]) -> list[str]:
        """SHA-256 of each file; empty for one that can't be read."""
        if self._prepared is not None:
            record, known = self._prepared.records, self._prepared.digests
            return [known[record[path]] if path in record else "" for path in images]
        missing = [path for path in images if path not in self._digests]
        read = functools.partial(_digest, self._root)
        for path, outcome in zip(missing, self._map(read, missing), strict=True):
            self._digests[path] = (
                "" if isinstance(outcome, decode.BadImage) else outcome
            )
        return [self._digests[path] for path in images]

    def digest(self, image: str) -> str:
        """SHA-256 of one file; empty if it can't be read."""
        return self.digests([image])[0]

    def decode(
        self,
        images: Sequence[str],
        preprocessing: Preprocessing,
        progress: Progress | None = None,
    ) -> DecodedFiles:
        """Decodes images; what was decoded last is kept and used again.

        Args:
          images: paths relative to the root.
          preprocessing: the geometry they are decoded to.
          progress: told (images done, images in all).

        Raises:
          InputError: a bad image, where it is to end the run; a prepared set of another
            geometry; no room for the pixels.
        """
        decode.check_geometry(preprocessing)
        wanted = geometry(preprocessing)
        if self._last is not None and self._last[0] == wanted:
            found = self._last[1]
            if all(path in found.places or path in found.bad for path in images):
                return found
        self._last = None  # its pixels, before others come
        if self._prepared is not None:
            found = self._take_prepared(self._prepared, images, preprocessing)
        elif self._config.decode == "first":
            found = self._decode_all(images, preprocessing, progress)
        else:
            found = self._decode_later(images, preprocessing, progress)
        self._last = wanted, found
        return found

    def _decode_all(
        self,
        images: Sequence[str],
        preprocessing: Preprocessing,
        progress: Progress | None,
    ) -> DecodedFiles:
        """Decodes every image, once, into memory or a file."""
        config = self._config
        store = ImageStore(
            config.cache_mb << 20,
            folder=config.cache_dir,
            shared=config.num_workers > 0,
        )
        places: dict[str, int] = {}
        digests: dict[str, str] = {}
        bad: dict[str, str] = {}
        hashes: dict[str, bytes] = {}
        read = functools.partial(_read_and_hash, self._root, preprocessing)
        with decode.quiet_pillow():
            results = zip(images, self._map(read, images), strict=True)
            for done, (path, (digest, outcome, similar)) in enumerate(results, 1):
                if isinstance(outcome, decode.BadImage):
                    if config.on_bad == "error":
                        raise _refusal(outcome)
                    bad[path] = outcome.reason
                else:
                    store.append(outcome)
                    places[path] = len(places)
                    digests[path] = digest
                    hashes[path] = similar
                if progress is not None:
                    progress(done, len(images))
        self._digests |= digests
        return DecodedFiles(places, digests, bad, hashes, store, PIL.__version__)

    def _decode_later(
        self,
        images: Sequence[str],
        preprocessing: Preprocessing,
        progress: Progress | None,
    ) -> DecodedFiles:
        """Reads files for their digests alone; pixels come when they are asked for."""
        digests: dict[str, str] = {}
        read = functools.partial(_digest, self._root)
        for path, outcome in zip(images, self._map(read, images), strict=True):
            if isinstance(outcome, decode.BadImage):
                raise _met_in_training(outcome)
            digests[path] = outcome
            if progress is not None:
                progress(len(digests), len(images))
        self._digests |= digests
        store = ImageStore(self._config.cache_mb << 20, folder=self._config.cache_dir)
        load = functools.partial(_decode_one, self._root, images, preprocessing)
        places = {path: number for number, path in enumerate(images)}
        pixels = LazyImages(load, len(images), store)
        return DecodedFiles(places, digests, {}, {}, pixels, PIL.__version__)

    def _take_prepared(
        self, prepared: Prepared, images: Sequence[str], preprocessing: Preprocessing
    ) -> DecodedFiles:
        """The same from a prepared set, where it has been done."""
        prepared.check_geometry(preprocessing)
        bad = {path: prepared.bad[path] for path in images if path in prepared.bad}
        if bad and self._config.on_bad == "error":
            raise _refusal(decode.BadImage(*next(iter(bad.items()))))
        records = {path: prepared.records[path] for path in images if path not in bad}
        digests = {path: prepared.digests[number] for path, number in records.items()}
        places = {path: number for number, path in enumerate(records)}
        store = prepared.store([*records.values()])
        hashes = {path: prepared.hashes[path] for path in records if prepared.hashes}
        return DecodedFiles(places, digests, bad, hashes, store, prepared.pillow)

    def _map(
        self, function: Callable[[str], Result], images: Sequence[str]
    ) -> Iterator[Result]:
        """The results of a function of each path, in order."""
        threads = self._config.num_threads
        if threads == 0:
            yield from map(function, images)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from map_in_order(pool, function, images, ahead=4 * threads)


def _read_and_hash(
    root: Path, preprocessing: Preprocessing, image: str
) -> tuple[str, np.ndarray | decode.BadImage, bytes]:
    """As `decode.read_stored`, with the pixels' `difference_hash`; empty of none."""
    digest, outcome = decode.read_stored(root, preprocessing, image)
    if isinstance(outcome, decode.BadImage):
        return digest, outcome, b""
    return digest, outcome, difference_hash(outcome)


def _digest(root: Path, image: str) -> str | decode.BadImage:
    try:
        return hashlib.sha256(decode.read_file(root / image)[1]).hexdigest()
    except decode.BadImage as bad:
        return bad


def _decode_one(
    root: Path, images: Sequence[str], preprocessing: Preprocessing, index: int
) -> np.ndarray:
    _, outcome = decode.read_stored(root, preprocessing, images[index])
    if isinstance(outcome, decode.BadImage):
        raise _met_in_training(outcome)
    return outcome


def _met_in_training(bad: decode.BadImage) -> InputError:
    return InputError(
        f"{bad}; fix or remove it, or set `data.decode` to first, which finds such "
        "images before training and leaves them out"
    )


def _refusal(bad: decode.BadImage) -> InputError:
    return InputError(
        f"{bad}; fix or remove it, or set `data.on_bad` to skip, which leaves such "
        "images out"
    )
