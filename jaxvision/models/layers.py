"""The layers that the networks are built of, with the source of each default.

Parameters and statistics are float32 always; `dtype` is what a layer computes in
and returns. Padding is explicit everywhere, since frameworks differ in it.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import ScopeParamShapeError
from jax import lax

from jaxvision import ops

Initializer = Callable[..., jax.Array]
Pads = tuple[tuple[int, int], tuple[int, int]]
"""Rows or columns added before and after: `((top, bottom), (left, right))`."""


def _torch_kernel(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """torch.nn.Linear's and Conv2d's kaiming_uniform(a=sqrt(5)) for `[..., features]`.

    Uniform in +-1/sqrt(fan_in);
    https://github.com/pytorch/pytorch/blob/main/torch/nn/modules
    """
    return _uniform(key, shape, dtype, math.prod(shape[:-1]) ** -0.5)


TORCH_KERNEL: Initializer = _torch_kernel


def _he_normal(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """Keras's HeNormal (arXiv:1502.01852) for `[..., features]`.

    Normal with variance 2 / fan_in, cut at two standard deviations; the fan-in of a
    depthwise kernel `[k, k, 1, C]` is k * k.
    """
    # .8796: the deviation of the standard normal once it is cut at +-2.
    deviation = (2 / math.prod(shape[:-1])) ** 0.5 / 0.87962566103423978
    # Flat: see `_uniform`.
    flat = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),), dtype)
    return (flat * jnp.asarray(deviation, dtype)).reshape(shape)


HE_NORMAL: Initializer = _he_normal


def torch_bias(fan_in: int) -> Initializer:
    """torch's default for biases: uniform in +-1/sqrt(fan_in)."""

    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> jax.Array:
        return _uniform(key, shape, dtype, fan_in**-0.5)

    return init


def _uniform(
    key: jax.Array, shape: tuple[int, ...], dtype: Any, bound: float
) -> jax.Array:
    # Drawn flat: the same numbers, but on CPUs the generator's program for an array
    # of several axes takes seconds to compile, ten times as long.
    flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
    return flat.reshape(shape)


def same_pads(size: tuple[int, ...], kernel: int, stride: int) -> Pads:
    """TensorFlow's SAME padding of an image `size` (height, width).

    The output is ceil(size / stride) wide; an odd pad goes after the image, so that
    a 3x3 convolution of stride 2 pads (0, 1) on even sizes and (1, 1) on odd ones.
    """

    def one_side(length: int) -> tuple[int, int]:
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2

    return one_side(size[0]), one_side(size[1])


def explicit_pads(
    size: tuple[int, ...], kernel: int, stride: int, padding: int | Literal["same"]
) -> Pads:
    """What a layer's `padding` adds to an image `size` (height, width)."""
    if padding == "same":
        return same_pads(size, kernel, stride)
    return (padding, padding), (padding, padding)


