"""How the tensors of a foreign file become a network's variables: rows of a table."""

import dataclasses
from collections.abc import Callable

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor's way from the file to the network."""

    source: str
    """Its name in the file."""
    target: str
    """Its path in the variables, such as `params/head/logits/kernel`."""
    transform: Transform
    """Turns its axes; raises ValueError where it has another number of them."""


@dataclasses.dataclass(frozen=True)
class Table:
    """All of a file: what is used, and what is left out on purpose."""

    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()
    """Endings of the names of tensors that have no place in the network."""
