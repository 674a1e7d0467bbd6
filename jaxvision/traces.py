"""What JAX traced, walked through whatever the equations are.

Traces within equations are found by what they have and not by types or names, which JAX
changes: a call, a loop, a derivative rule or a rematerialization holds its trace in a
parameter, in a list of them, or in an object with parameters of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Primitive

_MARK = Primitive("mark")
_MARK.def_abstract_eval(lambda x, *, name: x)

_LOOPS = ("scan", "while")


def mark(x: jax.Array, name: str) -> jax.Array:
    """`x`, named in the trace: see `mark_of`. It can be traced only, and never run."""
    return _MARK.bind(x, name=name)


def mark_of(equation: JaxprEqn) -> str | None:
    """The name that `mark` gave an equation's result; None: it comes from elsewhere."""
    return equation.params["name"] if equation.primitive is _MARK else None


def inner_traces(equation: JaxprEqn) -> list[Jaxpr]:
    """The traces within one equation: of a call, a loop, a rule of its own."""
    return [trace for trace, _ in _traces(equation.params)]


def all_equations(trace: Jaxpr) -> Iterator[JaxprEqn]:
    """Those of a trace, and of every trace in it."""
    for equation in trace.eqns:
        yield equation
        for inner in inner_traces(equation):
            yield from all_equations(inner)


def called(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]] | None:
    """What an equation runs once on its very arguments, for its very results.

    Returns:
      The trace and its constants; None for operations and loops.
    """
    if _kind(equation).startswith(_LOOPS):
        return None
    given, results = _shapes(equation.invars), _shapes(equation.outvars)
    for trace, constants in _traces(equation.params):
        if (_shapes(trace.invars), _shapes(trace.outvars)) == (given, results):
            return trace, constants
    return None


def _traces(value: Any) -> Iterator[tuple[Jaxpr, Sequence[Any]]]:
    """Every trace in a parameter, with its constants."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _traces(item)
    elif hasattr(value, "eqns"):
        # One that brings its constants has the one without them inside.
        yield getattr(value, "jaxpr", value), getattr(value, "consts", ())
    elif hasattr(getattr(value, "jaxpr", None), "eqns"):
        # A function that was traced.
        yield from _traces(value.jaxpr)
    elif isinstance(getattr(value, "params", None), Mapping):
        # An operation of its own, which stands in a general equation.
        yield from _traces(value.params)


def _kind(equation: JaxprEqn) -> str:
    """The name of its operation, also where one equation stands for many kinds."""
    own = equation.params.get("_prim")
    return equation.primitive.name if own is None else type(own).__name__.lower()


def _shapes(atoms: Sequence[Any]) -> list[tuple[int, ...]]:
    return [getattr(atom.aval, "shape", ()) for atom in atoms]
