"""Small convolutional networks for small images: the course's, and its relatives."""

from functools import partial
from typing import ClassVar, Literal

import jax

from jaxvision.errors import InputError
from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import (
    Dense,
    Dropout,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    normalized,
    torch_bias,
)

SHAPES = {"pyramid": 2.0, "flat": 1.0, "inverse": 0.5}
"""By how much each block has more filters than the one before."""

PADDINGS: dict[str, int | Literal["same"]] = {"valid": 0, "same": "same"}

NORMS = ("none", "batch", "local_response", "weight")


class ConvNet(Backbone):
    """`[B, H, W, C]` -> `[B, F]`: convolutional blocks, then dense layers.

    A block is a convolution, batch norm (if that is asked for), ReLU, local response
    norm (if that is), max pooling and dropout. Kernels and biases are drawn as torch
    draws them.
    """

    rates: ClassVar[tuple[str, ...]] = ("conv_dropout_rate", "dense_dropout_rate")

    blocks: int = 3
    filters: int = 16
    """Filters of the first block."""
    shape: Literal["pyramid", "flat", "inverse"] = "pyramid"
    """Filters from block to block: doubled, as many, or halved."""
    kernel_size: int = 3
    stride: int = 1
    """Of the convolutions."""
    padding: Literal["valid", "same"] = "valid"
    """Of the convolutions; "same" as TensorFlow's. Pools are never padded."""
    norm: Literal["none", "batch", "local_response", "weight"] = "none"
    """Weight norm reaches the dense layers too, the others convolutions only."""
    pool_kernel: int = 2
    """0: no pooling."""
    pool_stride: int = 2
    dense_layers: int = 1
    """Hidden dense layers, each with half the units of the one before."""
    dense_width: int = 64
    """Units of the first one."""
    conv_dropout_rate: float | jax.Array = 0.0
    """Dropout at the end of each block, after its pool if it has one."""
    dense_dropout_rate: float | jax.Array = 0.0
    """Dropout after the ReLU of each dense layer."""

    def check(self) -> None:
        for option in (
            "blocks",
            "filters",
            "kernel_size",
            "stride",
            "pool_stride",
            "dense_layers",
            "dense_width",
        ):
            if getattr(self, option) < 1:
                raise InputError(
                    f"{option} is {getattr(self, option)}; it must be at least 1"
                )
        if self.pool_kernel < 0:
            raise InputError(
                f"pool_kernel is {self.pool_kernel}; it must be at least 0, no pooling"
            )
        for option, there in {
            "shape": SHAPES,
            "padding": PADDINGS,
            "norm": NORMS,
        }.items():
            if getattr(self, option) not in there:
                raise InputError(
                    f"{option} is {getattr(self, option)!r}; there are:"
                    f" {', '.join(there)}"
                )
        for option, widths in {
            "filters": self._filters(),
            "dense_width": self._dense_widths(),
        }.items():
            if widths[-1] < 1:
                raise InputError(
                    f"{option} is {getattr(self, option)}; halved"
                    f" {len(widths) - 1} times that leaves none"
                )

    def layers(self, train: bool) -> list[Layer]:
        table: list[Layer] = []
        for number, features in enumerate(self._filters(), start=1):
            table.append(
                (f"conv{number}", partial(self._conv, number, features, train))
            )
            if self.pool_kernel:
                table.append((f"pool{number}", partial(self._pool, number, train)))
        for number, features in enumerate(self._dense_widths(), start=1):
            table.append((f"fc{number}", partial(self._dense, number, features, train)))
        return table

    def _conv(self, number: int, features: int, train: bool, x: jax.Array) -> jax.Array:
        size = self.kernel_size
        if self.padding == "valid":
            _check_fits(f"conv{number}", "kernel", size, self.stride, x)
        make_conv = self.make_conv(
            use_bias=self.norm != "batch",  # which has one of its own
            weight_norm=self.norm == "weight",
            bias_init=torch_bias(size**2 * x.shape[-1]),
        )
        padding = PADDINGS[self.padding]
        conv = make_conv(features, size, self.stride, padding, name=f"conv{number}")
        if self.norm == "batch":
            x = normalized(conv, self.make_norm(train)(name=f"bn{number}"), x)
        else:
            x = conv(x)
        x = ReLU()(x)
        if self.norm == "local_response":
            x = LocalResponseNorm(size=4, name=f"lrn{number}")(x)
        return x if self.pool_kernel else self._drop(number, train, x)

    def _pool(self, number: int, train: bool, x: jax.Array) -> jax.Array:
        size, stride = self.pool_kernel, self.pool_stride
        _check_fits(f"pool{number}", "window", size, stride, x)
        x = MaxPool(size, stride, name=f"pool{number}")(x)
        return self._drop(number, train, x)

    def _drop(self, number: int, train: bool, x: jax.Array) -> jax.Array:
        return Dropout(self.conv_dropout_rate, train, name=f"dropout{number}")(x)

    def _dense(
        self, number: int, features: int, train: bool, x: jax.Array
    ) -> jax.Array:
        x = Dense(
            features,
            weight_norm=self.norm == "weight",
            dtype=self.dtype,
            name=f"fc{number}",
        )(x.reshape(x.shape[0], -1))
        drop = Dropout(self.dense_dropout_rate, train, name=f"fc_dropout{number}")
        return drop(ReLU()(x))

    def _filters(self) -> list[int]:
        factor = SHAPES[self.shape]
        return [int(self.filters * factor**i) for i in range(self.blocks)]

    def _dense_widths(self) -> list[int]:
        return [self.dense_width // 2**i for i in range(self.dense_layers)]


def _check_fits(layer: str, what: str, size: int, stride: int, x: jax.Array) -> None:
    height, width = x.shape[1:3]
    if min(height, width) < size:
        raise InputError(
            f"{layer}: a {size}x{size} {what} of stride {stride} leaves nothing of"
            f" {height}x{width} pixels; take larger images, fewer blocks, or smaller"
            " kernels, windows or strides"
        )


VARIANTS = {
    # The starter code of the course: two 5x5 convolutions of stride 2, 16 filters
    # each, with or without max pooling, and 64 hidden units.
    "simple_cnn": partial(
        ConvNet, blocks=2, shape="flat", kernel_size=5, stride=2, pool_kernel=0
    ),
    "convnet": ConvNet,
}
