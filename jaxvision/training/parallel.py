"""How a step runs: jit, scan, vmap, pmap. The only place where one is transformed."""

import ctypes
import dataclasses
import functools
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import InputError
from jaxvision.kept_traces import KeptTrace
from jaxvision.models import Network
from jaxvision.training.state import TrainState
from jaxvision.training.step import EvalStep, TrainStep
from jaxvision.typing import Batch, Metrics, PyTree

AXIS = "batch"
"""Name of the axis over which `pmap_step` spreads a batch."""

SIGNAL = "signal"
"""The number of the signal that asked a process to stop, or 0, in its batches."""

Function = TypeVar("Function", bound=Callable[..., Any])

Tree = TypeVar("Tree")

Device = Any
"""A `jax.Device`, which type checkers do not know as a type."""


def jit_step(step: TrainStep, *, about: object = None) -> TrainStep:
    """One step as one program; the old state's memory is reused.

    Args:
      step: the training step.
      about: all that it closes over, by which its trace is kept, see `KeptTrace`; None:
        it is not.
    """
    if about is None:
        return jax.jit(step, donate_argnums=0)
    return _KeptStep(step, about)


class _KeptStep:
    """A training step whose trace is kept: as one of the arrays of its state, since
    what is kept knows no classes."""

    def __init__(self, step: TrainStep, about: object) -> None:
        self._step, self._about = step, about
        self._traces: dict[Any, KeptTrace] = {}

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        arrays, structure = jax.tree.flatten(state)
        arrays, metrics = self._trace(structure)(arrays, batch)
        return jax.tree.unflatten(structure, arrays), metrics

    def lower(self, state: TrainState, batch: Batch) -> Any:
        """As of a `jax.jit`ted function."""
        arrays, structure = jax.tree.flatten(state)
        return self._trace(structure).lower(arrays, batch)

    def _trace(self, structure: Any) -> KeptTrace:
        if structure not in self._traces:

            def train_step(
                arrays: list[jax.Array], batch: Batch
            ) -> tuple[list[jax.Array], Metrics]:
                state = jax.tree.unflatten(structure, arrays)
                state, metrics = self._step(state, batch)
                return jax.tree.leaves(state), metrics

            about = (str(structure), self._about)
            self._traces[structure] = KeptTrace(train_step, about, donate_argnums=0)
        return self._traces[structure]


def scan_steps(
    step: TrainStep,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """N steps as one program: batches and metrics get a leading axis `[N, ...]`."""
    return jax.jit(
        lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0
    )


def vmap_step(step: TrainStep) -> TrainStep:
    """M models at once on the same batch: states and metrics lead with `[M, ...]`."""
    return jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)


SweepStep = Callable[[PyTree, PyTree, PyTree, PyTree], PyTree]
"""(carry, what all models share, what is the model's own, one row) -> carry."""


class Epoch(Protocol):
    """As `SweepStep`, on all rows of an epoch: they lead with `[S, ...]`."""

    def __call__(
        self, carry: PyTree, shared: PyTree, own: PyTree, rows: PyTree, /
    ) -> PyTree: ...

    def lower(
        self, carry: PyTree, shared: PyTree, own: PyTree, rows: PyTree, /
    ) -> Any: ...


def compile_once(function: Function) -> Function:
    """A `jax.jit`ted function that threads may share: the first call compiles it.

    Called by several threads at once, jit compiles once in each of them. All calls
    must have arguments of the same shapes.
    """
    lock, compiled = threading.Lock(), threading.Event()

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not compiled.is_set():
            with lock:
                result = function(*args)
                compiled.set()
            return result
        return function(*args)

    return cast(Function, call)


