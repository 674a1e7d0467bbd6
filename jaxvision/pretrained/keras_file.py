"""Reads Keras's weights from HDF5 files (`.h5`) without Keras.

Nothing in such a file is executed. What HDF5 could do beyond holding arrays (links to
other files, arrays that lie in other files or are computed, filters) is refused, and
no array may be larger than the file that claims to hold it. What HDF5's own library
makes of a damaged file is out of our hands: it refuses most, and a few keep it busy.

Three things are called `.h5`. The published files and `model.save("x.h5")` name their
layers and each layer's variables in attributes, in the model's order; the latter keeps
them in the group `model_weights`. `model.save_weights("x.weights.h5")` of Keras 3
numbers the variables and gives each layer's name, but no order.

Formats: https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving and
https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from jaxvision.errors import InputError
from jaxvision.pretrained.entries import Table

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

MAX_NAMES = 100_000
MAX_NAME_BYTES = 2**24
"""Bounds of an attribute: B3's file has a thousand names."""


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
    import h5py

    try:
        if not is_hdf5(path):
            _refuse("not an HDF5 file, as Keras's .h5 are")
        with h5py.File(path, "r", locking=False) as file:
            reader = _Reader(room=path.stat().st_size)
            root = reader.group(file, "model_weights")
            root = file if root is None else root
            if (names := _names(root, "layer_names")) is not None:
                layers, is_ordered = reader.ordered(root, names), True
            elif (numbered := reader.group(root, "layers")) is not None:
                layers, is_ordered = reader.numbered(numbered), False
            else:
                _refuse("it names no layers: not a file of Keras's weights")
    except _Refused as refused:
        raise InputError(f"{path}: {refused}") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # What h5py raises on files that are damaged or missing.
        raise InputError(
            f"{path} cannot be read ({str(error)[:200]}); if it is there, it is damaged"
            " or cut off: download it again"
        ) from None
    if not layers:
        raise InputError(f"{path}: it holds no weights")
    return KerasWeights(layers, is_ordered)


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


# -- The file -------------------------------------------------------------------------


class _Refused(Exception):
    """The reason why a file is not read; `read_weights` adds its name."""


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


@dataclasses.dataclass
class _Reader:
    """Reads arrays, of no more than `room` bytes in all."""

    room: int

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
            variables = _names(group, "weight_names") or []
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
        for place in root:
            group = self.group(root, place)
            variables = None if group is None else self.group(group, "vars")
            if variables is None or not len(variables):
                continue
            names = _names(variables, "name") or [place]
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


def _followed(parent: "h5py.Group", name: str) -> "h5py.Group | h5py.Dataset":
    """What a path leads to, if every step of it lies in this file."""
    import h5py

    for step in name.split("/"):
        if not step or step not in parent:
            _refuse(f"{name!r:.200} is missing")
        if not isinstance(parent.get(step, getlink=True), h5py.HardLink):
            _refuse(f"{name!r:.200} is a link, which is not followed")
        parent = parent[step]
    return parent


def _names(group: "h5py.Group", attribute: str) -> list[str] | None:
    """The texts of an attribute, or of its parts `name0`, `name1`, ..., into which
    Keras divides long ones; None if there is no such attribute."""
    if attribute in group.attrs:
        return list(_texts(group, attribute))
    if f"{attribute}0" not in group.attrs:
        return None
    names: list[str] = []
    part = 0
    while f"{attribute}{part}" in group.attrs:
        names += _texts(group, f"{attribute}{part}")
        part += 1
    return names


def _texts(group: "h5py.Group", attribute: str) -> Iterator[str]:
    held = group.attrs.get_id(attribute)
    # Before it is read: a damaged one can claim to be of any size.
    count = int(np.prod(held.shape))
    if count > MAX_NAMES or count * held.dtype.itemsize > MAX_NAME_BYTES:
        _refuse(f"{attribute!r} is larger than any list of names")
    for text in np.atleast_1d(group.attrs[attribute]):
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        if not isinstance(text, str):
            _refuse(f"{attribute!r} holds something other than names")
        yield text
