"""What JAX traced, walked through whatever the equations are."""

from collections.abc import Iterator

import jax
from jax.extend.core import Jaxpr, JaxprEqn


def inner_traces(equation: JaxprEqn) -> list[Jaxpr]:
    """The traces within one equation: of a call, a loop, a rule of its own.

    Found by what they have and not by their types or names, which JAX changes.
    """

    def is_trace(value: object) -> bool:
        return hasattr(value, "eqns")

    found = jax.tree.leaves(list(equation.params.values()), is_leaf=is_trace)
    # A trace that brings its constants has the one without them inside.
    return [getattr(value, "jaxpr", value) for value in found if is_trace(value)]


def all_equations(trace: Jaxpr) -> Iterator[JaxprEqn]:
    """Those of a trace, and of every trace in it."""
    for equation in trace.eqns:
        yield equation
        for inner in inner_traces(equation):
            yield from all_equations(inner)
