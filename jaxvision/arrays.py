"""Trees of arrays in folders, written and read by Orbax: the only module that does."""

import errno
import os
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from jaxvision.typing import PyTree


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
    """The tree of NumPy arrays that `save_arrays` wrote."""
    return _checkpointer().restore(path.resolve())


def _checkpointer() -> ocp.Checkpointer:
    """Orbax as one process uses it alone: by default it waits for all of them."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix="alone"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
