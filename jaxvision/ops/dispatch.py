"""Which formulation of an operation runs, in one table.

Both formulations give the same numbers, so the choice concerns speed alone. It is
made when a function is traced, from the platform that JAX will run it on by default,
rather than with `jax.lax.platform_dependent`: nothing of the other platform is traced
or kept for the backward pass, and there is no conditional for `vmap`, `shard_map` and
`pmap` to go through. A computation that is sent to another device by hand gets the
other platform's formulation, with the same result.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxvision.ops import convolution, depthwise, normalization, pooling
from jaxvision.ops import lax as lax_ops
from jaxvision.ops.windows import Padding, Pair

_FORMULATIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "cpu": {
        "conv": convolution.conv,
        "depthwise_conv": depthwise.depthwise_conv,
        "max_pool": pooling.max_pool,
        "sum_pool": pooling.sum_pool,
        "batch_norm_train": normalization.batch_norm_train,
        "batch_norm_frozen": normalization.batch_norm_frozen,
        "local_response_norm": normalization.local_response_norm,
    },
    "other": {
        "conv": lax_ops.conv,
        "depthwise_conv": lax_ops.depthwise_conv,
        "max_pool": lax_ops.max_pool,
        "sum_pool": lax_ops.sum_pool,
        "batch_norm_train": lax_ops.batch_norm_train,
        "batch_norm_frozen": lax_ops.batch_norm_frozen,
        "local_response_norm": lax_ops.local_response_norm,
    },
}


_lax_only = ContextVar("_lax_only", default=False)


@contextmanager
def lax_only() -> Iterator[None]:
    """Everything that is traced within is `jax.lax` as it is, on CPUs too.

    For what the rules of our own do not do, such as `jax.jvp`, and to compare with.
    """
    token = _lax_only.set(True)
    try:
        yield
    finally:
        _lax_only.reset(token)


def is_lax_only() -> bool:
    """Whether what is traced now is `jax.lax` as it is, on CPUs too."""
    return _lax_only.get()


def _formulation(name: str) -> Callable[..., Any]:
    platform = jax.default_backend()
    ours = platform in _FORMULATIONS and not _lax_only.get()
    return _FORMULATIONS[platform if ours else "other"][name]


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Pair = 1,
    padding: Padding,
    groups: int = 1,
) -> jax.Array:
    """Convolution of `[B, H, W, C]` with `[kh, kw, C / groups, F]`: `[B, H', W', F]`.

    `H' = (H + top + bottom - kh) // stride + 1`. Both arrays have one floating dtype,
    which is also the result's.
    """
    x, kernel = _vary_alike(x, kernel)
    return _formulation("conv")(
        x, kernel, stride=_pair(stride), padding=_padding(padding), groups=groups
    )


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, *, stride: int | Pair = 1, padding: Padding
) -> jax.Array:
    """Each channel of `[B, H, W, C]` convolved with its own of `[kh, kw, 1, C]`.

    The same as `conv` with C groups. bfloat16 is added up in float32.
    """
    x, kernel = _vary_alike(x, kernel)
    return _formulation("depthwise_conv")(
        x, kernel, stride=_pair(stride), padding=_padding(padding)
    )


def max_pool(
    x: jax.Array, window: int | Pair, stride: int | Pair, padding: Padding
) -> jax.Array:
    """Greatest element of each window of `[B, H, W, C]`; the border is -infinity.

    A window with a NaN gives NaN. The gradient goes to the first of equal maxima, row
    by row, as in torch and `jax.lax`. Padding is narrower than the window, or a
    ValueError is raised.
    """
    window, stride, padding = _pair(window), _pair(stride), _padding(padding)
    _check_padding(window, padding)
    return _formulation("max_pool")(x, window=window, stride=stride, padding=padding)


def avg_pool(
    x: jax.Array,
    window: int | Pair,
    stride: int | Pair,
    padding: Padding,
    *,
    count_include_pad: bool = True,
) -> jax.Array:
    """Mean of each window of `[B, H, W, C]`.

    The border counts as zeros (torch's default), or with `count_include_pad=False` not
    at all (Keras). Padding is narrower than the window, or a ValueError is raised.
    """
    window, stride, padding = _pair(window), _pair(stride), _padding(padding)
    _check_padding(window, padding)
    total = _formulation("sum_pool")(x, window=window, stride=stride, padding=padding)
    if count_include_pad:
        return total / (window[0] * window[1])
    down, across = (
        _elements_inside(*axis)
        for axis in zip(x.shape[1:3], window, stride, padding, strict=True)
    )
    inside = np.outer(down, across)
    return total / inside[None, :, :, None].astype(x.dtype)


def batch_norm_train(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    epsilon: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes `[..., C]` by its own statistics, over all axes but the last.

    `y = (x - mean) / sqrt(variance + epsilon) * scale + bias`, with the variance
    divided by n, computed about the mean in a second pass. Statistics are float32 at
    least, also for bfloat16; `scale` and `bias` `[C]` are float32. With `axis_name`
    they are those of all devices of that mapped axis, whose shards are equally large.

    Returns:
      `y` in the dtype of `x`, and mean and variance `[C]`, which are meant to be
      kept: constants to differentiation.
    """
    x, scale, bias = _vary_alike(x, scale, bias)
    return _formulation("batch_norm_train")(
        x, scale, bias, epsilon=epsilon, axis_name=axis_name
    )


def batch_norm_frozen(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    epsilon: float,
) -> jax.Array:
    """Normalizes `[..., C]` by given statistics `[C]`; else as `batch_norm_train`.

    The result has the dtype of `x`; everything is differentiable.
    """
    x, scale, bias, mean, variance = _vary_alike(x, scale, bias, mean, variance)
    return _formulation("batch_norm_frozen")(
        x, scale, bias, mean, variance, epsilon=epsilon
    )


def local_response_norm(
    x: jax.Array, *, size: int, alpha: float, beta: float, k: float
) -> jax.Array:
    """Divides `[..., C]` by the energy of the neighboring channels.

    `x / (k + alpha * mean of x^2)^beta`, the mean over `size` channels of which one is
    the value's own and size // 2 come before it; beyond the ends are zeros, which
    count. `k` is positive. bfloat16 is computed in float32.
    """
    return _formulation("local_response_norm")(
        x, size=size, alpha=alpha, beta=beta, k=k
    )


def _elements_inside(
    size: int, window: int, stride: int, padding: tuple[int, int]
) -> list[int]:
    """How many elements of each window lie in the image, along one axis."""
    low, high = padding
    starts = range(-low, size + high - window + 1, stride)
    return [min(start + window, size) - max(start, 0) for start in starts]


def _check_padding(window: Pair, padding: Padding) -> None:
    if any(max(border) >= w for w, border in zip(window, padding, strict=True)):
        raise ValueError(f"padding {padding} is not narrower than window {window}")


def _vary_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Under `shard_map`, what one argument varies over, all vary over.

    A replicated kernel's gradient is then summed over the devices by JAX itself and
    not by the rules that are written here.
    """
    axes = frozenset().union(*map(_varying, arrays))
    return tuple(
        lax.pcast(a, tuple(missing), to="varying") if missing else a
        for a, missing in ((a, axes - _varying(a)) for a in arrays)
    )


def _varying(x: jax.Array) -> frozenset[str]:
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


def _padding(padding: Padding) -> Padding:
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)
