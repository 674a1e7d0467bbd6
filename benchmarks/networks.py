"""Forward pass and training step of every network, beside PyTorch and plain lax."""

import dataclasses
import gc
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn

from benchmarks.harness import (
    Rates,
    Result,
    Timing,
    Work,
    milliseconds,
    time_in_turn,
    times,
)
from benchmarks.torch_twin import channels_first, torch_twin
from jaxvision import ops
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import MODELS, Network, create_model
from jaxvision.models.layers import WINDOWED, Dense
from jaxvision.models.summary import summarize_model
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.training.parallel import jit_step
from jaxvision.training.state import create_state
from jaxvision.training.step import make_train_step

LEARNING_RATE = 1e-3
"""Plain gradient descent: every framework computes the same."""

LARGEST_DIFFERENCE = 1e-4
"""Of logits, or of losses before a step, relative: float32, summed in another order
through deep networks."""

AFTER_A_STEP = 1e-2
"""The same of losses after a step. Batch norm over few images makes gradients noisy
in float32: here PyTorch's own two layouts differ by up to 4e-3 for `resnet50_v2`."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at the size of its experiment; the batch is reduced for CPUs."""

    batch_size: int
    image_shape: tuple[int, int, int]
    num_classes: int


CASES = {
    "simple_cnn": Case(16, (50, 50, 3), 11),
    "mlp": Case(32, (28, 28, 3), 40),
    "alexnet": Case(16, (224, 224, 3), 40),
    "vgg12": Case(4, (224, 224, 3), 5),
    "resnet29": Case(8, (224, 224, 3), 5),
    "mobilenet_prado": Case(16, (224, 224, 3), 5),
    "mobilenet_v2": Case(16, (224, 224, 3), 5),
    "resnet50_v2": Case(8, (224, 224, 3), 5),
    "efficientnet_lite0": Case(16, (224, 224, 3), 40),
    "vgg13_bn": Case(16, (96, 96, 1), 2),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network with weights and one batch, for all contestants the same."""

    model: Network
    variables: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray


Step = Callable[[], float]
"""Trains one step and returns the loss before it, when all is computed."""

_TOUCHING = (*WINDOWED, Dense, nn.Dense)
"""Layers that cannot be fused with what comes before them."""

OURS, TORCH = "jaxvision", "torch"
CHANNELS_LAST, COMPILED, LAX = "torch channels_last", "torch.compile", "plain lax"


def make_problem(
    name: str, case: Case, options: Mapping[str, Any] | None = None
) -> Problem:
    """The network without dropout, weights of the usual size, random images.

    options: further arguments of `create_model`.
    """
    model = create_model(name, case.num_classes, **(options or {}))
    backbone = model.backbone
    rates: dict[str, Any] = {
        field.name: 0.0
        for field in dataclasses.fields(backbone)
        if "drop" in field.name and field.name.endswith("_rate")
    }
    model = model.clone(backbone=backbone.clone(**rates))
    rng = np.random.default_rng(0)
    shape = (case.batch_size, *case.image_shape)
    images = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(0, case.num_classes, case.batch_size).astype(np.int32)
    return Problem(model, draw_variables(model, case.image_shape, rng), images, labels)


def draw_variables(
    model: Network, image_shape: tuple[int, int, int], rng: np.random.Generator
) -> dict[str, Any]:
    """Like fresh ones of any network, but without the wait for a compiler."""

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            deviation = (2 / math.prod(leaf.shape[:-1])) ** 0.5
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(deviation)
        ones = path[-1].key in ("scale", "var")
        return np.full(leaf.shape, 1.0 if ones else 0.0, np.float32)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), image
    )
    return jax.tree_util.tree_map_with_path(draw, shapes)


def our_forward(
    problem: Problem, *, plain_lax: bool = False
) -> Callable[[], np.ndarray]:
    """Logits in evaluation; compiled before this returns."""
    model = problem.model
    compiled = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    variables, x = jax.device_put((problem.variables, problem.images))
    _compile(lambda: compiled(variables, x), plain_lax)
    return lambda: compiled(variables, x).block_until_ready()


def our_step(problem: Problem, *, plain_lax: bool = False) -> Step:
    """The step that experiments train with, guard and metrics included."""
    tx = make_optimizer(
        OptimConfig("sgd", LEARNING_RATE, momentum=0.0), steps_per_epoch=1, epochs=1
    )
    step = jit_step(
        make_train_step(problem.model, tx, make_cross_entropy(), normalize=lambda x: x)
    )
    batch = {
        "image": problem.images,
        "label": problem.labels,
        "mask": np.ones(len(problem.labels), np.float32),
    }
    batch = jax.device_put(batch)
    state = create_state(problem.variables, tx, seed=0)
    # A copy, for the step reuses the memory of what it is given.
    placed = jax.tree.map(lambda x: jax.device_put(np.array(x)), state)
    _compile(lambda: step(jax.tree.map(jnp.copy, placed), batch), plain_lax)

    def call() -> float:
        nonlocal placed
        placed, metrics = jax.block_until_ready(step(placed, batch))
        return float(metrics["loss"]) / len(problem.labels)

    return call


def _compile(call: Callable[[], object], plain_lax: bool) -> None:
    if plain_lax:
        with ops.lax_only():
            jax.block_until_ready(call())
    else:
        jax.block_until_ready(call())


def torch_forward(
    problem: Problem, *, channels_last: bool = False, compiled: bool = False
) -> Callable[[], np.ndarray]:
    """Logits in evaluation and inference mode."""
    model, x = _in_torch(problem, channels_last)
    model.eval()
    run = torch.compile(model) if compiled else model

    def call() -> np.ndarray:
        with torch.inference_mode():
            return run(x).numpy()

    return call


def torch_step(
    problem: Problem, *, channels_last: bool = False, compiled: bool = False
) -> Step:
    """The usual loop's body."""
    model, x = _in_torch(problem, channels_last)
    labels = torch.from_numpy(problem.labels).long()
    model.train()
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)

    def call() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def _in_torch(
    problem: Problem, channels_last: bool
) -> tuple[torch.nn.Module, torch.Tensor]:
    shape = problem.images.shape[1:]
    model = torch_twin(problem.model, problem.variables, shape)
    x = channels_first(problem.images)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        x = x.contiguous(memory_format=torch.channels_last)
    return model, x


