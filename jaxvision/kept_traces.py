"""Traces of networks are kept between runs, so that a start need not trace.

jax finds a kept program by what a function was traced and lowered to, and so traces and
lowers it at every start, which takes longer than predicting an image. Here that result
is kept too, as `jax.export` writes it: StableHLO, which is compiled and never executed
as it is. It lies among the programs under a name that stands for all that it was made
of, with its SHA-256, and goes as they do. Where they are not kept, nothing is.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxvision import compilation_cache, ops
from jaxvision.typing import PyTree


class KeptTrace:
    """A function of arrays, compiled for one device: `jax.jit`, with a memory."""

    def __init__(
        self,
        function: Callable[..., Any],
        about: object,
        *,
        donate_argnums: int | tuple[int, ...] = (),
    ) -> None:
        """A pure function, of nested dicts, lists and tuples of arrays alone.

        Args:
          function: its name has to tell it from all others that are kept.
          about: what it closes over: plain values, and networks, losses and the like of
            this package. Nothing is kept of one that closes over something else.
          donate_argnums: arguments whose memory is used again, as of `jax.jit`.
        """
        self._jitted = jax.jit(function, donate_argnums=donate_argnums)
        self._name = function.__name__
        self._about = about
        self._donate_argnums = donate_argnums
        self._kept: dict[Any, _Kept | None] = {}

    def __call__(self, *args: PyTree) -> Any:
        """Computes the function."""
        return self._program(args)(*args)

    def lower(self, *args: PyTree) -> Any:
        """As of a `jax.jit`ted function; a call with such arguments finds it."""
        return self._program(args).lower(*args)

    def uses_all(self, *args: PyTree) -> bool:
        """Whether every array plays a part in the result.

        Args:
          args: arrays, or `jax.ShapeDtypeStruct`s of them.

        Raises:
          Exception: what tracing the function raises on arguments it does not take.
        """
        if (kept := self._find(args)) is not None:
            return kept.uses_all
        trace = self._jitted.trace(*args).jaxpr.jaxpr
        used = {id(variable) for step in trace.eqns for variable in step.invars}
        return all(id(variable) in used for variable in trace.invars)

    def _program(self, args: PyTree) -> Any:
        kept = self._find(args)
        return self._jitted if kept is None else kept.program

    def _find(self, args: PyTree) -> "_Kept | None":
        """The program of arguments with these shapes; None: it is not kept."""
        if not compilation_cache.is_used():
            return None
        leaves, structure = jax.tree.flatten(args)
        shapes = (str(structure), *((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        if shapes not in self._kept:
            self._kept[shapes] = self._load(shapes, args)
        return self._kept[shapes]

    def _load(self, shapes: tuple[Any, ...], args: PyTree) -> "_Kept | None":
        try:
            about = _described([self._name, self._about])
        except TypeError:
            return None
        text = json.dumps([about, shapes, ops.is_lax_only(), _surroundings()])
        name = f"{self._name}-{hashlib.sha256(text.encode()).hexdigest()}-trace"
        content = compilation_cache.read_kept(name)
        if content is None:
            try:
                exported = jax.export.export(self._jitted)(*args)
            except ValueError:  # it calls what jax does not promise to keep as it is
                return None
            if b"custom_call" in exported.mlir_module_serialized:
                return None  # of a library that jax has to prepare, or may change
            content = bytes(exported.serialize())
            compilation_cache.keep(name, content)
        # Also where it was just made: the next start must find the same program.
        return _Kept.of(content, self._name, self._donate_argnums)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A function that was traced before, for arguments of certain shapes."""

    program: Any
    uses_all: bool

    @classmethod
    def of(
        cls, content: bytes, name: str, donate_argnums: int | tuple[int, ...]
    ) -> "_Kept":
        # Of a program for "cpu", jax prepares LAPACK by importing SciPy, which takes
        # longer than all the rest here; what is kept calls no library.
        exported = dataclasses.replace(
            jax.export.deserialize(bytearray(content)),
            platforms=("any",),
            disabled_safety_checks=(jax.export.DisabledSafetyCheck.platform(),),
        )

        def call(*args: PyTree) -> Any:
            return exported.call(*args)

        call.__name__ = name
        used = len(exported.module_kept_var_idx)
        program = jax.jit(call, donate_argnums=donate_argnums)
        return cls(program, used == len(exported.in_avals))


def _described(value: Any) -> Any:
    """Values for JSON that stand for a value.

    Raises:
      TypeError: for what can change while they do not: what is defined elsewhere.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_described(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _described(item) for key, item in sorted(value.items())}
    if isinstance(value, np.dtype | type(jnp.float32)):
        return np.dtype(value).name
    kind = value if isinstance(value, FunctionType | type) else type(value)
    if kind.__module__.startswith("jaxvision.") and "<" not in kind.__qualname__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind is value:
            return name
        if dataclasses.is_dataclass(value):
            fields = [f.name for f in dataclasses.fields(value) if f.name != "parent"]
            return [
                name,
                {field: _described(getattr(value, field)) for field in fields},
            ]
    raise TypeError(f"{value!r} is not of this package")


@functools.cache
def _surroundings() -> list[Any]:
    """All that traces depend on beside the function and its arguments."""
    device = jax.devices()[0]
    settings: Any = jax.config
    return [
        {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        [device.platform, device.device_kind],
        sorted((name, str(value)) for name, value in settings.values.items()),
        _code(),
    ]


def _code() -> str:
    """SHA-256 of this package."""
    digest, package = hashlib.sha256(), Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
