"""Decoded images, kept so that none is decoded twice.

They stay in memory up to a limit; beyond it all of them lie in one temporary file, of
which only the record that is being read is mapped into memory. So the memory a store
takes has the limit as its bound, however many images there are; the system's page
cache, which gives way to programs, keeps the file quick.
"""

import io
import os
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxvision.errors import InputError


class Images(Protocol):
    """Images by index, `[h, w, C]` uint8 each; read from any thread."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class ImageStore:
    """uint8 images of any shapes by index; read from any thread.

    A store that is `shared` can be pickled to worker processes at the price of its
    index: they open the same file.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        folder: Path | None = None,
        shared: bool = False,
    ) -> None:
        """An empty store.

        Args:
          limit_bytes: pixels that are held in memory; more go to a file, all of them.
          folder: where that file lies; by default the system's temporary folder.
          shared: for worker processes: in a file from the start, whatever the limit,
            that has a name until the store goes. Otherwise the file is nameless, and
            gone with the process however that ends.
        """
        self._limit = 0 if shared else limit_bytes
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._shared = shared
        self._held: list[np.ndarray] = []
        self._file: io.FileIO | None = None
        self._offsets: list[int] = [0]
        self._shapes: list[tuple[int, ...]] = []
        if shared:
            self._move_to_file()

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return self._offsets[-1]

    @property
    def in_memory(self) -> bool:
        """Whether the images are held in memory, not in a file."""
        return self._file is None

    def append(self, image: np.ndarray) -> None:
        """Adds an image; from one thread only, and before the first pickling.

        Raises:
          InputError: the folder can't be written or its disk is full.
        """
        if image.dtype != np.uint8:
            raise TypeError(f"images are uint8, not {image.dtype}")
        end = self._offsets[-1] + image.nbytes
        if self._file is None and end > self._limit:
            self._move_to_file()
        if self._file is None:
            # A copy: a view would keep the whole array alive that it was cut from.
            self._held.append(np.array(image, order="C"))
        else:
            self._write(self._file, image)
        self._offsets.append(end)
        self._shapes.append(image.shape)

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        """`[h, w, C]` uint8; one from memory is read-only."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if self._file is None:
            view = self._held[index].view()
            view.flags.writeable = False
            return view
        # Copied and unmapped at once: a mapping keeps a file descriptor, of which a
        # batch or two of images would use up all.
        offset, shape = self._offsets[index], self._shapes[index]
        return np.array(np.memmap(self._file, np.uint8, "r", offset, shape))

    def _move_to_file(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(
                prefix="jaxvision-images-", dir=self._folder
            )
        except OSError as error:
            raise self._unwritable(error) from error
        # Unbuffered: what was appended can be mapped at once.
        self._file = io.FileIO(descriptor, "w+b")
        self._path = name
        if self._shared:
            weakref.finalize(self, _remove, name, os.getpid())
        else:
            os.unlink(name)
        for image in self._held:
            self._write(self._file, image)
        self._held = []

    def _write(self, file: io.FileIO, image: np.ndarray) -> None:
        remaining = memoryview(np.ascontiguousarray(image).data).cast("B")
        try:
            while remaining:
                remaining = remaining[file.write(remaining) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"{self._folder}: decoded images cannot be written ({error.strerror}): "
            "free space there, choose another folder as `data.cache_dir`, or raise "
            "`data.cache_mb` so that they fit in memory"
        )

    def __getstate__(self) -> dict[str, Any]:
        if not self._shared:
            raise TypeError("only a shared store can go to another process")
        return {**self.__dict__, "_file": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._file = io.FileIO(self._path)


class LazyImages:
    """Images by index, each decoded when it is first asked for; from any thread."""

    def __init__(
        self, load: Callable[[int], np.ndarray], count: int, store: ImageStore
    ) -> None:
        """No image yet.

        Args:
          load: decodes an image; called from several threads.
          count: of the images.
          store: empty; what was decoded is kept in it.
        """
        self._load = load
        self._store = store
        self._places = np.full(count, -1, np.int64)
        # The store moves from memory to a file when it is full: not while it is read.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        """`[h, w, C]` uint8."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        with self._lock:
            if self._places[index] >= 0:
                return self._store[int(self._places[index])]
        image = self._load(index)
        with self._lock:
            # Another thread may have been quicker; what it got is the same.
            if self._places[index] < 0:
                self._store.append(image)
                self._places[index] = len(self._store) - 1
        return image


def _remove(name: str, owner: int) -> None:
    # A forked child runs the same finalizer: the file is its parent's.
    if os.getpid() == owner:
        Path(name).unlink(missing_ok=True)
