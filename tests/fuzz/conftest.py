"""What the three fuzzers share: how many cases, and what one may cost.

In CI each runs a few seconds with a fixed seed. More on request:

    JAXVISION_FUZZ=100000 python -m pytest tests/fuzz -k images
"""

import os
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

MOST_SECONDS = 10.0
MOST_BYTES = 2**30
"""What a process may grow by in a case."""


@pytest.fixture
def cases() -> Callable[[int], Iterator[np.random.Generator]]:
    """A generator of random numbers for each case; fails where one cost too much."""

    def run(usual: int) -> Iterator[np.random.Generator]:
        count = int(os.environ.get("JAXVISION_FUZZ", usual))
        for number in range(count):
            began, before = time.monotonic(), _peak()
            yield np.random.default_rng([13, number])
            took, grown = time.monotonic() - began, _peak() - before
            assert took < MOST_SECONDS, f"case {number}: {took:.1f} s"
            assert grown < MOST_BYTES, f"case {number}: {grown:,} bytes"

    return run


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


def _peak() -> int:
    """The most memory of this process and its children so far."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) * 1024
