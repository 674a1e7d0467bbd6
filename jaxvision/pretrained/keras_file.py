"""Reads Keras's weights from HDF5 files (`.h5`) without Keras.

Nothing in such a file is executed. What HDF5 could do beyond holding arrays (links to
other files, arrays that lie in other files or are computed, filters) is refused, and
no array may be larger than the file that claims to hold it. HDF5's own library refuses
most damaged files, and a few keep it busy: it works in a child process (`keras_child`)
with limits of time and memory.

Three things are called `.h5`. The published files and `model.save("x.h5")` name their
layers and each layer's variables in attributes, in the model's order; the latter keeps
them in the group `model_weights`. `model.save_weights("x.weights.h5")` of Keras 3
numbers the variables and gives each layer's name, but no order.

Formats: https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving and
https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

import dataclasses
import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import InputError
from jaxvision.pretrained.entries import Table

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

CHILD_SECONDS = 60
"""CPU time of the process that reads a file."""
CHILD_BYTES = 2**30
"""Its memory, beside four times the file."""


@dataclasses.dataclass(frozen=True)
class KerasWeights:
    """What a file holds.

    layers: for each layer with variables, by its name, the path in the file and the
        values of each variable, in the layer's order.
    is_ordered: whether the layers stand in the model's order.
    """

    layers: dict[str, dict[str, np.ndarray]]
    is_ordered: bool


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def read_weights(path: Path) -> KerasWeights:
    """The variables of a Keras model, layer by layer.

    Args:
      path: a file in one of the three forms.

    Raises:
      InputError: the file is missing, truncated, damaged, no file of Keras's, or
        holds something that is not read.
    """
    try:
        if not is_hdf5(path):
            raise InputError(f"{path}: not an HDF5 file, as Keras's .h5 are")
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    answer, values = _ask_child(path, size)
    if reason := answer.get("refused"):
        raise InputError(f"{path}: {reason}")
    if "unreadable" in answer:
        raise _unreadable(path, answer["unreadable"])
    layers: dict[str, dict[str, np.ndarray]] = {}
    begin = 0
    for layer, variables in answer["layers"].items():
        layers[layer] = {}
        for name, (dtype, shape) in variables.items():
            count = math.prod(shape)
            array = np.frombuffer(values, dtype, count, begin).reshape(shape)
            layers[layer][name] = array
            begin += array.nbytes
    if not layers:
        raise InputError(f"{path}: it holds no weights")
    return KerasWeights(layers, answer["is_ordered"])


def _ask_child(path: Path, size: int) -> tuple[dict[str, Any], bytes]:
    """What `keras_child` answers, under limits of time and memory."""
    memory = CHILD_BYTES + 4 * size
    with tempfile.TemporaryDirectory(prefix="jaxvision-") as folder:
        out = Path(folder, "answer")
        command = [
            sys.executable, "-I", str(Path(__file__).with_name("keras_child.py")),
            str(path.resolve()), str(out), str(memory), str(CHILD_SECONDS),
        ]  # fmt: skip
        # Threads that it doesn't need would take address space.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=2 * CHILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unreadable(path, "HDF5's library takes too long") from None
        if done.returncode == -signal.SIGXCPU or done.returncode == -signal.SIGKILL:
            raise _unreadable(path, "HDF5's library takes too long")
        if done.returncode or not out.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1][:200] if lines else f"status {done.returncode}"
            raise _unreadable(path, f"HDF5's library gave up: {reason}")
        content = out.read_bytes()
    (length,) = struct.unpack_from("<q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} cannot be read ({reason}); if it is there, it is damaged or cut off: "
        "download it again"
    )


def by_path(weights: KerasWeights, table: Table) -> tuple[dict[str, np.ndarray], Table]:
    """Arrays by their path in the file, and the table in the same words.

    A table says "block1_conv1/kernel", as Keras names its variables today. Published
    files are older than some of those names: what is not known by its name is taken in
    the model's order, layers and variables alike, as Keras itself reads all of them.
    If there are more or fewer of those than wanted, nothing is guessed.
    """
    wanted: dict[str, list[str]] = {}
    for entry in table.entries:
        layer, _, variable = entry.source.rpartition("/")
        wanted.setdefault(layer, []).append(variable)
    paths: dict[str, str] = {}
    names = _paired(list(wanted), list(weights.layers), weights.is_ordered)
    for layer, theirs in names.items():
        found = {_variable(path): path for path in weights.layers[theirs]}
        pairs = _paired(wanted[layer], list(found), is_ordered=True)
        paths |= {f"{layer}/{ours}": found[name] for ours, name in pairs.items()}
    entries = tuple(
        dataclasses.replace(entry, source=paths.get(entry.source, entry.source))
        for entry in table.entries
    )
    tensors = {p: a for held in weights.layers.values() for p, a in held.items()}
    return tensors, dataclasses.replace(table, entries=entries)


def _variable(path: str) -> str:
    """ "kernel" of "conv1/conv1/kernel:0"; TensorFlow's depthwise kernels likewise."""
    name = path.rpartition("/")[2].partition(":")[0]
    return "kernel" if name == "depthwise_kernel" else name


def _paired(
    wanted: Sequence[str], found: Sequence[str], is_ordered: bool
) -> dict[str, str]:
    """Each wanted name's found one: the same, or else the next of those left over."""
    pairs = {name: name for name in wanted if name in set(found)}
    left = [name for name in wanted if name not in pairs]
    others = [name for name in found if name not in pairs]
    if is_ordered and len(left) == len(others):
        pairs |= dict(zip(left, others, strict=True))
    return pairs