def parameter(
    module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """`module.param(name, init, shape)`, in a fraction of the time where the parameter
    is there: that traces `init` with a key for its shape alone, each time.

    Args:
      init: (key, shape) -> the parameter, float32.

    Raises:
      ScopeParamShapeError: the parameter that is there has another shape.
    """
    found = module.variable(
        "params", name, lambda: init(module.make_rng("params"), shape)
    ).value
    if found.shape != shape:
        path = "/".join(module.path)
        raise ScopeParamShapeError(name, path, found.shape, shape)
    return found


def weight_norm(module: nn.Module, kernel: jax.Array) -> jax.Array:
    """`kernel` `[..., features]` with a length of its own for each feature.

    g v / ||v|| (arXiv:1602.07868) with v the kernel given and g a parameter `scale`
    `[features]` of `module`, which starts as ||v||: the layer starts as without it,
    as with torch.nn.utils.parametrizations.weight_norm(dim=0).
    """
    length = jnp.sqrt(jnp.square(kernel).sum(range(kernel.ndim - 1)))
    scale = parameter(module, "scale", lambda *_: length, length.shape)
    return kernel * (scale / length).reshape((1,) * (kernel.ndim - 1) + (-1,))


class Conv(nn.Module):
    """Square convolution: `[B, H, W, C]` -> `[B, H', W', features]`.

    `padding` is a number of pixels on every side (as torch's) or "same" (as
    TensorFlow's). Parameters: `kernel` `[k, k, C, features]`, `bias` `[features]`; with
    `weight_norm` also `scale` `[features]`, the length of each filter. Called with a
    `factor` `[features]`, it is that of filters and biases times as large.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int | Literal["same"] = 0
    use_bias: bool = True
    weight_norm: bool = False
    kernel_init: Initializer = TORCH_KERNEL
    bias_init: Initializer = nn.initializers.zeros
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, factor: jax.Array | None = None) -> jax.Array:
        size = self.kernel_size
        shape = (size, size, x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        if self.weight_norm:
            kernel = weight_norm(self, kernel)
        y = ops.conv(
            x.astype(self.dtype),
            _times(kernel, factor).astype(self.dtype),
            stride=self.stride,
            padding=explicit_pads(x.shape[1:3], size, self.stride, self.padding),
        )
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, (self.features,))
            y = y + _times(bias, factor).astype(self.dtype).reshape(1, 1, 1, -1)
        return y


class DepthwiseConv(nn.Module):
    """One square filter a channel: `[B, H, W, C]` -> `[B, H', W', C]`.

    Parameters: `kernel` `[k, k, 1, C]`; with `use_bias` also `bias` `[C]`, which starts
    at zero. `factor` `[C]` as of `Conv`.
    """

    kernel_size: int
    stride: int = 1
    padding: int | Literal["same"] = 0
    use_bias: bool = False
    kernel_init: Initializer = TORCH_KERNEL
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, factor: jax.Array | None = None) -> jax.Array:
        size, channels = self.kernel_size, x.shape[-1]
        kernel = parameter(self, "kernel", self.kernel_init, (size, size, 1, channels))
        y = ops.depthwise_conv(
            x.astype(self.dtype),
            _times(kernel, factor).astype(self.dtype),
            stride=self.stride,
            padding=explicit_pads(x.shape[1:3], size, self.stride, self.padding),
        )
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, (channels,))
            y = y + _times(bias, factor).astype(self.dtype).reshape(1, 1, 1, -1)
        return y


def _times(weights: jax.Array, factor: jax.Array | None) -> jax.Array:
    if factor is None:
        return weights
    return weights * lax.broadcast_to_rank(factor, weights.ndim)


class Dense(nn.Module):
    """`[B, F]` -> `[B, features]`, drawn as torch.nn.Linear is.

    Parameters: `kernel` `[F, features]`, `bias` `[features]`; with `weight_norm` also
    `scale` `[features]`, the length of each unit's weights.
    """

    features: int
    weight_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in = x.shape[-1]
        kernel = parameter(self, "kernel", TORCH_KERNEL, (fan_in, self.features))
        bias = parameter(self, "bias", torch_bias(fan_in), (self.features,))
        if self.weight_norm:
            kernel = weight_norm(self, kernel)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        return y + bias.astype(self.dtype).reshape(1, -1)


class ReLU(nn.Module):
    """x above zero, else zero: `[...]` -> `[...]`.

    Rectifiers are modules without parameters, as pools are, so that what goes through
    them, and their gradient, can be reached from outside (`jaxvision.explain`).
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(x)


class ReLU6(nn.Module):
    """ReLU that ends at 6 (arXiv:1704.04861): `[...]` -> `[...]`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu6(x)


class Swish(nn.Module):
    """x times the sigmoid of x (arXiv:1710.05941): `[...]` -> `[...]`."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.swish(x)


class Rescale(nn.Module):
    """(x / 255 - mean) / std for each channel: `[..., C]` -> `[..., C]`.

    For published networks that begin so. All others are given normalized images:
    `jaxvision.preprocessing` has the numbers, and travels with the weights.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: jax.Array) -> jax.Array:
        row = (1,) * (x.ndim - 1) + (-1,)
        mean = jnp.array(self.mean, jnp.float32).reshape(row)
        std = jnp.array(self.std, jnp.float32).reshape(row)
        return ((x.astype(jnp.float32) / 255 - mean) / std).astype(x.dtype)


class MaxPool(nn.Module):
    """Greatest of each window: `[B, H, W, C]` -> `[B, H', W', C]`.

    A module without parameters, so that a window can be seen from outside, as that of
    a convolution can.
    """

    kernel_size: int
    stride: int
    padding: int | Literal["same"] = 0
    border: float = -math.inf
    """What is added around the image. Minus infinity never wins; Keras's networks
    that pad with zeros before they pool let zeros win over negative values."""

    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride = self.kernel_size, self.stride
        pads = explicit_pads(x.shape[1:3], size, stride, self.padding)
        if self.border != -math.inf:
            x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=self.border)
            pads = ((0, 0), (0, 0))
        return ops.max_pool(x, size, stride, pads)


class AvgPool(nn.Module):
    """Mean of each window: `[B, H, W, C]` -> `[B, H', W', C]`.

    Padding does not count, as in TensorFlow.
    """

    kernel_size: int
    stride: int
    padding: int | Literal["same"] = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride = self.kernel_size, self.stride
        pads = explicit_pads(x.shape[1:3], size, stride, self.padding)
        return ops.avg_pool(x, size, stride, pads, count_include_pad=False)


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Means over a `size` x `size` grid of bins: `[B, H, W, C]` -> `[B, s, s, C]`.

    Bin i of n pixels goes from floor(i * n / size) to ceil((i + 1) * n / size), so that
    bins overlap, or repeat pixels, where n is no multiple of `size`: torch's
    AdaptiveAvgPool2d.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        bins = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        x = jnp.stack(
            [lax.slice_in_dim(x, a, b, axis=axis).mean(axis) for a, b in bins], axis
        )
    return x


class PReLU(nn.Module):
    """x above zero, `slope` * x below: `[..., C]` -> `[..., C]` (arXiv:1502.01852).

    Parameter: `slope` `[C]`, one a unit, which starts at zero as Keras's does: as ReLU.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = parameter(self, "slope", nn.initializers.zeros, (x.shape[-1],))
        below = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) * x
        return jnp.where(x > 0, x, below)


