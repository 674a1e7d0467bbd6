"""Reads the HDF5 files of Keras in a process of its own; a script, see `keras_file`.

HDF5's library takes damaged files in ways that nobody vouches for: a few keep it busy
for ever. So it works here, under limits of time and memory, and what it found comes
back as plain bytes.

    python keras_child.py FILE OUT MEMORY_BYTES CPU_SECONDS
"""

import dataclasses
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:
    import h5py

MAX_NAMES = 100_000
MAX_NAME_BYTES = 2**24
"""Bounds of all names in a file: B3's has a thousand."""

Layers = dict[str, dict[str, np.ndarray]]


def main(path: Path, out: Path) -> None:
    """Reads `path`; `out` gets a line of JSON, and the bytes of all arrays."""
    layers: Layers = {}
    answer: dict[str, Any] = {}
    try:
        layers, answer["is_ordered"] = _read(path)
    except _Refused as refused:
        answer["refused"] = str(refused)
    except Exception as error:  # whatever h5py raises on files that are damaged
        answer["unreadable"] = str(error)[:200]
    answer["layers"] = {
        layer: {path: [a.dtype.str, list(a.shape)] for path, a in variables.items()}
        for layer, variables in layers.items()
    }
    text = json.dumps(answer).encode()
    with out.open("wb") as file:
        file.write(struct.pack("<q", len(text)) + text)
        for variables in layers.values():
            for array in variables.values():
                file.write(np.ascontiguousarray(array).tobytes())


def _read(path: Path) -> tuple[Layers, bool]:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        reader = _Reader(room=path.stat().st_size)
        root = reader.group(file, "model_weights")
        root = file if root is None else root
        if (names := reader.names(root, "layer_names")) is not None:
            return reader.ordered(root, names), True
        if (numbered := reader.group(root, "layers")) is not None:
            return reader.numbered(numbered), False
        _refuse("it names no layers: not a file of Keras's weights")


class _Refused(Exception):
    """The reason why a file is not read; `keras_file` adds its name."""


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


@dataclasses.dataclass
class _Reader:
    """Reads arrays, of no more than `room` bytes in all, and names within bounds."""

    room: int
    names_left: int = MAX_NAMES
    name_bytes_left: int = MAX_NAME_BYTES

    def ordered(
        self, root: "h5py.Group", names: list[str]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Layers and variables as the attributes name them."""
        layers: dict[str, dict[str, np.ndarray]] = {}
        # Variables of the model itself, which no network here has.
        extra = "top_level_model_weights"
        for name in [*names, *([extra] if extra in root else [])]:
            group = self.group(root, name)
            if group is None:
                _refuse(f"the layer {name!r:.100} is named, but missing")
            variables = self.names(group, "weight_names") or []
            if not variables:
                continue
            if name in layers:
                _refuse(f"the layer {name!r:.100} is named twice")
            layers[name] = {}
            for variable in variables:
                path = f"{name}/{variable}"
                if path in layers[name]:
                    _refuse(f"the variable {path!r:.200} is named twice")
                layers[name][path] = self.array(group, variable, path)
        return layers

    def numbered(self, root: "h5py.Group") -> dict[str, dict[str, np.ndarray]]:
        """Layers of a group `layers`, each with its variables "0", "1" and so on."""
        layers: dict[str, dict[str, np.ndarray]] = {}
        for place in map(str, root):
            group = self.group(root, place)
            variables = None if group is None else self.group(group, "vars")
            if variables is None or not len(variables):
                continue
            names = self.names(variables, "name") or [place]
            if len(names) > 1:
                _refuse(f"the layer {place!r:.100} has {len(names)} names")
            (name,) = names
            if name in layers:
                _refuse(f"there are two layers {name!r:.100}")
            layers[name] = {
                f"{name}/{number}": self.array(variables, number, f"{name}/{number}")
                for number in sorted(variables, key=lambda n: (len(n), n))
            }
        return layers

    def group(self, parent: "h5py.Group", name: str) -> "h5py.Group | None":
        """A group below another; None if it is not there."""
        import h5py

        if name not in parent:
            return None
        child = _followed(parent, name)
        if not isinstance(child, h5py.Group):
            _refuse(f"{name!r:.100} is no group")
        return child

    def array(self, group: "h5py.Group", name: str, path: str) -> np.ndarray:
        """A variable's values."""
        import h5py

        dataset = _followed(group, name)
        if not isinstance(dataset, h5py.Dataset):
            _refuse(f"{path!r:.200} is no array")
        if dataset.external or dataset.is_virtual:
            _refuse(f"{path!r:.200} lies in another file")
        if dataset.id.get_create_plist().get_nfilters():
            _refuse(f"{path!r:.200} is compressed or filtered, which Keras does not do")
        if dataset.dtype.kind not in "fiu":
            _refuse(f"{path!r:.200} holds {dataset.dtype}, not numbers that are read")
        self.room -= dataset.nbytes
        if self.room < 0:
            _refuse(f"{path!r:.200} is larger than the file; the file is damaged")
        return dataset[()] if dataset.shape == () else dataset[:]

    def names(self, group: "h5py.Group", attribute: str) -> list[str] | None:
        """The texts of an attribute, or of its parts `name0`, `name1`, ..., into which
        Keras divides long ones; None if there is no such attribute."""
        if attribute in group.attrs:
            return list(self._texts(group, attribute))
        if f"{attribute}0" not in group.attrs:
            return None
        names: list[str] = []
        part = 0
        while f"{attribute}{part}" in group.attrs:
            names += self._texts(group, f"{attribute}{part}")
            part += 1
        return names

    def _texts(self, group: "h5py.Group", attribute: str) -> Iterator[str]:
        held = group.attrs.get_id(attribute)
        # Before it is read: a damaged one can claim to be of any size, and thousands of
        # names may refer to one long text.
        count = int(np.prod(held.shape))
        self.names_left -= count
        self.name_bytes_left -= count * held.dtype.itemsize
        if self.names_left < 0 or self.name_bytes_left < 0:
            _refuse(f"{attribute!r} is larger than any list of names")
        if held.dtype.kind == "O" and held.get_storage_size() > MAX_NAME_BYTES:
            _refuse(f"{attribute!r} is larger than any list of names")
        texts: Any = group.attrs[attribute]
        for text in np.atleast_1d(texts):
            if isinstance(text, bytes):
                text = text.decode("utf-8")
            if not isinstance(text, str):
                _refuse(f"{attribute!r} holds something other than names")
            self.name_bytes_left -= len(text)
            if self.name_bytes_left < 0:
                _refuse(f"{attribute!r} is larger than any list of names")
            yield text


def _followed(parent: "h5py.Group", name: str) -> "h5py.Group | h5py.Dataset":
    """What a path leads to, if every step of it lies in this file."""
    import h5py

    found: Any = parent
    for step in name.split("/"):
        if not step or step not in found:
            _refuse(f"{name!r:.200} is missing")
        if not isinstance(found.get(step, getlink=True), h5py.HardLink):
            _refuse(f"{name!r:.200} is a link, which is not followed")
        found = found[step]
    return found


if __name__ == "__main__":
    memory, seconds = int(sys.argv[3]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    # Not by way of HDF5's own cleanup.
    os._exit(0)
