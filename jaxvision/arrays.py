"""Trees of arrays in folders, written and read by Orbax: the only module that does."""

import errno
import math
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxvision.errors import InputError
from jaxvision.typing import PyTree

MAX_RATIO = 64
MAX_SMALL = 1 << 26
"""Arrays may be this many times what their files hold, which are compressed, and this
many bytes more."""


def save_arrays(path: Path, tree: PyTree) -> None:
    """Writes a tree of NumPy arrays into a new folder.

    Raises:
      OSError: it cannot be written.
    """
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    # Asked first, for a full disk makes TensorStore's threads print tracebacks.
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    try:
        _checkpointer().save(path.resolve(), tree)
    except ValueError as error:
        # TensorStore reports what the system refused as a ValueError.
        raise OSError(str(error)) from error


def restore_arrays(path: Path) -> PyTree:
    """The tree of NumPy arrays that `save_arrays` wrote.

    Raises:
      InputError: it is damaged, or declares far more than its files can hold.
    """
    try:
        declared = _declared_bytes(path)
        held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if declared > MAX_RATIO * held + MAX_SMALL:
            raise ValueError(f"{declared:,} bytes are declared, {held:,} are there")
        return _checkpointer().restore(path.resolve())
    # Orbax and TensorStore raise what they happen to raise on a damaged folder.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: damaged ({reason}); remove it") from error


def _declared_bytes(path: Path) -> int:
    """Of all arrays, by their shapes alone."""
    found = _checkpointer().metadata(path.resolve())
    tree = getattr(getattr(found, "item_metadata", found), "tree", None)
    arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return sum(
        math.prod(leaf.shape or ()) * np.dtype(leaf.dtype or "f4").itemsize
        for leaf in arrays
    )


def _checkpointer() -> ocp.Checkpointer:
    """Orbax as one process uses it alone: by default it waits for all of them."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix="alone"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
