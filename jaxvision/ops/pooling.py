"""Pooling for CPUs: maxima and sums over the taps of the window."""

from functools import partial, reduce
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvision.ops import lax as lax_ops
from jaxvision.ops.windows import Padding, Pair, Windows

_MOST_TAPS = 64
"""Larger windows would take long to compile, tap by tap."""


def max_pool(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    if np.prod(window) > _MOST_TAPS:
        return lax_ops.max_pool(x, window=window, stride=stride, padding=padding)
    return _max_pool(x, Windows(x.shape[1:3], window, stride, padding))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, windows: Windows) -> jax.Array:
    padded = windows.pad(x, -np.inf)
    return reduce(lax.max, (windows.tap(padded, tap) for tap in windows.taps()))


def _max_forward(x: jax.Array, windows: Windows) -> tuple[jax.Array, jax.Array]:
    padded = windows.pad(x, -np.inf)
    first, *others = windows.taps()
    best = windows.tap(padded, first)
    place = jnp.zeros(best.shape, jnp.int8)
    for index, tap in enumerate(others, start=1):
        value = windows.tap(padded, tap)
        # Strictly greater: the first of equal maxima wins, as in torch and jax.lax.
        # A NaN wins too, and stays.
        wins = (value > best) | (value != value)
        place = jnp.where(wins, jnp.array(index, place.dtype), place)
        best = lax.max(best, value)
    return best, place


def _max_backward(windows: Windows, place: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    places = windows.pad_windows(place, -1)
    padded = windows.pad_windows(g)
    index = {tap: n for n, tap in enumerate(windows.taps())}
    zero = jnp.zeros((), g.dtype)
    return (
        windows.transpose(
            lambda tap, shift: jnp.where(
                shift(places) == index[tap], shift(padded), zero
            )
        ),
    )


_max_pool.defvjp(_max_forward, _max_backward)


def sum_pool(
    x: jax.Array, *, window: Pair, stride: Pair, padding: Padding
) -> jax.Array:
    if np.prod(window) > _MOST_TAPS:
        return lax_ops.sum_pool(x, window=window, stride=stride, padding=padding)
    return _sum_pool(x, Windows(x.shape[1:3], window, stride, padding))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_pool(x: jax.Array, windows: Windows) -> jax.Array:
    padded = windows.pad(x)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = sum(windows.tap(padded, tap).astype(wide) for tap in windows.taps())
    return cast(jax.Array, total).astype(x.dtype)


def _sum_forward(x: jax.Array, windows: Windows) -> tuple[jax.Array, None]:
    return _sum_pool(x, windows), None


def _sum_backward(windows: Windows, _: None, g: jax.Array) -> tuple[jax.Array]:
    padded = windows.pad_windows(g)
    return (windows.transpose(lambda tap, shift: shift(padded)),)


_sum_pool.defvjp(_sum_forward, _sum_backward)
