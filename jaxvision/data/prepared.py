"""Prepared sets: what `jaxvision.data.prepare` wrote, read at random.

A prepared set is a folder of ArrayRecord shards, one record an image in the order of
the source folder, and `manifest.json`. Nothing of it is held in memory but the list of
images; the system's page cache, which gives way to programs, keeps records quick.
"""

import dataclasses
import functools
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvision.data.folder import FolderIndex
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import MANIFEST

if TYPE_CHECKING:
    import grain

FORMAT = "jaxvision prepared images"
"""Marks the manifest of such a set."""
VERSION = 1
"""Rises whenever older programs could not read the set."""

_HEADER = struct.Struct("<3I")
"""Before the pixels of each record: height, width and channels."""


def pack_record(pixels: np.ndarray) -> bytes:
    """A record: the shape, then the pixels, `[h, w, C]` uint8."""
    return _HEADER.pack(*pixels.shape) + pixels.tobytes()


def unpack_record(record: bytes) -> np.ndarray:
    """The inverse of `pack_record`; read-only."""
    pixels = np.frombuffer(record, np.uint8, offset=_HEADER.size)
    return pixels.reshape(_HEADER.unpack_from(record))


def geometry(preprocessing: Preprocessing) -> dict[str, Any]:
    """What of a network's preprocessing decides the pixels that are stored."""
    names = ["size", "resize_mode", "interpolation", "gray"]
    names += ["resize"] if preprocessing.resize_mode == "crop" else []
    values = {name: getattr(preprocessing, name) for name in names}
    return {**values, "size": list(preprocessing.size)}


def describe(geometry: Mapping[str, Any]) -> str:
    """A geometry by the settings of `jaxvision.data.prepare` that ask for it."""
    words = [f"size {' '.join(map(str, geometry['size']))}"]
    for name in ("resize_mode", "resize", "interpolation"):
        words += [f"{name} {geometry[name]}"] if name in geometry else []
    return ", ".join([*words, *(["gray"] if geometry["gray"] else [])])


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The manifest of a prepared set.

    Attributes:
      name: of the source folder.
      folder_index: what the source folder held, usable or not; its root is the
        prepared set.
      sizes: bytes of each source file.
      digests: SHA-256 of the source file of each record.
      hashes: `similar.difference_hash` by path; nothing in older sets.
      bad: reason by path of each image that has no record.
      geometry: see `geometry`.
      demo: what the drawn set says of itself that it was made from; else None.
      pillow: version that decoded the images.
      shards: (file name, number of records) in order.
    """

    name: str
    folder_index: FolderIndex
    sizes: tuple[int, ...]
    digests: tuple[str, ...]
    hashes: Mapping[str, bytes]
    bad: Mapping[str, str]
    geometry: Mapping[str, Any]
    demo: Mapping[str, Any] | None
    pillow: str
    shards: tuple[tuple[str, int], ...]

    @functools.cached_property
    def records(self) -> dict[str, int]:
        """Number of the record by path."""
        usable = (path for path in self.folder_index.images if path not in self.bad)
        return {path: number for number, path in enumerate(usable)}

    def check_geometry(self, preprocessing: Preprocessing) -> None:
        """Raises InputError unless the pixels are what the network wants."""
        wanted = geometry(preprocessing)
        if wanted != dict(self.geometry):
            raise InputError(
                f"{self.folder_index.root}: prepared with {describe(self.geometry)}, "
                f"but the network takes {describe(wanted)}; prepare the images so"
            )

    def store(self, records: Sequence[int]) -> "PreparedStore":
        """The images of these records, by index into `records`."""
        for name, _ in self.shards:
            if not (self.folder_index.root / name).is_file():
                raise _damaged(self.folder_index.root, f"{name} is missing")
        return PreparedStore(self.folder_index.root, self.shards, records)


class PreparedStore:
    """Images of a prepared set by index; read from any thread or process."""

    def __init__(
        self, root: Path, shards: Sequence[tuple[str, int]], records: Sequence[int]
    ) -> None:
        """Nothing is opened before the first image is asked for.

        Args:
          root: of the set.
          shards: (file name, number of records).
          records: number of the record of each image.
        """
        self._root = root
        self._shards = tuple(shards)
        self._records = np.asarray(records, np.int64)

    @functools.cached_property
    def _source(self) -> "grain.sources.ArrayRecordDataSource":
        # Grain takes a second to import, which help must not wait for.
        import grain

        # With the counts, it need not open every shard at once to learn them.
        return grain.sources.ArrayRecordDataSource(
            [f"{self._root / name}[0:{count}]" for name, count in self._shards]
        )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> np.ndarray:
        """`[h, w, C]` uint8, read-only.

        Raises:
          InputError: the shard has been damaged; ArrayRecord checks what it reads.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        try:
            return unpack_record(self._source[int(self._records[index])])
        except (OSError, RuntimeError, ValueError, IndexError, struct.error) as error:
            reason = " ".join(str(error).split())[:200]
            raise _damaged(self._root, reason) from error


def read_prepared(root: Path) -> Prepared | None:
    """The manifest of a prepared set; None for any other folder.

    Raises:
      InputError: it is damaged, or of a later version.
    """
    path = root / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            return None
        if content["version"] > VERSION:
            raise InputError(f"{path}: of a later version; update jaxvision")
        images = content["images"]
        label_of = {name: label for label, name in enumerate(content["classes"])}
        return Prepared(
            name=content["name"],
            folder_index=FolderIndex(
                root,
                tuple(content["classes"]),
                tuple(row["path"] for row in images),
                tuple(label_of[row["class"]] for row in images),
                dict(content["ignored"]),
                tuple(row["part"] for row in images if "part" in row),
            ),
            sizes=tuple(row["bytes"] for row in images),
            digests=tuple(row["sha256"] for row in images if "bad" not in row),
            hashes={
                row["path"]: bytes.fromhex(row["hash"])
                for row in images
                if "hash" in row
            },
            bad={row["path"]: row["bad"] for row in images if "bad" in row},
            geometry=content["preprocessing"],
            demo=content["demo"],
            pillow=content["versions"]["Pillow"],
            shards=tuple((row["file"], row["records"]) for row in content["shards"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(root, f"{MANIFEST}: {type(error).__name__} {error}") from error


def _damaged(root: Path, what: str) -> InputError:
    return InputError(
        f"{root}: a damaged prepared set ({what}); remove the folder and prepare it "
        "anew with jaxvision data prepare"
    )
