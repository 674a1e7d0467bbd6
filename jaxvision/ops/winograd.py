"""3x3 and 5x5 convolution of stride 1 for CPUs, with a third of the multiplications.

Winograd's minimal filtering (Lavin & Gray 2016, arXiv:1509.09308): images are cut
into overlapping tiles; tiles and kernel are transformed so that convolving becomes
multiplying; and what is multiplied is, for each place in the tile, a matrix product
over the channels. Names of matrices are the paper's.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvision.ops.windows import Padding, Pair, pad

_TILE = 6
"""Height and width of the tiles of the input: 36 multiplications for 4x4 results of a
3x3 kernel in place of 144, or for 2x2 of a 5x5 in place of 100. Larger ones would lose
digits faster than they save time."""

_POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""Where polynomials are evaluated; infinity is the sixth. Results are off by 1e-6 of
the largest and less, a third of what the usual 0, 1, -1, 2, -2 lose."""

_KERNELS = (3, 5)

_LEAST_CHANNELS = 32
_LEAST_TILES = 48

_GROUP_BYTES = 2**25
"""Transformed tiles at once, about: those of a large batch would take more than twice
its memory."""


def pays(x: jax.Array, kernel: jax.Array, padding: Padding) -> bool:
    """Whether this is the quicker way, for float32: with fewer tiles the kernel's
    transform, with fewer channels that of the images takes longer than it saves."""
    height, width, *channels = kernel.shape
    return (
        x.dtype == jnp.float32
        and height == width
        and height in _KERNELS
        and max(max(border) for border in padding) < height
        and min(channels) >= _LEAST_CHANNELS
        and _Tiles(x.shape[1:3], height, padding).number * len(x) >= _LEAST_TILES
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """`[B, H, W, C]` with `[k, k, C, F]`: `[B, H', W', F]`."""
    tiles = _Tiles(x.shape[1:3], len(kernel), padding)
    return _multiply(x, _transform(kernel, tiles.g), tiles, contracted=1)


def _forward(
    x: jax.Array, kernel: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, padding), (x, kernel)


def _backward(
    padding: Padding, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return (
        _input_gradient(kernel, g, padding),
        _kernel_gradient(x, len(kernel), g, padding),
    )


conv.defvjp(_forward, _backward)


def _input_gradient(kernel: jax.Array, g: jax.Array, padding: Padding) -> jax.Array:
    """What `conv`'s images get: a convolution with the kernel turned round."""
    reach = len(kernel) - 1
    border = tuple((reach - low, reach - high) for low, high in padding)
    tiles = _Tiles(g.shape[1:3], len(kernel), border)
    return _multiply(g, _transform(kernel, tiles.g[:, ::-1]), tiles, contracted=2)


def _kernel_gradient(
    x: jax.Array, kernel_size: int, g: jax.Array, padding: Padding
) -> jax.Array:
    """What `conv`'s kernel gets: products of what tiles see with what they are given.

    Summed over the tiles before they are transformed back.
    """
    tiles = _Tiles(x.shape[1:3], kernel_size, padding)

    def products(x: jax.Array, g: jax.Array) -> jax.Array:
        seen, given = _flat(tiles.of_input(x)), _flat(tiles.of_output(g))
        return lax.dot_general(seen, given, (((1,), (1,)), ((0,), (0,))))

    def add(
        total: jax.Array, group: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, None]:
        return total + products(*group), None

    groups = tiles.groups(x)
    if groups == 1:
        total = products(x, g)
    else:
        # Like `x` and `g`, so that under `shard_map` they vary as these do.
        zeros = jnp.zeros_like(x[0, 0, 0, :, None] * g[0, 0, 0, None])
        zeros = jnp.broadcast_to(zeros, (_TILE**2, *zeros.shape))
        total, _ = lax.scan(add, zeros, (_split(x, groups), _split(g, groups)))
    return _transform(total.reshape(_TILE, _TILE, *total.shape[1:]), tiles.g.T)


def _multiply(
    x: jax.Array, weights: jax.Array, tiles: "_Tiles", *, contracted: int
) -> jax.Array:
    """Images times transformed weights `[6, 6, C, F]`, as images.

    contracted: 1 to sum over C, 2 over F.
    """
    weights = weights.reshape(_TILE**2, *weights.shape[2:])

    def convolve(x: jax.Array) -> jax.Array:
        seen = tiles.of_input(x)
        products = lax.dot_general(
            _flat(seen), weights, (((2,), (contracted,)), ((0,), (0,)))
        )
        return tiles.join(products.reshape(*seen.shape[:-1], -1))

    groups = tiles.groups(x)
    if groups == 1:
        return convolve(x)
    y = lax.map(convolve, _split(x, groups))
    return y.reshape(-1, *y.shape[2:])


@dataclass(frozen=True)
class _Tiles:
    """How images of `size` (height, width) are cut."""

    size: Pair
    kernel_size: int
    padding: Padding

    @property
    def step(self) -> int:
        """Height and width of a tile's result, by which tiles lie apart."""
        return _TILE - self.kernel_size + 1

    @property
    def output_size(self) -> Pair:
        return tuple(
            size + sum(border) - self.kernel_size + 1
            for size, border in zip(self.size, self.padding, strict=True)
        )

    @property
    def count(self) -> Pair:
        """Tiles down and across."""
        return tuple(-(-size // self.step) for size in self.output_size)

    @property
    def number(self) -> int:
        """Tiles of an image."""
        return self.count[0] * self.count[1]

    @property
    def a(self) -> np.ndarray:
        """A `[6, step]`: powers of the points."""
        return _powers(self.step)

    @property
    def g(self) -> np.ndarray:
        """G `[6, k]`: powers of the points, each by what its row of B^T is there."""
        points = np.asarray(_POINTS)
        scale = [np.prod(np.delete(p - points, n)) for n, p in enumerate(points)]
        return _powers(self.kernel_size) / np.append(scale, 1.0).reshape(-1, 1)

    def groups(self, x: jax.Array) -> int:
        """Into how many groups images go, one after the other: a divisor of B."""
        batch, *_, channels = x.shape
        image = self.number * _TILE**2 * channels * x.dtype.itemsize
        fitting = [n for n in range(1, batch + 1) if n * image <= _GROUP_BYTES]
        return batch // max((n for n in fitting if batch % n == 0), default=1)

    def of_input(self, x: jax.Array) -> jax.Array:
        """B^T d B of all tiles d: `[6, 6, B, down, across, C]`."""
        step, (down, across) = self.step, self.count
        overlap = self.kernel_size - 1
        border = tuple(
            (low, count * step + overlap - size - low)
            for size, count, (low, _) in zip(
                self.size, self.count, self.padding, strict=True
            )
        )
        x = pad(x, border)
        last_row, last_column = (down - 1) * step + 1, (across - 1) * step + 1
        taps = range(_TILE)
        rows = _combine(_B_TRANSPOSED, [x[:, i : i + last_row : step] for i in taps])
        columns = [rows[..., j : j + last_column : step, :] for j in taps]
        return _combine(_B_TRANSPOSED, columns)

    def of_output(self, g: jax.Array) -> jax.Array:
        """A g A^T of what the tiles' results get: `[6, 6, B, down, across, F]`."""
        step = self.step
        g = pad(g, tuple((0, -size % step) for size in g.shape[1:3]))
        rows = _combine(self.a, [g[:, i::step] for i in range(step)])
        return _combine(self.a, [rows[..., j::step, :] for j in range(step)])

    def join(self, products: jax.Array) -> jax.Array:
        """A^T m A of `[6, 6, B, down, across, F]`, as images `[B, H', W', F]`."""
        columns = _combine(self.a.T, list(products), axis=-2)
        rows = _combine(self.a.T, list(columns), axis=2)
        (down, across), (height, width) = self.count, self.output_size
        whole = (len(rows), down * self.step, across * self.step, rows.shape[-1])
        return rows.reshape(whole)[:, :height, :width]


def _polynomials() -> np.ndarray:
    """B^T `[6, 6]`: of each point the polynomial with its roots at all the others, and
    of infinity that with its roots at all."""
    matrix = np.zeros((_TILE, _TILE))
    others = [np.delete(_POINTS, place) for place in range(len(_POINTS))]
    for row, roots in zip(matrix, [*others, _POINTS], strict=True):
        polynomial = np.poly(roots)[::-1]
        row[: len(polynomial)] = polynomial
    return matrix


_B_TRANSPOSED = _polynomials()


def _powers(count: int) -> np.ndarray:
    """`[6, count]` powers of the points; infinity has the highest alone."""
    finite = np.vander(_POINTS, count, increasing=True)
    return np.concatenate([finite, np.eye(count)[-1:]])


def _flat(tiles: jax.Array) -> jax.Array:
    """`[6, 6, B, down, across, C]` -> `[36, tiles, C]`: matrices."""
    return tiles.reshape(_TILE**2, -1, tiles.shape[-1])


def _split(x: jax.Array, groups: int) -> jax.Array:
    return x.reshape(groups, -1, *x.shape[1:])


def _transform(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """M K M^T for each pair of channels of `[k, k, C, F]`."""
    rows = _combine(matrix, list(kernel), axis=1)
    return _combine(matrix, list(rows))


def _combine(matrix: np.ndarray, parts: list[jax.Array], *, axis: int = 0) -> jax.Array:
    """The matrix times a vector of arrays; the result's axis is a new one.

    The barrier keeps XLA from computing it anew for each of its readers.
    """
    sums = [
        sum(
            part if factor == 1 else part * np.asarray(factor, part.dtype)
            for factor, part in zip(row, parts, strict=True)
            if factor
        )
        for row in matrix
    ]
    return lax.optimization_barrier(jnp.stack(sums, axis))
