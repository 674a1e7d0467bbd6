"""What the three fuzzers share: how many cases, and what one may cost.

In CI each runs a few seconds with a fixed seed. More on request:

    JAXVISION_FUZZ=100000 python -m pytest tests/fuzz -k images
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

# The writer of torch's files.
sys.path.append(str(Path(__file__).parents[1] / "pretrained"))

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


def _peak() -> int:
    """The most memory of this process and its children so far."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) * 1024