def count_work(problem: Problem) -> tuple[Work, Work]:
    """What a forward pass and a training step on the batch cannot do without.

    Each layer with weights or windows reads its input and writes its result once, and
    parameters are read once; what lies between is taken as fused. In training every
    product is followed by two more, for the gradients of weights and input (but the
    image's), and every array by its gradient, which is written and read; parameters
    are read twice, their gradient is written, and they are updated.
    """
    touched = 0

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        nonlocal touched
        result = call(*args, **kwargs)
        module = context.module
        leaf = isinstance(module, _TOUCHING) and context.method_name == "__call__"
        if leaf:
            touched += 4 * (args[0].size + result.size)
        return result

    shape = problem.images.shape
    rows = summarize_model(problem.model, shape[1:])
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda x: problem.model.apply(problem.variables, x, train=False),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )
    multiply_adds = [row.multiply_adds for row in rows if row.multiply_adds]
    forward = 2 * shape[0] * sum(multiply_adds)
    backward = 2 * forward - 2 * shape[0] * multiply_adds[0]
    parameters = 4 * sum(row.parameters for row in rows)
    return (
        Work(forward, touched + parameters),
        Work(forward + backward, 3 * touched + 5 * parameters),
    )


def run(
    rates: Rates,
    *,
    quick: bool,
    names: tuple[str, ...] = (),
    progress: Callable[[str], None] = print,
) -> Result:
    """All networks that there are (or `names`), forward and training step.

    Args:
      rates: of this machine.
      quick: half as many of large images, fewer rounds, no `torch.compile`, and
        plain lax in training steps alone.
      progress: told what is being measured.
    """
    rows, figures, notes = [], [], []
    for name in names or CASES:
        if name not in MODELS:
            notes.append(f"`{name}`: no such network yet.")
            continue
        case = CASES[name]
        if quick and case.image_shape[0] > 64:
            case = dataclasses.replace(case, batch_size=case.batch_size // 2)
        problem = make_problem(name, case)
        for what, work in zip(
            ("forward", "training step"), count_work(problem), strict=True
        ):
            progress(f"{name}, {what}")
            try:
                measured = measure(problem, what, quick=quick)
            except AssertionError as error:
                notes.append(f"`{name}`, {what}: not timed, for {error}.")
                continue
            notes += [f"`{name}`, {what}, {why}" for why in measured.skipped]
            bound, limit = work.bound(rates)
            rows.append(_row(name, what, problem, measured, bound, limit))
            figures.append(
                {
                    "network": name,
                    "what": what,
                    "shape": list(problem.images.shape),
                    "flops": work.flops,
                    "bytes": work.bytes,
                    "bound_seconds": bound,
                    "bound_by": limit,
                    "seconds": _plain(measured.timings),
                    "seconds_apart": _plain(measured.apart),
                }
            )
            gc.collect()
            jax.clear_caches()
    return Result(
        "Networks",
        "Milliseconds a call: median (quartiles). float32. jaxvision's step is that of "
        "the experiments, with metrics and the guard against infinite losses; torch's "
        "is forward, backward and SGD. Loss and logits were compared first. The bound "
        "is what the machine's matrix products or copies allow at best, with every "
        "multiplication of the definition: Winograd's convolutions do fewer.\n\n"
        + "\n".join(f"- {note}" for note in notes),
        _HEADER,
        rows,
        figures,
    )


_HEADER = (
    "network",
    "what",
    "input",
    OURS,
    TORCH,
    "ours / torch",
    CHANNELS_LAST,
    "ours / that",
    COMPILED,
    "ours / that",
    LAX,
    "that / ours",
    "bound",
    "ours / bound",
)


def _row(
    name: str,
    what: str,
    problem: Problem,
    measured: "Measured",
    bound: float,
    limit: str,
) -> list[str]:
    timings = measured.timings
    ours, plain_lax = timings[OURS], measured.apart.get(LAX)
    beside = []
    for other in (TORCH, CHANNELS_LAST, COMPILED):
        timing = timings.get(other)
        ratio = None if timing is None else ours.ratio_to(timing)
        beside += [milliseconds(timing), times(ratio)]
    return [
        name,
        what,
        "×".join(map(str, problem.images.shape)),
        milliseconds(ours),
        *beside,
        milliseconds(plain_lax),
        times(None if plain_lax is None else plain_lax.ratio_to(measured.apart[OURS])),
        f"{1e3 * bound:.3g} ({limit})",
        times(ours.median / bound),
    ]


def _plain(timings: dict[str, Timing]) -> dict[str, list[float]]:
    return {name: list(timing.seconds) for name, timing in timings.items()}


@dataclasses.dataclass(frozen=True)
class Measured:
    """Timings by contestant, and why one is missing.

    apart: plain lax beside ours alone, or empty: it can take ten times as long as all
        the others.
    """

    timings: dict[str, Timing]
    apart: dict[str, Timing]
    skipped: list[str]


def measure(problem: Problem, what: str, *, quick: bool) -> Measured:
    """Times all contestants, once they are seen to compute the same.

    Raises:
      AssertionError: they do not.
    """
    forward = what == "forward"
    ours, theirs = (our_forward, torch_forward) if forward else (our_step, torch_step)
    contestants: dict[str, Callable[[], Any]] = {
        OURS: ours(problem),
        TORCH: theirs(problem),
        CHANNELS_LAST: theirs(problem, channels_last=True),
    }
    if not (quick and forward):
        contestants[LAX] = ours(problem, plain_lax=True)
    # Twice: the second loss is that after a step down the gradient.
    first = {name: [call(), call()] for name, call in contestants.items()}
    skipped = []
    if not quick:
        compiled = theirs(problem, compiled=True)
        try:
            first[COMPILED] = [compiled(), compiled()]
            contestants[COMPILED] = compiled
        except Exception as error:  # whatever a compiler may raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            skipped.append(f"torch.compile: {lines[0]}")
    for name, values in first.items():
        check_same(name, values, first[TORCH])
    plain_lax = contestants.pop(LAX, None)
    budget = 3.0 if quick else 20.0
    timings = time_in_turn(contestants, budget_seconds=budget)
    if plain_lax is None:
        return Measured(timings, {}, skipped)
    pair = {OURS: contestants[OURS], LAX: plain_lax}
    least = 1 if quick else 3
    apart = time_in_turn(pair, budget_seconds=budget / 2, least_rounds=least)
    return Measured(timings, apart, skipped)


def check_same(name: str, ours: list[Any], reference: list[Any]) -> None:
    """Raises AssertionError where losses or logits differ by more than rounding."""
    for number, (mine, theirs) in enumerate(zip(ours, reference, strict=True)):
        stepped = number > 0 and np.ndim(theirs) == 0
        difference = np.abs(np.asarray(mine) - np.asarray(theirs)).max()
        relative = float(difference / np.abs(theirs).max())
        if not relative <= (AFTER_A_STEP if stepped else LARGEST_DIFFERENCE):
            raise AssertionError(f"{name} differs from {TORCH} by {relative:.1e}")
