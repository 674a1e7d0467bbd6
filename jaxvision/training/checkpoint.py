"""Checkpoints that are whole or not there: Orbax for the arrays, SHA-256 for trust.

A checkpoint folder holds entries `last-<step>` and `best-<step>`. An entry is written
under a temporary name, with a manifest of its files' hashes, flushed to the disk, and
renamed: a killed write leaves nothing that looks like an entry, and a flipped bit,
which Orbax restores silently, is found when the manifest is checked. The newest two
of each kind are kept, so that there is one to fall back to.

Of several processes that train as one, every one holds the whole state: process 0
writes it, and tells the others what it reads. An entry does not depend on how many
there were.
"""

import contextlib
import dataclasses
import json
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxvision.arrays import restore_arrays, save_arrays
from jaxvision.errors import InputError
from jaxvision.storage import (
    find_damage,
    only_process,
    publish,
    remove_leftovers,
    temporary,
)
from jaxvision.training.distributed import broadcast, broadcast_arrays, is_main_process
from jaxvision.typing import PyTree

Kind = Literal["last", "best"]

_ENTRY = re.compile(r"(last|best)-(\d{8,})")
_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Entry:
    """One complete, verified checkpoint as read from the disk."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    """Every leaf by its path in the tree that was saved, such as `params/head/...`."""
    info: dict[str, Any]
    """The plain values that were saved with it."""


@contextlib.contextmanager
def training_alone(folder: Path) -> Iterator[None]:
    """The folder is there, and no one else trains in it meanwhile; processes that
    train as one are one.

    Raises:
      InputError: another process does, or it cannot be made.
    """
    if not is_main_process():
        yield
        return
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder, "training in it"):
        yield


class CheckpointFolder:
    """Writes and reads the entries of one run.

    Writing happens in a thread while training goes on; an error in it is raised by
    the next `save` or `wait`. In all processes but the first it does nothing.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, making it if need be, and clears killed writes away.

        Raises:
          InputError: it cannot be made or written to.
        """
        self.folder = folder
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if not is_main_process():
            return
        with _named(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)

    def save(self, kind: Kind, step: int, tree: PyTree, info: dict[str, Any]) -> None:
        """Writes an entry in the background.

        Args:
          kind: which series it belongs to.
          step: optimizer steps done; names the entry.
          tree: NumPy arrays that nobody changes any more (see `Runner.unreplicate`).
          info: plain values, saved as JSON beside the arrays.

        Raises:
          InputError: the write before this one failed (disk full, say).
        """
        if not is_main_process():
            return
        self.wait()
        arrays = flatten(tree)
        self._pending = self._writer.submit(self._write, kind, step, arrays, info)

    def wait(self) -> None:
        """Returns when all is on the disk.

        Raises:
          InputError: writing failed; the entries before it are unharmed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            with _named(self.folder):
                pending.result()

    def load(self, kind: Kind) -> Entry | None:
        """The newest entry that is whole; None where there is none.

        Damaged entries are passed over with a warning that names them. Of several
        processes all have to call it, and get what the first one finds.
        """
        entry = self._load(kind) if is_main_process() else None
        own: list[Any] = []
        if entry is not None:
            own = [str(entry.path), entry.step, entry.info]
        if not (found := broadcast(own)):
            return None
        path, step, info = found
        arrays = broadcast_arrays({} if entry is None else entry.arrays)
        return Entry(Path(path), step, arrays, info)

    def _load(self, kind: Kind) -> Entry | None:
        for path in self._entries(kind):
            problem = find_damage(path)
            if problem is None:
                return read_entry(path)
            warnings.warn(f"{path}: passed over, {problem}", stacklevel=2)
        return None

    def path(self, kind: Kind) -> Path | None:
        """Where the newest entry lies; None where there is none."""
        return next(iter(self._entries(kind)), None)

    def _entries(self, kind: Kind) -> list[Path]:
        found = [
            (int(match[2]), path)
            for path in self.folder.glob("*")
            if (match := _ENTRY.fullmatch(path.name)) and match[1] == kind
        ]
        return [path for _, path in sorted(found, reverse=True)]

    def _write(
        self, kind: Kind, step: int, arrays: dict[str, np.ndarray], info: dict[str, Any]
    ) -> None:
        writing = temporary(self.folder / uuid.uuid4().hex)
        try:
            writing.mkdir()
            save_arrays(writing / "arrays", arrays)
            (writing / "info.json").write_text(json.dumps(info))
            target = self.folder / f"{kind}-{step:08d}"
            if target.exists():
                # Only a rerun of the same step gets here; its entry is the same.
                shutil.rmtree(target)
            publish(writing, target)
        except BaseException:
            shutil.rmtree(writing, ignore_errors=True)
            raise
        for old in self._entries(kind)[_KEPT:]:
            shutil.rmtree(old)


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaves by path, such as `params/backbone/conv1/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    # asarray: Orbax gives NumPy scalars back as Python numbers, arrays as they were.
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten_like(template: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """The arrays in the template's structure; the inverse of `flatten`.

    Args:
      template: a tree of arrays or shapes; its values are not used.

    Raises:
      InputError: names, shapes or dtypes differ; the first few are named.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    wanted = {_name(path): leaf for path, leaf in leaves}
    problems = [f"{name} is missing" for name in wanted if name not in arrays]
    problems += [f"{name} is not expected" for name in arrays if name not in wanted]
    problems += [
        f"{name} is {arrays[name].dtype}{list(arrays[name].shape)}, "
        f"not {leaf.dtype}{list(leaf.shape)}"
        for name, leaf in wanted.items()
        if name in arrays
        and (arrays[name].shape, arrays[name].dtype) != (leaf.shape, leaf.dtype)
    ]
    if problems:
        raise InputError(
            f"checkpoint is of another network or optimizer: {'; '.join(problems[:4])}"
            + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        )
    return treedef.unflatten([arrays[_name(path)] for path, _ in leaves])


def nest(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Nested dicts from paths; the inverse of `flatten` for trees of dicts."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree


def read_entry(path: Path) -> Entry:
    """Reads an entry that `find_damage` has passed."""
    arrays = restore_arrays(path / "arrays")
    try:
        info = dict(json.loads((path / "info.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged (info.json: {error}); remove it") from error
    return Entry(path, int(path.name.split("-")[1]), arrays, info)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
        for key in path
    )


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write the checkpoint ({error.strerror or error}); "
            "make room or choose another folder, checkpoints already there are whole"
        ) from error
