"""Traces are walked alike with JAX's own kinds of equations and with those to come."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from jaxvision.models import create_model
from jaxvision.models.receptive_field import receptive_fields
from jaxvision.traces import all_equations, called, mark, mark_of

COMING = (
    "jax_custom_vjp3",
    "jax_remat3",
    "jax_scan3",
    "jax_use_simplified_jaxpr_constants",
)
"""Switches of JAX that change what its traces hold."""


@pytest.fixture(params=[None, *COMING])
def flag(request: pytest.FixtureRequest) -> Iterator[str | None]:
    name = request.param
    if name is None:
        yield None
        return
    if name not in jax.config.values:
        pytest.skip(f"this JAX has no {name}")
    before = jax.config.values[name]
    jax.config.update(name, True)
    yield name
    jax.config.update(name, before)


def products() -> dict[str, Callable[..., jax.Array]]:
    """A matrix product, each within a rule, a call or a loop; made under the flag."""

    def with_rule() -> Callable[..., jax.Array]:
        product = jax.custom_vjp(jnp.dot)
        product.defvjp(lambda a, b: (jnp.dot(a, b), b), lambda b, g: (g @ b.T, g))
        return product

    def looped(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda a, _: (a @ b, None), a, None, length=3)[0]

    return {
        "rule": with_rule(),
        "remat": jax.checkpoint(jnp.dot),
        "jit": jax.jit(lambda a, b: a @ b),
        "loop": looped,
        "branch": lambda a, b: jax.lax.cond(a[0, 0] > 0, jnp.dot, lambda a, b: b, a, b),
    }


@pytest.mark.parametrize("kind", ["rule", "remat", "jit", "loop", "branch"])
def test_what_lies_within_an_equation_is_found(kind: str, flag: str | None) -> None:
    a, b = np.eye(2, dtype=np.float32), np.full((2, 2), 3, np.float32)
    traced = jax.make_jaxpr(products()[kind])(a, b)
    names = [equation.primitive.name for equation in all_equations(traced.jaxpr)]
    assert names.count("dot_general") == 1
    calls = [found for e in traced.jaxpr.eqns if (found := called(e)) is not None]
    if kind in ("loop", "branch"):
        assert calls == []
        return
    ((trace, constants),) = calls
    (result,) = jaxpr_as_fun(jax.extend.core.ClosedJaxpr(trace, list(constants)))(a, b)
    np.testing.assert_array_equal(result, b)


def test_marks_are_seen(flag: str | None) -> None:
    traced = jax.make_jaxpr(lambda x: mark(jnp.sin(x), "a sine"))(1.0)
    assert [mark_of(equation) for equation in traced.jaxpr.eqns] == [None, "a sine"]


def test_receptive_fields_do_not_depend_on_how_jax_traces(flag: str | None) -> None:
    backbone = create_model("simple_cnn", 2).backbone
    fields = receptive_fields(backbone, (40, 40, 3))
    assert fields["conv2"] is not None
    assert (fields["conv2"].down.size, fields["conv2"].down.stride) == (13, 4)
