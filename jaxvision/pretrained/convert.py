"""From a foreign file's tensors to a network's variables, checked both ways."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.errors import InputError
from jaxvision.pretrained.entries import Table, Transform
from jaxvision.pretrained.sources import SOURCES, Source

_SHOWN = 20

_KINDS = {
    "keras": "a Keras file (HDF5)",
    "torch": "a torch file",
    "numpy": "a pickle of NumPy arrays",
    "safetensors": "a file of safetensors",
}

Variables = dict[str, Any]
"""Collections (`params`, `batch_stats`) of nested dicts of arrays."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the arrays, by name."""

    kept: tuple[str, ...]
    """Parameters and statistics that hold the pretrained values."""
    replaced: tuple[str, ...] = ()
    """Those that keep the new network's own values: a new head."""
    ignored: tuple[str, ...] = ()
    """Pretrained arrays that have no place in the network."""
    fresh: tuple[str, ...] = ()
    """Layers of the backbone that keep the new network's own values, and are among
    those replaced: the weights lack them."""
    prefix: str = ""
    """What stood before the name of every array, and was passed over: that of a
    wrapper, or of a checkpoint that the arrays are a part of."""

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{len(self.kept)} arrays kept, {len(self.replaced)} replaced,"
            f" {len(self.ignored)} ignored"
            + (f"; fresh: {', '.join(self.fresh)}" if self.fresh else "")
        )


