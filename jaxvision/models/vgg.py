"""VGG networks (arXiv:1409.1556): small kernels in blocks that a pool closes."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import jax
from flax import linen as nn

from jaxvision.errors import InputError
from jaxvision.models.backbone import Backbone, Layer
from jaxvision.models.layers import (
    HE_NORMAL,
    AvgPool,
    BatchNorm,
    Dropout,
    Initializer,
    MaxPool,
    PReLU,
    ReLU,
    adaptive_average_pool,
    normalized,
)

POOLS: dict[str, Callable[[int, int], nn.Module]] = {
    "average": AvgPool,
    "max": MaxPool,
}


class Block(NamedTuple):
    """Convolutions of this many filters, one for each kernel size, and a 2x2 pool."""

    features: int
    kernel_sizes: tuple[int, ...]


class VGG(Backbone):
    """`[B, H, W, C]` -> `[B, F]`: blocks "conv1_1" to "pool1" and so on, dense layers.

    Convolutions have biases and keep the size. Dense layers are numbered on from the
    blocks, as Caffe's fc6 and fc7 are. Kernels are drawn as Keras's HeNormal does.
    """

    rates: ClassVar[tuple[str, ...]] = ("dropout_rate",)

    bn_momentum: float = 0.99
    """Keras's default."""
    blocks: tuple[Block, ...] = ()
    dense: tuple[int, ...] = ()
    """Units of the dense layers."""
    grid: int | None = None
    """Before the dense layers come means over a grid of this many bins each way, so
    that the same weights take images of every size; torchvision's addition. None: what
    the last pool leaves, however large."""
    batch_norm: bool = True
    """Batch norm after every convolution."""
    pool: Literal["average", "max"] = "max"
    dense_prelu: bool = False
    """Batch norm and PReLU after every dense layer, in place of ReLU."""
    dropout_rate: float | jax.Array = 0.0
    """Dropout after every dense layer, and after every pool with `pool_dropout`."""
    pool_dropout: bool = False

    @property
    def smallest(self) -> int:
        """Every pool halves."""
        return 2 ** len(self.blocks)

    def check(self) -> None:
        if self.pool not in POOLS:
            raise InputError(f"pool is {self.pool!r}; there are: {', '.join(POOLS)}")

    def head_init(self) -> Initializer:
        return HE_NORMAL

    def layers(self, train: bool) -> list[Layer]:
        table: list[Layer] = []
        for number, block in enumerate(self.blocks, start=1):
            for place, size in enumerate(block.kernel_sizes, start=1):
                name = f"{number}_{place}"
                conv = partial(self._conv, name, block.features, size, train)
                table.append((f"conv{name}", conv))
            table.append((f"pool{number}", partial(self._pool, number, train)))
        first = len(self.blocks) + 1
        for number, width in enumerate(self.dense, start=first):
            grid = self.grid if number == first else None
            dense = partial(self._dense, number, width, grid, train)
            table.append((f"fc{number}", dense))
        return table

    def _conv(
        self, number: str, features: int, size: int, train: bool, x: jax.Array
    ) -> jax.Array:
        make_conv = self.make_conv(padding="same", kernel_init=HE_NORMAL)
        conv = make_conv(features, size, name=f"conv{number}")
        if not self.batch_norm:
            return ReLU()(conv(x))
        return ReLU()(normalized(conv, self._norm(number, train), x))

    def _pool(self, number: int, train: bool, x: jax.Array) -> jax.Array:
        x = POOLS[self.pool](2, 2)(x)
        if not self.pool_dropout:
            return x
        return Dropout(self.dropout_rate, train, name=f"pool_dropout{number}")(x)

    def _dense(
        self, number: int, width: int, grid: int | None, train: bool, x: jax.Array
    ) -> jax.Array:
        if grid is not None:
            x = adaptive_average_pool(x, grid)
        x = nn.Dense(
            width, kernel_init=HE_NORMAL, dtype=self.dtype, name=f"fc{number}"
        )(x.reshape(x.shape[0], -1))
        if self.dense_prelu:
            x = PReLU(name=f"prelu{number}")(self._norm(str(number), train)(x))
        else:
            x = ReLU()(x)
        return Dropout(self.dropout_rate, train, name=f"dropout{number}")(x)

    def _norm(self, number: str, train: bool) -> BatchNorm:
        norm = self.make_norm(train, epsilon=1e-3)  # Keras's default
        return norm(name=f"bn{number}")


# Richter 2024, figure 2.1: 1x1 convolutions close the deeper blocks.
VGG12 = (
    Block(64, (3, 3)),
    Block(128, (3, 3)),
    Block(256, (3, 3, 1)),
    Block(512, (3, 3, 1)),
)
# Table 1 of the paper, column B, without its last block.
VGG13 = tuple(Block(features, (3, 3)) for features in (64, 128, 256, 512))

# Table 1 of the paper, columns D and E.
VGG16 = (
    Block(64, (3,) * 2),
    Block(128, (3,) * 2),
    Block(256, (3,) * 3),
    Block(512, (3,) * 3),
    Block(512, (3,) * 3),
)
VGG19 = (
    Block(64, (3,) * 2),
    Block(128, (3,) * 2),
    Block(256, (3,) * 4),
    Block(512, (3,) * 4),
    Block(512, (3,) * 4),
)

# What the paper's networks have in common.
PUBLISHED = partial(VGG, dense=(4096, 4096), grid=7, batch_norm=False, dropout_rate=0.5)

VARIANTS = {
    # 6,625,101 trained parameters with 5 classes on 224x224x3.
    "vgg12": partial(
        VGG,
        blocks=VGG12,
        dense=(16, 8),
        pool="average",
        dense_prelu=True,
    ),
    # On 96x96x1, faces and comics: 9,407,169 with one logit.
    "vgg13_bn": partial(
        VGG, blocks=VGG13, dense=(256,), dropout_rate=0.2, pool_dropout=True
    ),
    # 138,357,544 and 143,667,240 parameters with 1000 classes.
    "vgg16": partial(PUBLISHED, blocks=VGG16),
    "vgg19": partial(PUBLISHED, blocks=VGG19),
}
