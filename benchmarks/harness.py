"""Contestants timed in turn in one process, and how far they are from a bound."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

IDLE_SECONDS = 0.02
"""Rest before each measurement. torch's threads spin on for milliseconds after their
work, and slow down whoever comes next. Making them wait passively instead slows torch
itself down by 1.1 to 2.2 times."""

WARMING_SECONDS = 0.05
"""Calls that do not count follow the rest for that long, at least one: code and memory
are cold by then and threads asleep. XLA's take some thirty calls of a millisecond to
get going again, each up to twice as slow, which a training does once and not all the
time."""

SHORTEST_SECONDS = 0.05
"""Quicker calls are measured several at a time."""


@dataclass(frozen=True)
class Timing:
    """Seconds that a call took, one for each round, in their order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def shortest(self) -> float:
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between these lie half of the measurements."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def ratio_to(self, other: "Timing") -> float:
        """How many times as long as the other: the median over the rounds.

        Both of a round were measured within the same moments, so that what disturbs
        the machine disturbs both.
        """
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def time_in_turn(
    contestants: Mapping[str, Callable[[], object]],
    *,
    budget_seconds: float,
    least_rounds: int = 3,
    most_rounds: int = 30,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Times functions that return when their work is done.

    In each round every contestant has its turn, and another one begins.

    Args:
      contestants: by name; called twice before anything is measured.
      budget_seconds: about what all rounds may take together.
      least_rounds: whatever the budget.
      most_rounds: however quick they are.
      clock: gives seconds.
      sleep: waits for seconds.
    """

    def seconds_of(call: Callable[[], object], calls: int) -> float:
        began = clock()
        for _ in range(calls):
            call()
        return (clock() - began) / calls

    warming, calls, round_seconds = {}, {}, 0.0
    for name, call in contestants.items():
        call()
        seconds = max(seconds_of(call, 1), 1e-6)
        warming[name] = math.ceil(WARMING_SECONDS / seconds)
        calls[name] = math.ceil(SHORTEST_SECONDS / seconds)
        round_seconds += IDLE_SECONDS + (warming[name] + calls[name]) * seconds
    rounds = int(budget_seconds / round_seconds)
    rounds = min(max(rounds, least_rounds), most_rounds)
    names = list(contestants)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            sleep(IDLE_SECONDS)
            seconds_of(contestants[name], warming[name])
            found[name].append(seconds_of(contestants[name], calls[name]))
    return {name: Timing(tuple(seconds)) for name, seconds in found.items()}


@dataclass(frozen=True)
class Rates:
    """What the machine can do at best, measured."""

    flops: float
    """Floating-point operations a second of a large float32 matrix product."""
    bytes: float
    """Bytes a second of copying a large array, read and written."""


@dataclass(frozen=True)
class Work:
    """What a computation cannot do without.

    flops: floating-point operations, two for each multiply-add.
    bytes: to and from memory, if nothing stays in the caches between layers.
    """

    flops: float
    bytes: float

    def bound(self, rates: Rates) -> tuple[float, str]:
        """Seconds that the machine needs at the least, and for what."""
        arithmetic, memory = self.flops / rates.flops, self.bytes / rates.bytes
        if arithmetic >= memory:
            return arithmetic, "arithmetic"
        return memory, "memory"


def measure_rates(*, quick: bool = False) -> Rates:
    """The best that XLA, NumPy and torch ever reach on this machine's CPU."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    size = 1024 if quick else 2048
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    on_device, tensor = jnp.asarray(a), torch.from_numpy(a)
    product = jax.jit(jnp.dot)
    budget = 1.0 if quick else 4.0
    products = time_in_turn(
        {
            "xla": lambda: product(on_device, on_device).block_until_ready(),
            "numpy": lambda: a @ a,
            "torch": lambda: tensor @ tensor,
        },
        budget_seconds=budget,
    )
    source = np.ones(2**24 if quick else 2**26, np.float32)  # far beyond the caches
    target = np.empty_like(source)
    from_tensor, to_tensor = torch.from_numpy(source), torch.from_numpy(target)
    copies = time_in_turn(
        {
            "numpy": lambda: np.copyto(target, source),
            "torch": lambda: to_tensor.copy_(from_tensor),
        },
        budget_seconds=budget,
    )
    return Rates(
        flops=2 * size**3 / min(timing.shortest for timing in products.values()),
        bytes=2 * source.nbytes / min(timing.shortest for timing in copies.values()),
    )


@dataclass(frozen=True)
class Result:
    """One table of the page, and the same for programs.

    figures: one entry for each row, plain values, with every single measurement.
    """

    heading: str
    notes: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    figures: Sequence[Mapping[str, object]]


def milliseconds(timing: Timing | None) -> str:
    """`12.3 (12.1–12.9)`: median and quartiles; `–` where nothing was measured."""
    if timing is None:
        return "–"
    low, high = timing.quartiles
    median, low, high = (_three_digits(1e3 * s) for s in (timing.median, low, high))
    return f"{median} ({low}–{high})"


def times(ratio: float | None) -> str:
    """`0.97×`; `–` for None."""
    return "–" if ratio is None else f"{_three_digits(ratio)}×"


def _three_digits(value: float) -> str:
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 2
    return f"{value:.{min(max(decimals, 0), 4)}f}"
