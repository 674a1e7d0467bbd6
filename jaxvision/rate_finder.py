"""Which learning rate? A range test: each step of a short training at a higher one.

    found = find_learning_rate(data, recipe)
    recipe = recipe.replace(optim=replace(recipe.optim, learning_rate=found.suggestion))

(https://arxiv.org/abs/1506.01186, section 3.3). The loss falls slowly at first, then
steeply, and explodes; where it falls most steeply the rate suits.
"""

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

from jaxvision import config
from jaxvision.config import Bounds
from jaxvision.data.dataset import Dataset, DecodedDataset
from jaxvision.errors import InputError
from jaxvision.recipe import (
    Start,
    losses_at_constant_rates,
    losses_at_rates,
    make_start,
)
from jaxvision.report.progress import Progress
from jaxvision.settings import RateConfig, Recipe

EXPLODED = 4.0
"""The test ends where the smoothed loss is this many times the lowest one."""

SMOOTHING = 0.05
"""Standard deviation of the Gaussian that smooths the loss, as a part of all steps."""

LEAST_FALL = 0.02
"""Part of the first loss by which it has to fall, or nothing is suggested."""

IDLE = "in a learning-rate range test"
"""Why the settings of a recipe play no part that `idle_in_range_test` lists."""


@dataclasses.dataclass(frozen=True)
class FoundRate:
    """A learning-rate range test.

    Attributes:
      rates: `[n]` float64, rising; those after the loss had exploded are left out.
      losses: `[n]` float64, mean loss of each step's batch, in nats; of trainings in
        parallel that of the last batch, the same for all.
      smoothed: `[n]` float64, the same, smoothed without delay.
      suggestion: the rate where the smoothed loss falls most steeply over the logarithm
        of the rate, before its lowest point; None where it falls nowhere.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: float | None

    @classmethod
    def of(cls, rates: np.ndarray, losses: np.ndarray) -> "FoundRate":
        """The suggestion for a curve.

        Args:
          rates: `[n]`, all above zero, each the same multiple of the one before.
          losses: `[n]`, finite, n at least 1.
        """
        rates, losses = np.asarray(rates, float), np.asarray(losses, float)
        smoothed = smooth(losses)
        lowest = int(np.argmin(smoothed))
        suggestion = None
        if smoothed[0] - smoothed[lowest] > LEAST_FALL * abs(smoothed[0]):
            slopes = np.gradient(smoothed)[: lowest + 1]
            suggestion = float(f"{rates[np.argmin(slopes)]:.2g}")
        return cls(rates, losses, smoothed, suggestion)


def smooth(losses: np.ndarray) -> np.ndarray:
    """`[n]` losses of a test, smoothed by a Gaussian; what explodes at the end is cut
    off, or it would reach far back."""
    cut = np.minimum(losses, EXPLODED * max(losses[0], np.median(losses)))
    width = max(SMOOTHING * len(losses), 1.0)
    return ndimage.gaussian_filter1d(cut, width, mode="nearest")


def find_learning_rate(
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    lowest: float = RateConfig.lowest,
    highest: float = RateConfig.highest,
    steps: int = RateConfig.steps,
    parallel: int | None = RateConfig.parallel,
    progress: bool = True,
) -> FoundRate:
    """Suggests a learning rate for a recipe, by one short training of it.

    Where the recipe trains the head first (`head_epochs`), so does this.

    Args:
      data: labeled images; divided for the seed, unless they came with splits.
      recipe: how to train; its learning rate, schedule and what selects an epoch play
        no part, nor do its epochs but for whether the head is trained first.
      seed: as of `train`.
      lowest: learning rate of the first step.
      highest: that of the last.
      steps: how many, at least 20.
      parallel: this many trainings at once, at least 20, each at one rate for all
        steps, in place of one whose rate rises. Takes the memory and, on a CPU, the
        time of as many trainings.
      progress: whether to show bars on stderr.

    Raises:
      InputError: bad settings, images or weights; a recipe that has no learning rate;
        a loss that is never finite.
    """
    start = make_start(recipe)
    options = RateConfig(lowest, highest, steps, parallel)
    check(options, recipe)
    config.check_number("seed", seed, Bounds(0, 2**32 - 1))
    with Progress("reading images", unit="images", enabled=progress) as report:
        dataset = data.with_seed(seed).decode(start.preprocessing, progress=report)
    return range_test(start, dataset, options, seed=seed, progress=progress)


def check(options: RateConfig, recipe: Recipe) -> None:
    """Raises `InputError` for a test that means nothing."""
    config.check(options)
    if options.lowest >= options.highest:
        raise InputError(
            f"must be above `lowest` {options.lowest:g}",
            setting="highest",
            value=options.highest,
        )
    if recipe.solved:
        raise InputError(
            "has no learning rate; take gradient",
            setting="solver",
            value=recipe.solver,
        )


def range_test(
    start: Start,
    dataset: DecodedDataset,
    options: RateConfig,
    *,
    seed: int,
    progress: bool = True,
) -> FoundRate:
    """The test itself; see `find_learning_rate`.

    Args:
      start: of the recipe.
      dataset: in the split of the seed and in the start's preprocessing.
      options: which rates.
    """
    if options.parallel is not None:
        return _parallel_test(start, dataset, options, options.parallel, seed, progress)
    rates = np.geomspace(options.lowest, options.highest, options.steps)
    losses: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="jaxvision-") as folder,
        Progress("learning rates", unit="steps", enabled=progress) as report,
    ):
        found = losses_at_rates(
            start,
            dataset,
            start.load_weights(),
            rates.tolist(),
            seed=seed,
            folder=Path(folder),
            progress=progress,
        )
        for loss in found:
            report(len(losses) + 1, options.steps)
            if not math.isfinite(loss):
                break
            losses.append(loss)
            smoothed = smooth(np.array(losses))
            if smoothed[-1] > EXPLODED * smoothed.min():
                break
        found.close()
    return _found(options, rates, np.array(losses))


def _parallel_test(
    start: Start,
    dataset: DecodedDataset,
    options: RateConfig,
    count: int,
    seed: int,
    progress: bool,
) -> FoundRate:
    rates = np.geomspace(options.lowest, options.highest, count)
    with tempfile.TemporaryDirectory(prefix="jaxvision-") as folder:
        found = losses_at_constant_rates(
            start,
            dataset,
            start.load_weights(),
            rates.tolist(),
            steps=options.steps,
            seed=seed,
            folder=Path(folder),
            progress=progress,
        )
    finite = np.logical_and.accumulate(np.isfinite(found.sum(0)))
    return _found(options, rates, found[-1, finite])


def _found(options: RateConfig, rates: np.ndarray, losses: np.ndarray) -> FoundRate:
    """What the losses of the first rates suggest."""
    if not len(losses):
        raise InputError(
            "the loss is not finite even at this rate",
            setting="lowest",
            value=options.lowest,
        )
    return FoundRate.of(rates[: len(losses)], losses)


def idle_in_range_test(recipe: Recipe) -> dict[str, str]:
    """Settings of a recipe that play no part in a range test, and why."""
    names = ["optim.learning_rate", "patience", "select", "ema_decay"]
    names += ["progressive_sizes", "progressive_share"]
    names += [f"schedule.{f.name}" for f in dataclasses.fields(recipe.schedule)]
    if recipe.method == "features":
        names.append("views")
    if recipe.method != "full" or recipe.head_epochs is not None:
        names.append("epochs")  # else they decide whether the head is trained first
    return dict.fromkeys(names, IDLE)
