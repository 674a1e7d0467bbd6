"""Damage to the bytes of a file."""

import numpy as np


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes or bits changed, cut out, doubled, or cut off."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        if not changed:
            break
        # Half of the time near the beginning, where formats describe themselves.
        most = min(len(changed), 400) if rng.random() < 0.5 else len(changed)
        place = int(rng.integers(most))
        match rng.integers(6):
            case 0:
                changed[place] ^= 1 << int(rng.integers(8))
            case 1:
                changed[place] = int(rng.integers(256))
            case 2:
                width = int(rng.choice([1, 2, 4]))
                odd = (b"\xff" * width, b"\0" * width, b"\x7f" + b"\xff" * (width - 1))
                changed[place : place + width] = odd[rng.integers(3)]
            case 3:
                del changed[place : place + int(rng.integers(1, 20))]
            case 4:
                piece = changed[place : place + int(rng.integers(1, 60))]
                changed[place:place] = piece * int(rng.integers(1, 4))
            case 5 if rng.random() < 0.3:
                del changed[place:]
    return bytes(changed)
