"""Sliding windows taken apart into strided slices, and put together again.

XLA's CPU backend runs windowed operations over channels-last images element by
element. Written as a sum over the taps of the window, each a strided slice, the same
operation becomes one fused loop that runs along the channels in vector registers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, ...]
"""Two numbers: down and across."""
Padding = tuple[tuple[int, int], ...]
"""`((top, bottom), (left, right))`."""


@dataclass(frozen=True)
class Windows:
    """Where windows lie on an image of `size` (height, width)."""

    size: Pair
    window: Pair
    stride: Pair
    padding: Padding

    @property
    def count(self) -> Pair:
        """Windows that fit, down and across."""
        return tuple(
            (n + low + high - w) // s + 1
            for n, w, s, (low, high) in zip(
                self.size, self.window, self.stride, self.padding, strict=True
            )
        )

    def taps(self) -> Iterator[Pair]:
        """Places within the window, row by row."""
        yield from product(*map(range, self.window))

    def pad(self, x: jax.Array, value: float = 0.0) -> jax.Array:
        """Images `[B, H, W, C]` with their border."""
        return pad(x, self.padding, value)

    def tap(self, padded: jax.Array, tap: Pair) -> jax.Array:
        """What each window sees at one of its places: `[B, *count, C]`."""
        batch, _, _, channels = padded.shape
        (i, j), (sh, sw), (rows, columns) = tap, self.stride, self.count
        return lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + (rows - 1) * sh + 1, j + (columns - 1) * sw + 1, channels),
            (1, sh, sw, 1),
        )

    def pad_windows(self, g: jax.Array, value: float = 0.0) -> jax.Array:
        """Windows' values `[B, *count, C]` with the border that `transpose` needs."""
        border = tuple(
            (reach, max(phase_size - n, 0))
            for reach, phase_size, n in zip(
                self._reach, self.phase_size, self.count, strict=True
            )
        )
        return pad(g, border, value)

    def transpose(
        self,
        contribution: Callable[[Pair, Callable[[jax.Array], jax.Array]], jax.Array],
    ) -> jax.Array:
        """Adds up what the windows send back to every element of the image.

        The elements that lie alike within the stride (a phase) see the same taps, so
        that each phase is a sum of shifted arrays; the phases are interleaved at the
        end and nothing is scattered.

        Args:
          contribution: given a tap and a function that shifts what `pad_windows`
            gave to where that tap of each window lies, returns what the windows
            send there.
        """
        (kh, kw), (sh, sw) = self.window, self.stride

        def phase(a: int, b: int) -> jax.Array | None:
            parts = [
                contribution((i, j), lambda g, i=i, j=j: self._shift(g, i, j))
                for i in range(a, kh, sh)
                for j in range(b, kw, sw)
            ]
            return sum(parts[1:], start=parts[0]) if parts else None

        phases = [[phase(a, b) for b in range(sw)] for a in range(sh)]
        # Strides larger than windows leave elements that no window sees.
        unseen = next(jnp.zeros_like(p) for p in phases[0] if p is not None)
        return self.interleave(
            [[unseen if p is None else p for p in row] for row in phases]
        )

    def interleave(self, phases: list[list[jax.Array]]) -> jax.Array:
        """The image `[B, H, W, C]` of its phases `[B, *phase_size, C]`.

        `phases[a][b]` has every element that lies a rows and b columns after a
        multiple of the stride, in the padded image.
        """
        batch, rows, columns, channels = phases[0][0].shape
        sh, sw = self.stride
        across = [row[0] if sw == 1 else jnp.stack(row, axis=3) for row in phases]
        whole = across[0] if sh == 1 else jnp.stack(across, axis=2)
        whole = whole.reshape(batch, rows * sh, columns * sw, channels)
        (top, _), (left, _) = self.padding
        return lax.slice(
            whole,
            (0, top, left, 0),
            (batch, top + self.size[0], left + self.size[1], channels),
        )

    @property
    def phase_size(self) -> Pair:
        """Elements of a phase, down and across."""
        return tuple(
            -(-(n + low) // s)
            for n, s, (low, _) in zip(self.size, self.stride, self.padding, strict=True)
        )

    @property
    def _reach(self) -> Pair:
        """How many windows before its own an element is seen by."""
        return tuple(
            (w - 1) // s for w, s in zip(self.window, self.stride, strict=True)
        )

    def _shift(self, padded: jax.Array, i: int, j: int) -> jax.Array:
        batch, _, _, channels = padded.shape
        down = self._reach[0] - i // self.stride[0]
        across = self._reach[1] - j // self.stride[1]
        rows, columns = self.phase_size
        return lax.slice(
            padded,
            (0, down, across, 0),
            (batch, down + rows, across + columns, channels),
        )


def pad(x: jax.Array, border: Padding, value: float = 0.0) -> jax.Array:
    """`x` `[B, H, W, C]` with a border of `value`, computed once.

    The barrier keeps XLA from fusing the border's bounds checks into every tap.
    """
    if border == ((0, 0), (0, 0)):
        return x
    config = ((0, 0, 0), *((low, high, 0) for low, high in border), (0, 0, 0))
    return lax.optimization_barrier(lax.pad(x, jnp.array(value, x.dtype), config))
