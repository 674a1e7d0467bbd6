"""Images that are nearly the same: copies that were recompressed or resized.

Each image has a difference hash (Krawetz, 2013): 256 bits that say where a small gray
version of it becomes brighter from one pixel to the next. Recompression and resizing
change few of them.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxvision.data.limits import MAX_COMPARED

HASH_SIDE = 16
"""Rows and columns of the bits."""

_STEP = 2
"""Gray levels that count as brighter: flat ground has no bits, not random ones."""
_MAX_BITS = 16
_SHARE = 6
"""Of two images' set bits at most one in this many differs: a drawing on white paper
has few, and another drawing has others."""
_ROWS = 256


def difference_hash(pixels: np.ndarray) -> bytes:
    """32 bytes for an image `[h, w, C]` uint8."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    # Reduced before it is gray: as quick, and of one rounding.
    size = (HASH_SIDE + 1, HASH_SIDE)
    small = np.asarray(image.resize(size, Image.Resampling.BOX).convert("L"), np.int16)
    return np.packbits(np.diff(small, axis=1) >= _STEP).tobytes()


def find_similar(hashes: Sequence[bytes]) -> list[tuple[int, int, int]]:
    """Pairs of indices with nearly the same hash, and how many bits differ.

    Nothing for more than `MAX_COMPARED` hashes: each is compared with every other one.
    """
    if not 2 <= len(hashes) <= MAX_COMPARED:
        return []
    words = np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), -1)
    pairs = []
    for begin in range(0, len(words), _ROWS):
        rows = words[begin : begin + _ROWS]
        later = words[begin:]
        # By one word first, which few pairs pass.
        close = np.bitwise_count(rows[:, None, 0] ^ later[None, :, 0]) <= _MAX_BITS
        first, second = np.nonzero(np.triu(close, 1))
        differ = np.bitwise_count(rows[first] ^ later[second]).sum(1, dtype=np.int64)
        set_bits = np.bitwise_count(rows[first] | later[second]).sum(1, dtype=np.int64)
        kept = (differ <= _MAX_BITS) & (differ * _SHARE < set_bits)
        pairs += zip(
            (first[kept] + begin).tolist(),
            (second[kept] + begin).tolist(),
            differ[kept].tolist(),
            strict=True,
        )
    return pairs