class LocalResponseNorm(nn.Module):
    """Divides by the energy of the neighboring channels: `[..., C]` -> `[..., C]`.

    x / (k + alpha * mean of x^2)^beta, the mean over `size` channels of which one is
    the value's own and size // 2 come before it; beyond the ends are zeros, which
    count. AlexNet's of 2012 (section 3.3) but for the mean in place of the sum, as in
    torch.nn.LocalResponseNorm, whose defaults these are.
    """

    size: int = 4
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __call__(self, x: jax.Array) -> jax.Array:
        return ops.local_response_norm(
            x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k
        )


WINDOWED = (Conv, DepthwiseConv, MaxPool, AvgPool)
"""Layers that slide a window: they have `kernel_size`, `stride` and `padding`."""


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last: `[..., C]` -> `[..., C]`.

    Trains on the batch's own mean and (biased) variance and moves the running ones:
    `running = momentum * running + (1 - momentum) * batch`. torch's momentum is
    `1 - momentum` and its running variance takes the unbiased estimate, larger by
    n / (n - 1); TensorFlow and Flax do as is done here.

    Parameters: `scale`, `bias` `[C]`; statistics (`batch_stats`): `mean`, `var` `[C]`.
    """

    train: bool
    momentum: float = 0.99
    epsilon: float = 1e-5
    axis_name: str | None = None
    """Name of the mapped axis over whose devices the statistics are averaged."""
    dtype: Any = jnp.float32
    fold: bool = False
    """With running statistics, `normalized` makes it a part of the convolution."""

    @nn.compact
    def variables_of(
        self, channels: int
    ) -> tuple[jax.Array, jax.Array, nn.Variable, nn.Variable]:
        """Scale, bias, mean and variance."""
        shape = (channels,)
        return (
            parameter(self, "scale", nn.initializers.ones, shape),
            parameter(self, "bias", nn.initializers.zeros, shape),
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )

    def affine(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """`factor` and `shift` `[C]`: by the running statistics `x` becomes `x * factor
        + shift`."""
        scale, bias, mean, var = self.variables_of(channels)
        factor = scale * lax.rsqrt(var.value + self.epsilon)
        return factor, bias - mean.value * factor

    def __call__(self, x: jax.Array) -> jax.Array:
        scale, bias, mean, var = self.variables_of(x.shape[-1])
        if not self.train:
            y = ops.batch_norm_frozen(
                x, scale, bias, mean.value, var.value, epsilon=self.epsilon
            )
            return y.astype(self.dtype)
        initializing = self.is_initializing()
        y, batch_mean, batch_var = ops.batch_norm_train(
            x,
            scale,
            bias,
            epsilon=self.epsilon,
            # Initialization happens outside the mapped axis.
            axis_name=None if initializing else self.axis_name,
        )
        if not initializing:
            keep = self.momentum
            mean.value = keep * mean.value + (1 - keep) * batch_mean
            var.value = keep * var.value + (1 - keep) * batch_var
        return y.astype(self.dtype)


def normalized(conv: Conv | DepthwiseConv, norm: BatchNorm, x: jax.Array) -> jax.Array:
    """`norm(conv(x))`, by one scaled convolution where `norm` is folded into it.

    The same but for rounding. What the convolution gives is not read again for the
    gradient of the scale, which follows from that of the kernel.
    """
    if norm.train or not norm.fold:
        return norm(conv(x))
    factor, shift = norm.affine(
        conv.features if isinstance(conv, Conv) else x.shape[-1]
    )
    y = conv(x, factor=factor) + shift.reshape(1, 1, 1, -1)
    return y.astype(norm.dtype)


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` in training and scales the others up.

    `rate` is in [0, 1); it may be a traced scalar, so that a vmapped sweep can vary
    it. With `per_example` whole examples are zeroed: the "drop connect" of
    EfficientNet's residual branches (stochastic depth, arXiv:1603.09382).
    """

    rate: float | jax.Array
    train: bool
    per_example: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.train or (isinstance(self.rate, int | float) and self.rate == 0):
            return x
        shape = x.shape[:1] + (1,) * (x.ndim - 1) if self.per_example else x.shape
        keep = 1.0 - self.rate
        # Flat: see `_uniform`.
        size = (math.prod(shape),)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, size).reshape(shape)
        return jnp.where(kept, x / jnp.asarray(keep, x.dtype), jnp.zeros_like(x))
