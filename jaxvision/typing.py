"""Names for the shapes of data that pass between the layers."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what reads images does without JAX
    import jax

PyTree = Any
"""A tree of arrays: nested dicts, tuples and dataclasses."""

Metrics = dict[str, "jax.Array"]
"""Float32 scalars that are sums over examples, so that they add across batches
and devices; `count` is the number of examples they were summed over."""

Row = dict[str, float]
"""Figures by name, such as those of one epoch."""

Progress = Callable[[int, int], None]
"""Told (how many are done, how many there are in all)."""

Batch = Mapping[str, Any]
"""One batch, as loaders yield it and steps take it; B is fixed during a run.

image: `[B, H, W, C]` uint8 images, or `[B, ...]` float32 features.
label: `[B]` int32 class indices.
mask: `[B]` float32, 1 where the example counts and 0 where it only fills the batch up.
"""