def abstract_variables(source: Source) -> Variables:
    """Shapes of the variables that a source fills, without computing anything."""
    import jax
    import jax.numpy as jnp

    from jaxvision.models import create_model

    model = create_model(
        source.model, max(source.num_classes, 1), stop_at=source.last_layer
    )
    image = jax.ShapeDtypeStruct((1, *source.preprocessing.size, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
    )
    if source.num_classes:
        return variables
    return {
        collection: {part: tree for part, tree in parts.items() if part != "head"}
        for collection, parts in variables.items()
    }


def fresh_layers(source: Source, stop_at: str | None = None) -> tuple[str, ...]:
    """The layers of a network up to `stop_at` (None: all) that a source lacks.

    Raises:
      InputError: the network has no layer of that name.
    """
    from jaxvision.models import MODELS

    backbone = MODELS[source.model]()
    backbone.check_layer(stop_at)
    if source.last_layer is None:
        return ()
    names = backbone.layer_names()
    end = len(names) if stop_at is None else names.index(stop_at) + 1
    return names[names.index(source.last_layer) + 1 : end]


def check_has_layers(source: Source, stop_at: str | None = None) -> None:
    """Raises `InputError` if a source lacks layers of its network up to `stop_at`."""
    if missing := fresh_layers(source, stop_at):
        whole = SOURCES[source.whole or source.name]
        raise InputError(
            f"the weights {source.name} end with the layer {source.last_layer} and have"
            f" no {', '.join(missing)}: those are in the weights {whole.name}"
            f" ({whole.origin}); choose them, a layer up to {source.last_layer}, or"
            " `method` full, which begins anew with what is missing",
            setting=None if stop_at is None else "stop_at",
            value=stop_at,
        )


def read_variables(path: Path, source: Source) -> tuple[Variables, Report]:
    """Reads a file of weights and converts it for its network.

    Raises:
      InputError: the file is damaged, or it is not this network's.
    """
    tensors, table, prefix = _read(path, source)
    try:
        variables, report = convert(tensors, table, abstract_variables(source))
    except InputError as error:
        raise InputError(
            f"{path} does not hold the weights {source.name}: {error}; its file is"
            f" {source.location.rsplit('/', 1)[-1]} of {source.origin}"
        ) from None
    return variables, dataclasses.replace(report, prefix=prefix)


def convert(
    tensors: Mapping[str, np.ndarray], table: Table, template: Variables
) -> tuple[Variables, Report]:
    """Converts by a table, and accepts nothing that is left over on either side.

    Args:
      tensors: the file's arrays by name.
      table: where each of them goes.
      template: the network's variables, or their shapes.

    Returns:
      Variables like the template (float32), and what was kept and ignored.

    Raises:
      InputError: every tensor that is missing, left over, of the wrong shape or kind
        or not finite, and every parameter that is not filled, in one message.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    wanted: dict[str, Any] = flatten_dict(template, sep="/")
    ignored = [name for name in tensors if name.endswith(table.ignored)]
    filled: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for entry in table.entries:
        if entry.source not in tensors:
            problems.append(f"{entry.source} is missing")
        elif entry.target not in wanted:
            problems.append(f"{entry.source} has no place {entry.target}")
        elif entry.target in filled:
            problems.append(f"{entry.target} is filled twice")
        else:
            shape = wanted[entry.target].shape
            filled[entry.target] = np.zeros(shape, np.float32)
            try:
                turned = _turned(tensors[entry.source], entry.transform, shape)
                filled[entry.target] = turned
            except ValueError as error:
                problems.append(f"{entry.source} {error}")
    used = {entry.source for entry in table.entries}
    problems += [
        f"{name} is not expected" for name in tensors if name not in {*used, *ignored}
    ]
    targets = {entry.target for entry in table.entries}
    problems += [f"{name} is not filled" for name in wanted if name not in targets]
    if problems:
        raise InputError(_listed(problems))
    variables = {"params": {}, "batch_stats": {}, **unflatten_dict(filled, sep="/")}
    return variables, Report(kept=tuple(filled), ignored=tuple(ignored))


def fit_into(
    pretrained: Variables,
    template: Variables,
    *,
    replace_head: bool = True,
    fresh: Collection[str] = (),
) -> tuple[Variables, Report]:
    """Puts pretrained values into a new network's variables.

    The new network may have another head (classes, hidden layers), and it may end
    earlier (`stop_at`): whole layers that it lacks are ignored, and listed.

    Args:
      pretrained: variables of the published network (`Pretrained.variables`).
      template: variables of the new one, from `model.init`; only those of its head and
        of the `fresh` layers are used, so the others may be shapes.
      replace_head: keep the new head; False to demand that the pretrained one fits.
      fresh: layers of the backbone that keep the new values, see `fresh_layers`.

    Returns:
      Variables with the template's structure, and what was kept, replaced, ignored.

    Raises:
      InputError: the backbone (or the head that is to be kept) does not fit; every
        difference in one message.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    theirs: dict[str, Any] = flatten_dict(pretrained, sep="/")
    ours: dict[str, Any] = flatten_dict(template, sep="/")
    layers = {_layer(name) for name in ours}
    fitted: dict[str, Any] = {}
    problems: list[str] = []
    replaced: list[str] = []
    for name, value in ours.items():
        if _is_new(name, replace_head, fresh):
            fitted[name] = value
            replaced.append(name)
        elif name not in theirs:
            problems.append(f"{name} is not among the pretrained weights")
        elif theirs[name].shape != value.shape:
            problems.append(
                f"{name} is {list(value.shape)} here and"
                f" {list(theirs[name].shape)} pretrained"
            )
        else:
            fitted[name] = theirs[name]
    ignored = [name for name in theirs if name not in ours]
    for name in ignored:
        if _part(name) != "head" and _layer(name) in layers:
            problems.append(f"{name} has no place in this network")
    if not replace_head:
        problems += [
            f"{name} has no place in this head"
            for name in ignored
            if _part(name) == "head"
        ]
    if problems:
        raise InputError(
            f"the pretrained weights do not fit the network: {_listed(problems)}; a"
            " head for other classes must be a new one (replace_head=True), and so must"
            " layers that the weights lack (fresh)"
        )
    variables = {name: {} for name in template} | unflatten_dict(fitted, sep="/")
    kept = tuple(name for name in fitted if name not in set(replaced))
    return variables, Report(kept, tuple(replaced), tuple(ignored), tuple(fresh))


_PREFIXES = ("state_dict.", "model_state_dict.", "model.", "module.", "_orig_mod.")
"""Of training checkpoints, data-parallel wrappers and compiled modules."""


def _without_prefix(
    tensors: Mapping[str, np.ndarray],
) -> tuple[Mapping[str, np.ndarray], str]:
    """The arrays without those of `_PREFIXES` that all names begin with, and these."""
    prefix, length = "", 0
    first = next(iter(tensors), "")
    while found := next((p for p in _PREFIXES if first.startswith(p, length)), ""):
        if not all(name.startswith(prefix + found) for name in tensors):
            break
        prefix, length = prefix + found, length + len(found)
    if not prefix:
        return tensors, ""
    return {name[length:]: array for name, array in tensors.items()}, prefix


def _read(path: Path, source: Source) -> tuple[Mapping[str, np.ndarray], Table, str]:
    """A file's arrays by name, the table that has those names, and what stood before
    all of them.

    Raises:
      InputError: the file is damaged, or of another kind than the source's.
    """
    from jaxvision.pretrained.keras_file import by_path, read_weights
    from jaxvision.pretrained.numpy_file import read_arrays
    from jaxvision.pretrained.safetensors_file import read_tensors
    from jaxvision.pretrained.tables import TABLES, TIMM_TABLES
    from jaxvision.pretrained.torch_file import read_state_dict

    tables = [TABLES[source.name]] if source.format == "torch" else []
    if source.name in TIMM_TABLES:
        tables.append(TIMM_TABLES[source.name])
    try:
        found = _found_format(path) or source.format
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    # Where it is nothing known, the source's own reader explains.
    if found == "safetensors" and tables:
        return _with_names(read_tensors(path), tables)
    if found != source.format:
        raise InputError(_another_format(path, source, found))
    if found == "keras":
        return *by_path(read_weights(path), TABLES[source.name]()), ""
    if found == "numpy":
        return read_arrays(path), TABLES[source.name](), ""
    return _with_names(read_state_dict(path), tables)


def _with_names(
    tensors: Mapping[str, np.ndarray], tables: Sequence[Callable[[], Table]]
) -> tuple[Mapping[str, np.ndarray], Table, str]:
    """The table of which most names are found; the first, where none is better."""
    tensors, prefix = _without_prefix(tensors)

    def found(table: Table) -> int:
        return sum(entry.source in tensors for entry in table.entries)

    return tensors, max((make() for make in tables), key=found), prefix


def _another_format(path: Path, source: Source, found: str) -> str:
    """Names the source that a file of another kind belongs to, if there is one."""
    others = [
        other.name
        for other in SOURCES.values()
        if (other.model, other.format) == (source.model, found)
    ]
    hint = f"; as such it would be the weights {others[0]}" if others else ""
    return (
        f"{path} is {_KINDS[found]}, and the weights {source.name} are"
        f" {_KINDS[source.format]}{hint}"
    )


def _found_format(path: Path) -> str | None:
    """What a file is by its first bytes; None if it is nothing known."""
    from jaxvision.pretrained import keras_file, safetensors_file, torch_file

    starts = {
        "keras": keras_file.SIGNATURE,
        "torch": (torch_file.ZIP_START, torch_file.LEGACY_START),
        "numpy": b"\x80",  # any other pickle
    }
    with path.open("rb") as file:
        start = file.read(16)
    if safetensors_file.is_safetensors(start):
        return "safetensors"
    return next((kind for kind in starts if start.startswith(starts[kind])), None)


def _turned(
    array: np.ndarray, transform: Transform, shape: tuple[int, ...]
) -> np.ndarray:
    if array.dtype.kind != "f":
        raise ValueError(f"holds {array.dtype} numbers, not floating-point ones")
    try:
        turned = transform(array)
    except ValueError:
        raise ValueError(
            f"has the shape {list(array.shape)}, which cannot be"
        ) from None
    if turned.shape != shape:
        raise ValueError(
            f"has the shape {list(array.shape)}, which makes {list(turned.shape)}, not"
            f" {list(shape)}"
        )
    with np.errstate(over="ignore"):  # caught as infinity below
        turned = turned.astype(np.float32)
    if not np.isfinite(turned).all():
        raise ValueError("holds values that are not finite")
    return np.ascontiguousarray(turned).reshape(shape)


def _is_new(name: str, replace_head: bool, fresh: Collection[str]) -> bool:
    part, layer = name.split("/")[1:3]
    return replace_head if part == "head" else layer in fresh


def _part(name: str) -> str:
    return name.split("/")[1]


def _layer(name: str) -> tuple[str, ...]:
    """Collections have the same layers: `backbone/stem_bn` of `params/...` too."""
    return tuple(name.split("/")[1:3])


def _listed(problems: Collection[str]) -> str:
    shown = list(problems)[:_SHOWN]
    more = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