class Program(Generic[Function]):
    """A `jax.jit`ted function that may be compiled in a thread before it is called."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._ahead: Future[None] | None = None
        self._called = False

    @property
    def begun(self) -> bool:
        """Whether it has been called, or is being compiled ahead."""
        return self._called or self._ahead is not None

    def __call__(self, *args: Any) -> Any:
        """Calls the function; waits where it is being compiled.

        Raises:
          Exception: what compiling it ahead has raised.
        """
        if self._ahead is not None and not self._called:
            self._ahead.result()
            return_freed_memory()
        self._called = True
        return self._function(*args)


def compile_ahead(
    programs: Sequence[Program], shapes: Callable[[], Sequence[Sequence[PyTree]]]
) -> None:
    """Compiles programs one after the other in a thread, while this one goes on.

    One that has begun already is left out. A process ends when the program that is
    being compiled is done: XLA cannot be stopped.

    Args:
      programs: what to compile.
      shapes: gives the arguments of each, as `jax.ShapeDtypeStruct`s with a sharding;
        called in the thread, and only if there is something to compile.
    """
    waiting = {
        number: Future() for number, program in enumerate(programs) if not program.begun
    }
    for number, done in waiting.items():
        programs[number]._ahead = done

    def compile_all() -> None:
        for number, done in waiting.items():
            try:
                if threading.main_thread().is_alive():  # else the process ends
                    # The call finds what is traced, lowered and compiled here.
                    programs[number]._function.lower(*shapes()[number]).compile()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    if waiting:
        threading.Thread(target=compile_all, name="compile ahead").start()


def return_freed_memory() -> None:
    """Gives the memory that was freed back to the system, where the C library can.

    glibc keeps it for later: .8 GB after XLA has compiled a training step of
    EfficientNet-Lite0, which lie unused beside all that the step itself takes.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # not in every C library
            trim(0)


_PROGRAMS = 8
"""Programs of a kind that are kept."""


def keep_programs(make: Function) -> Function:
    """A function that makes a compiled step; for equal arguments, that of before.

    So what is compiled for one training or evaluation serves the next ones.
    """
    return cast(Function, functools.lru_cache(maxsize=_PROGRAMS)(make))


def sweep_epoch(step: SweepStep) -> Epoch:
    """M models at once, the epoch as one program.

    Carry, own and rows lead with `[M, ...]`, rows with `[M, S, ...]`. `own["active"]`
    `[M]` is False for models that stand still: their carry comes back as it was.
    """

    def one_model(carry: PyTree, shared: PyTree, own: PyTree, rows: PyTree) -> PyTree:
        new, _ = jax.lax.scan(
            lambda carry, row: (step(carry, shared, own, row), None), carry, rows
        )
        return jax.tree.map(lambda n, o: jnp.where(own["active"], n, o), new, carry)

    models = jax.vmap(one_model, in_axes=(0, None, 0, 0))
    return cast(Epoch, jax.jit(models, donate_argnums=0))


def pmap_step(step: TrainStep, devices: Sequence[Device]) -> TrainStep:
    """One batch spread over D devices: states and batches lead with `[D, ...]`.

    The step must have been made with `axis_name=AXIS`. Metrics come back once. Where
    the devices are those of several processes, each process gives and gets what
    belongs to its own.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        devices=devices,
        out_axes=(0, None),
        donate_argnums=0,
    )


def synchronize(model: Network, axis_name: str | None) -> Network:
    """The same network with its batch norm averaging over `axis_name` (None: not)."""
    return model.clone(backbone=model.backbone.clone(bn_axis_name=axis_name))


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs steps on one device with jit, or on several with pmap, alike.

    Placed states and batches are what its own compiled steps take; `unreplicate` gives
    an ordinary state back. With the devices of several processes, each process places
    its own part of a batch and holds the whole state.
    """

    devices: tuple[Device, ...]
    """Those of one process beside each other, so that the parts of a batch are too."""

    @classmethod
    def all_devices(cls) -> "Runner":
        """On all devices of this process, and of those that it trains together with."""
        processes = range(jax.process_count())
        return cls(tuple(d for i in processes for d in jax.local_devices(i)))

    @property
    def local_devices(self) -> tuple[Device, ...]:
        """Those of this process."""
        here = jax.process_index()
        return tuple(d for d in self.devices if d.process_index == here)

    @property
    def shard(self) -> dict[str, int]:
        """Which part of a batch this process gives, as `Dataset.batches` takes it."""
        processes = sorted({device.process_index for device in self.devices})
        index = processes.index(jax.process_index())
        return {"process_index": index, "process_count": len(processes)}

    @property
    def axis_name(self) -> str | None:
        """The axis that steps and batch norm average over; None on one device."""
        return AXIS if len(self.devices) > 1 else None

    def check_batch_size(self, batch_size: int) -> None:
        """Raises InputError unless the batch can be spread evenly."""
        if batch_size % len(self.devices):
            raise InputError(
                f"cannot be spread evenly over {len(self.devices)} devices; take a "
                f"multiple of {len(self.devices)}",
                setting="batch_size",
                value=batch_size,
            )

    def replicate(self, state: Tree) -> Tree:
        """The state on the devices; the argument stays valid."""
        if self.axis_name is None:
            # A copy: the compiled step reuses the memory of what it is given.
            return jax.tree.map(
                lambda x: jax.device_put(np.array(x), self.devices[0]), state
            )
        count = len(self.local_devices)
        return jax.device_put(
            jax.tree.map(
                lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), state
            ),
            self._sharding(),
        )

    def unreplicate(self, state: PyTree) -> PyTree:
        """The tree of a placed state as NumPy arrays of their own memory."""
        first = self.axis_name is not None
        # Only one device's shard crosses to the host.
        return jax.tree.map(
            lambda x: np.array(x.addressable_shards[0].data[0] if first else x), state
        )

    def placed_shapes(self, tree: PyTree) -> PyTree:
        """The shapes of arrays on the one device, by those of arrays anywhere."""
        sharding = jax.sharding.SingleDeviceSharding(self.devices[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    def place_batch(self, batch: Batch, *, signal_number: int | None = None) -> Batch:
        """This process's part of a batch on its devices, on its way while others
        compute.

        Args:
          batch: NumPy arrays `[B / processes, ...]`.
          signal_number: for a training step, see `compile_train`.
        """
        if self.axis_name is None:
            return jax.device_put(batch, self.devices[0])
        if signal_number is not None and self.shard["process_count"] > 1:
            signals = np.full(len(batch["mask"]), signal_number, np.float32)
            batch = {**batch, SIGNAL: signals}
        split = {
            name: x.reshape(len(self.local_devices), -1, *x.shape[1:])
            for name, x in batch.items()
        }
        return jax.device_put(split, self._sharding())

    def compile_train(self, step: TrainStep, *, about: object = None) -> TrainStep:
        """The training step on placed states and batches.

        On several processes the metrics hold the highest `SIGNAL` that any of them
        placed its part of the batch with: so all know at the same step that one of
        them was asked to stop, without another message.

        Args:
          step: the training step.
          about: for its trace on one device, see `jit_step`.
        """
        if self.axis_name is None:
            return jit_step(step, about=about)
        if self.shard["process_count"] == 1:
            return pmap_step(step, self.devices)

        def signalling(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            batch = dict(batch)
            signal = jax.lax.pmax(jnp.max(batch.pop(SIGNAL)), AXIS)
            state, metrics = step(state, batch)
            return state, {**metrics, SIGNAL: signal}

        return pmap_step(signalling, self.devices)

    def compile_eval(self, step: EvalStep, *, about: object = None) -> EvalStep:
        """The evaluation step on placed variables and batches; logits are `[B, K]`,
        those of the whole batch in every process.

        Args:
          about: all that the step closes over, by which its trace is kept on one
            device, see `KeptTrace`; None: it is not.
        """
        if self.axis_name is None:
            return jax.jit(step) if about is None else KeptTrace(step, about)

        def gathered(
            variables: dict[str, PyTree], batch: Batch
        ) -> tuple[Metrics, jax.Array]:
            metrics, logits = step(variables, batch)
            return metrics, jax.lax.all_gather(logits, AXIS, tiled=True)

        return jax.pmap(
            gathered, axis_name=AXIS, devices=self.devices, out_axes=(None, None)
        )

    def _sharding(self) -> jax.sharding.Sharding:
        mesh = jax.sharding.Mesh(np.asarray(self.local_devices), (AXIS,))
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
