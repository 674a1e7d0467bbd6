"""`fit` and `evaluate`: the Python loops around the pure steps."""

import contextlib
import dataclasses
import functools
import hashlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import jax
import numpy as np

from jaxvision.errors import InputError
from jaxvision.metrics import Loss, summarize
from jaxvision.models import Network
from jaxvision.settings import Select
from jaxvision.training.checkpoint import CheckpointFolder, flatten, unflatten_like
from jaxvision.training.distributed import barrier, check_same, is_main_process
from jaxvision.training.history import WORST, end_reason, val_score
from jaxvision.training.mixing import Mix
from jaxvision.training.parallel import (
    SIGNAL,
    Program,
    Runner,
    compile_ahead,
    keep_programs,
    synchronize,
)
from jaxvision.training.state import TrainState
from jaxvision.training.step import (
    Augment,
    EvalStep,
    Normalize,
    TrainStep,
    make_eval_step,
    make_train_step,
)
from jaxvision.typing import Batch, Metrics, PyTree, Row

if TYPE_CHECKING:  # predicting need not wait for it
    import optax

NOT_FINITE = "the loss is not finite"

OnNonfinite = Literal["raise", "stop"]
"""What becomes of a training whose loss is not finite."""

_LAG = 2
"""Fetch metrics this many steps late, so the host never blocks the device."""


class Batches(Protocol):
    """What `fit` needs of a data set; `jaxvision.data` has the implementations."""

    num_examples: int
    steps_per_epoch: int
    batch_size: int
    """Of the whole batch, where several processes train together."""

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Batches from number `start` of the run on; batch i is the same always.

        Of several processes each one's batches are its own part of them
        (`Runner.shard`). What fills an evaluation up stands at its end.
        """
        ...


class Callback(Protocol):
    """What `fit` tells while it trains: to a progress bar, a log, a run folder.

    The calls come in the order of the methods, in the thread that called `fit`; of
    several processes, in process 0 alone. An exception ends the training, once the
    checkpoint that is being written is on the disk: so a callback can stop it.
    """

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        """Training begins.

        Args:
          total_epochs: epochs at most.
          steps_per_epoch: optimizer steps in each.
          start_step: steps done before, where a training is continued; else 0.
          num_examples: training images.
        """
        ...

    def on_step(self, step: int, images: int, metrics: Row | None) -> None:
        """A step was sent to the device.

        Args:
          step: its number in the training, from 1.
          images: in its batch.
          metrics: `loss` and `accuracy` of an earlier step, the latest that is known
            without waiting for the device; None: of none.
        """
        ...

    def on_epoch_end(self, row: Row) -> None:
        """An epoch is done, and measured on the validation images.

        Args:
          row: `epoch` (from 1), `step`, `train_loss`, `train_accuracy`, `seconds`,
            `images_per_second`; with validation images `val_loss` and `val_accuracy`;
            `learning_rate` of the last step, where `fit` was told it.
        """
        ...

    def on_finish(self, reason: str) -> None:
        """Training has ended.

        Args:
          reason: why, in words; also that it was interrupted or has diverged.
        """
        ...


class Callbacks:
    """Several callbacks as one."""

    def __init__(self, *callbacks: Callback) -> None:
        self._callbacks = callbacks

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        for callback in self._callbacks:
            callback.on_start(total_epochs, steps_per_epoch, start_step, num_examples)

    def on_step(self, step: int, images: int, metrics: Row | None) -> None:
        for callback in self._callbacks:
            callback.on_step(step, images, metrics)

    def on_epoch_end(self, row: Row) -> None:
        for callback in self._callbacks:
            callback.on_epoch_end(row)

    def on_finish(self, reason: str) -> None:
        for callback in self._callbacks:
            callback.on_finish(reason)


class Diverged(InputError):
    """The loss became infinite or NaN; the last good checkpoint is kept."""


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved where it was."""

    def __init__(self, checkpoint: Path | None, signal_number: int) -> None:
        super().__init__("training was interrupted")
        self.checkpoint = checkpoint
        self.signal_number = signal_number


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    state: the last state, with the parameters and statistics of the selected epoch;
        averages, where they were kept, have taken the place of the weights.
    history: one row an epoch.
    best_epoch: the selected epoch, from 1; 0 if no epoch had a finite metric.
    reason: why it ended, in words.
    """

    state: TrainState
    history: list[Row]
    best_epoch: int
    reason: str


@dataclasses.dataclass
class _Progress:
    """What a run knows beside its state; saved with it as plain values."""

    sums: Row = dataclasses.field(default_factory=dict)
    """Metric sums of the epoch under way."""
    seconds: float = 0.0
    """Time spent in the epoch under way."""
    history: list[Row] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    """Of those that `select` compares, from 1; 0: none yet."""
    best_score: tuple[float, float] = WORST

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> "_Progress":
        fields = {field.name: info[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**fields, "best_score": tuple(fields["best_score"])})


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled steps of a network, to train and to evaluate.

    Made once, they serve any number of trainings; see `compile_once` for threads.
    """

    runner: Runner
    train: Program[TrainStep]
    """On states and batches that the runner has placed."""
    evaluate: Program[EvalStep]
    stages: tuple[tuple[int, Program[TrainStep]], ...] = ()
    """(epoch, step): up to and with that epoch, in order, this step in place of
    `train`."""

    def train_in(self, epoch: int) -> Program[TrainStep]:
        """The training step of an epoch, from 1."""
        return next((step for last, step in self.stages if epoch <= last), self.train)

    @classmethod
    def compile(
        cls,
        model: Network,
        tx: "optax.GradientTransformation",
        loss: Loss,
        *,
        normalize: Normalize,
        augment: Augment | None = None,
        mix: Mix | None = None,
        stages: Sequence[tuple[int, Normalize]] = (),
        runner: Runner | None = None,
    ) -> "Steps":
        """The steps of a network, those of before for equal arguments; as in `fit`."""
        runner = runner or Runner.all_devices()

        def train(normalize: Normalize) -> Program[TrainStep]:
            return _train_program(runner, model, tx, loss, normalize, augment, mix)

        return cls(
            runner,
            train(normalize),
            _eval_program(runner, model, loss, normalize),
            tuple((last, train(normalize)) for last, normalize in stages),
        )

    def compile_ahead(self, shapes: Callable[[], tuple[TrainState, Batch]]) -> None:
        """Compiles the first epoch's step and evaluation in a thread, while this one
        goes on; on one device.

        Args:
          shapes: gives a state and a batch, of arrays or of `jax.ShapeDtypeStruct`s;
            called in the thread.
        """
        if self.runner.axis_name is not None:
            return  # pmap keeps nothing of what is compiled ahead

        def arguments() -> Sequence[Sequence[PyTree]]:
            state, batch = self.runner.placed_shapes(shapes())
            return (state, batch), (state.eval_variables, batch)

        compile_ahead((self.train_in(1), self.evaluate), functools.cache(arguments))


@keep_programs
def _train_program(
    runner: Runner,
    model: Network,
    tx: "optax.GradientTransformation",
    loss: Loss,
    normalize: Normalize,
    augment: Augment | None,
    mix: Mix | None,
) -> Program[TrainStep]:
    from jaxvision.optim import Optimizer

    step = make_train_step(
        synchronize(model, runner.axis_name),
        tx,
        loss,
        normalize=normalize,
        augment=augment,
        mix=mix,
        axis_name=runner.axis_name,
    )
    optimizer = tx.settings if isinstance(tx, Optimizer) else tx
    about = (model, optimizer, loss, normalize, augment, mix)
    return Program(runner.compile_train(step, about=about))


@keep_programs
def _eval_program(
    runner: Runner, model: Network, loss: Loss, normalize: Normalize
) -> Program[EvalStep]:
    step = make_eval_step(
        synchronize(model, runner.axis_name),
        loss,
        normalize=normalize,
        axis_name=runner.axis_name,
    )
    return Program(runner.compile_eval(step, about=(model, loss, normalize)))


class _Run:
    """A run under way: the placed state, where it is, and what it has to show."""

    def __init__(
        self,
        steps: Steps,
        state: TrainState,
        train: Batches,
        checkpoints: CheckpointFolder | None,
        callback: Callback,
        select: Select,
        on_nonfinite: OnNonfinite,
    ) -> None:
        self.runner = runner = steps.runner
        self.steps = steps
        self.train = train
        self.checkpoints = checkpoints
        self.callback = callback
        self.select: Select = select
        self.on_nonfinite = on_nonfinite
        self.diverged = False
        self.progress = _Progress()
        self.best = state.learned
        self.frozen = state.frozen
        self.saved_best = 0
        self.saved_step = -1
        if checkpoints is not None and (last := checkpoints.load("last")) is not None:
            state = unflatten_like(state, last.arrays)
            self._restore_progress(last.info, state)
            self.saved_step = last.step
        self._check_same(state)
        self.step = int(state.step)
        self.placed = runner.replicate(state)

    def _check_same(self, state: TrainState) -> None:
        """Raises InputError where another process begins with something else."""
        if self.runner.shard["process_count"] == 1:
            return
        train, digest = self.train, hashlib.sha256()
        check_same(
            "images",
            [train.num_examples, train.steps_per_epoch, train.batch_size],
        )
        for name, array in sorted(flatten(state).items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        check_same("parameters", digest.hexdigest())

    def _restore_progress(self, info: dict[str, Any], state: TrainState) -> None:
        self.progress = progress = _Progress.from_info(info)
        entry = None
        if self.checkpoints is not None and progress.best_epoch:
            entry = self.checkpoints.load("best")
        if entry is None:
            # Nothing to go back to (or it was damaged): the next epoch is the best.
            progress.best_epoch, progress.best_score = 0, WORST
            return
        if entry.info["epoch"] < progress.best_epoch:
            # The best was damaged; the one before it stands in.
            progress.best_epoch = int(entry.info["epoch"])
            progress.best_score = _score(entry.info, self.select)
        self.saved_best = progress.best_epoch
        whole = unflatten_like(state.variables, entry.arrays)
        trained = {name: whole["params"][name] for name in state.params}
        self.best = {**whole, "params": trained}

    def train_epoch(
        self, batches: Iterator[Batch], stop: "_StopRequest", save_seconds: float
    ) -> None:
        """Steps until the epoch ends; saves on the way, and leaves if asked to."""
        began = time.monotonic()
        waiting: deque[tuple[int, Metrics]] = deque()
        update = self.steps.train_in(self.step // self.train.steps_per_epoch + 1)
        while True:
            self.placed, metrics = update(self.placed, next(batches))
            self.step += 1
            waiting.append((self.step, metrics))
            shown = self._collect(waiting, stop, leave=_LAG)
            self.callback.on_step(self.step, self.train.batch_size, shown)
            if self.step % self.train.steps_per_epoch == 0:
                break
            leaving = stop.due(self.step)
            if leaving or time.monotonic() - self.saved_at >= save_seconds:
                self._collect(waiting, stop, leave=0)
                self.progress.seconds += time.monotonic() - began
                began = time.monotonic()
                self.save()
                if leaving:
                    stop.leave(self.checkpoints, self.callback)
        self._collect(waiting, stop, leave=0)
        self.progress.seconds += time.monotonic() - began

    def _collect(
        self, waiting: deque[tuple[int, Metrics]], stop: "_StopRequest", leave: int
    ) -> Row | None:
        """Adds up metrics that are surely computed by now; the latest, for showing."""
        shown = None
        while len(waiting) > leave:
            step, metrics = waiting.popleft()
            sums = {k: float(v) for k, v in jax.device_get(metrics).items()}
            if number := int(sums.pop(SIGNAL, 0)):
                stop.all_know(number, step)
            if sums["nonfinite"]:
                if self.on_nonfinite == "raise":
                    self._fail(step)
                self.diverged = True
            for name, value in sums.items():
                self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
            shown = summarize(sums)
        return shown

    def end_reason(self, epochs: int, patience: int | None) -> str:
        """Why the run ends here, in words; "" where it goes on."""
        if self.diverged:
            return NOT_FINITE
        history = self.progress.history
        return end_reason(history, epochs=epochs, patience=patience)

    def _fail(self, step: int) -> NoReturn:
        kept = ""
        if self.checkpoints is not None:
            self.checkpoints.wait()
            if (path := self.checkpoints.path("last")) is not None:
                kept = f"; the last good checkpoint is {path}"
        if self.runner.shard["process_count"] > 1:
            barrier()
        self.callback.on_finish(NOT_FINITE)
        epoch = (step - 1) // self.train.steps_per_epoch + 1
        raise Diverged(
            f"{NOT_FINITE} at step {step} (epoch {epoch}); lower "
            f"`optim.learning_rate` or set `optim.clip_norm`{kept}"
        )

    def end_epoch(self, val_sums: Row | None, learning_rate: float | None) -> None:
        """Writes the epoch into the history and keeps its parameters if best."""
        progress = self.progress
        epoch = self.step // self.train.steps_per_epoch
        row = epoch_row(epoch, self.step, progress.sums, val_sums, learning_rate)
        row["seconds"] = progress.seconds
        row["images_per_second"] = self.train.num_examples / progress.seconds
        progress.history.append(row)
        progress.sums, progress.seconds = {}, 0.0
        score = _score(row, self.select)
        if score > progress.best_score:
            progress.best_score, progress.best_epoch = score, int(row["epoch"])
            self.best = self.runner.unreplicate(self.placed.learned)
        self.callback.on_epoch_end(row)

    def save(self) -> None:
        """Saves the best epoch if it is new, and the state."""
        self.saved_at = time.monotonic()
        if (
            self.checkpoints is None
            or self.step == self.saved_step
            or not is_main_process()
        ):
            return
        progress = self.progress
        if progress.best_epoch != self.saved_best:
            # Before `last`, which relies on it: a kill between the two only makes the
            # resumed run find the same best epoch again.
            row = progress.history[progress.best_epoch - 1]
            params = {**self.best["params"], **self.frozen}
            self.checkpoints.save(
                "best", int(row["step"]), {**self.best, "params": params}, row
            )
            self.saved_best = progress.best_epoch
        info = {**dataclasses.asdict(progress), "next_batch": self.step}
        self.checkpoints.save(
            "last", self.step, self.runner.unreplicate(self.placed), info
        )
        self.saved_step = self.step


def epoch_row(
    epoch: int,
    step: int,
    train_sums: Mapping[str, float],
    val_sums: Mapping[str, float] | None,
    learning_rate: float | None,
) -> Row:
    """A row of the history, from sums of `classification_sums` over an epoch."""
    row: Row = {"epoch": epoch, "step": step}
    row |= {f"train_{k}": v for k, v in summarize(train_sums).items()}
    if val_sums is not None:
        row |= {f"val_{k}": v for k, v in summarize(val_sums).items()}
    if learning_rate is not None:
        row["learning_rate"] = learning_rate
    return row


def fit(
    model: Network,
    tx: "optax.GradientTransformation",
    loss: Loss,
    state: TrainState,
    train: Batches,
    *,
    normalize: Normalize,
    epochs: int,
    val: Batches | None = None,
    select: Select = "best",
    patience: int | None = None,
    checkpoints: CheckpointFolder | None = None,
    save_seconds: float = 30.0,
    augment: Augment | None = None,
    mix: Mix | None = None,
    stages: Sequence[tuple[int, Normalize]] = (),
    learning_rate_at: Callable[[int], float] | None = None,
    callback: Callback | None = None,
    runner: Runner | None = None,
) -> FitResult:
    """Trains until the epochs are over, or patience is.

    With `checkpoints` that hold a run already, that run is continued exactly: on one
    kind of device and with one number of them the result is bit-identical to that of a
    run never stopped.

    Several processes that train together all call it with the same arguments, but for
    their parts of the batches. What a run saves does not depend on how many there were.

    Args:
      model: network; on several devices its batch norm is synchronized.
      tx: the optimizer that made the state's `opt_state`.
      loss: loss of each example.
      state: where to begin; stays valid.
      train: training batches, endless.
      normalize: the network's preprocessing.
      epochs: at most this many, in all.
      val: validation batches, one pass.
      select: whose parameters are the result. "best": the epoch of the highest
        validation accuracy, of the lower loss where accuracies are equal; never one
        whose loss is not finite; without validation images the last. "last": the last
        epoch, which counts as the best one then.
      patience: epochs without a better one on the validation images after which to
        stop, whichever is selected; None: never.
      checkpoints: where to save to and continue from; None: nowhere.
      save_seconds: time between two saves; there is one more at the end, and on
        Ctrl-C.
      augment: random changes of normalized training images, on the device.
      mix: how training images are mixed; None: they are not.
      stages: (epoch, preprocessing) in order: up to and with that epoch, training has
        it in place of `normalize`, such as `Smaller`. Validation never has.
      learning_rate_at: step -> rate, for the history.
      callback: is told of every step and epoch; that of process 0 alone.
      runner: on which devices; None: all, those of other processes too.

    Raises:
      Diverged: the loss became infinite or NaN.
      InputError: a batch cannot be spread over the devices; a checkpoint is of another
        network or cannot be written; another process begins with other parameters.
      Interrupted: on SIGINT or SIGTERM, after saving; in all processes if one gets it.
    """
    return fit_steps(
        Steps.compile(
            model,
            tx,
            loss,
            normalize=normalize,
            augment=augment,
            mix=mix,
            stages=stages,
            runner=runner,
        ),
        state,
        train,
        epochs=epochs,
        val=val,
        select=select,
        patience=patience,
        checkpoints=checkpoints,
        save_seconds=save_seconds,
        learning_rate_at=learning_rate_at,
        callback=callback,
    )


def fit_steps(
    steps: Steps,
    state: TrainState,
    train: Batches,
    *,
    epochs: int,
    val: Batches | None = None,
    select: Select = "best",
    patience: int | None = None,
    checkpoints: CheckpointFolder | None = None,
    save_seconds: float = 30.0,
    learning_rate_at: Callable[[int], float] | None = None,
    callback: Callback | None = None,
    on_nonfinite: OnNonfinite = "raise",
) -> FitResult:
    """As `fit`, by steps that are compiled already.

    Args:
      steps: several trainings may share them.
      on_nonfinite: what to do where the loss is not finite: "raise" `Diverged` at
        once, or "stop" after the epoch, with its row.

    The others are those of `fit`, and so are the errors.
    """
    runner = steps.runner
    if callback is None or not is_main_process():
        callback = Callbacks()
    runner.check_batch_size(train.batch_size)
    run = _Run(steps, state, train, checkpoints, callback, select, on_nonfinite)
    callback.on_start(epochs, train.steps_per_epoch, run.step, train.num_examples)
    alone = runner.shard["process_count"] == 1
    with _StopRequest(alone=alone) as stop, _writes_done(checkpoints):
        run.save()
        batches = _place_ahead(train.iterate(start=run.step), runner, stop)
        while not (reason := run.end_reason(epochs, patience)):
            run.train_epoch(batches, stop, save_seconds)
            val_sums = None
            if val is not None:
                variables = run.placed.eval_variables
                val_sums, _ = _evaluate(steps.evaluate, variables, val, runner)
            rate = None if learning_rate_at is None else learning_rate_at(run.step - 1)
            run.end_epoch(val_sums, rate)
            leaving = stop.due()
            if leaving or time.monotonic() - run.saved_at >= save_seconds:
                run.save()
            if leaving:
                stop.leave(checkpoints, callback)
        run.save()
        if stop.due():  # asked after the last epoch: what follows has to stop too
            stop.leave(checkpoints, callback)
    callback.on_finish(f"{reason}; best: epoch {run.progress.best_epoch}")
    final = runner.unreplicate(run.placed)
    if run.progress.best_epoch:
        final = final.replace(**run.best, average=None)
    return FitResult(final, run.progress.history, run.progress.best_epoch, reason)


def evaluate(
    model: Network,
    loss: Loss,
    variables: dict[str, PyTree],
    batches: Batches,
    *,
    normalize: Normalize,
    runner: Runner | None = None,
) -> tuple[Row, np.ndarray]:
    """One pass over a split.

    Args:
      model, loss, normalize, runner: as in `fit`.
      variables: `params` and `batch_stats`.
      batches: one pass of evaluation batches.

    Returns:
      Mean `loss` and `accuracy`, and the logits `[N, K]` float32 in the split's order.
    """
    runner = runner or Runner.all_devices()
    runner.check_batch_size(batches.batch_size)
    step = _eval_program(runner, model, loss, normalize)
    sums, logits = _evaluate(step, runner.replicate(variables), batches, runner)
    return summarize(sums), logits


def _evaluate(
    evaluate_batch: EvalStep,
    placed: dict[str, PyTree],
    batches: Batches,
    runner: Runner,
) -> tuple[Row, np.ndarray]:
    sums: Row = {}
    logits = []
    waiting: deque[tuple[Metrics, jax.Array]] = deque()

    def collect(leave: int) -> None:
        while len(waiting) > leave:
            metrics, batch_logits = waiting.popleft()
            for name, value in jax.device_get(metrics).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            logits.append(np.asarray(batch_logits))

    for batch in batches.iterate():
        waiting.append(evaluate_batch(placed, runner.place_batch(batch)))
        collect(leave=_LAG)
    collect(leave=0)
    return sums, np.concatenate(logits)[: batches.num_examples]


def _place_ahead(
    batches: Iterator[Batch], runner: Runner, stop: "_StopRequest"
) -> Iterator[Batch]:
    """Sends the next batch to the device while the present one is being used."""
    placed: deque[Batch] = deque()
    for batch in batches:
        placed.append(runner.place_batch(batch, signal_number=stop.requested))
        if len(placed) > 1:
            yield placed.popleft()


def _score(row: Row, select: Select) -> tuple[float, float]:
    """Higher is better; validation if there is any, else the later epoch."""
    if select == "last" or "val_loss" not in row:
        return row["epoch"], 0.0
    return val_score(row)


@contextlib.contextmanager
def _writes_done(checkpoints: CheckpointFolder | None) -> Iterator[None]:
    """However it is left (a callback may raise): nothing is being written any more."""
    try:
        yield
    finally:
        if checkpoints is not None:
            checkpoints.wait()


class _StopRequest:
    """Turns the first SIGINT or SIGTERM into a request; the second acts at once.

    Where several processes train together, all have to leave after the same step:
    the request travels with the batches and is heeded when all have met it.
    """

    def __init__(self, *, alone: bool) -> None:
        self.requested = 0
        self._alone = alone
        self._known = 0
        self._last_step = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.requested and kind is not Interrupted:
            # Too late to be heeded here, or by one of several processes alone, or a
            # callback has ended the training: what called it has to stop all the same.
            signal.raise_signal(self.requested)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.requested = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def all_know(self, number: int, step: int) -> None:
        """The metrics of a step say that some process was asked to stop."""
        if not self._known:
            # One process may look at them earlier than the others, because it saves.
            self._known, self._last_step = number, step + _LAG

    def due(self, step: int | None = None) -> bool:
        """Whether to leave after a step; None: one whose metrics have been seen, the
        last of an epoch."""
        if self._alone:
            return self.requested != 0
        return self._known != 0 and (step is None or step >= self._last_step)

    def leave(self, checkpoints: CheckpointFolder | None, callback: Callback) -> None:
        """Raises Interrupted, once the checkpoint is on the disk."""
        if checkpoints is not None:
            checkpoints.wait()
        if not self._alone:
            barrier()
        callback.on_finish("interrupted")
        path = None if checkpoints is None else checkpoints.folder
        raise Interrupted(path, self.requested or self._known)
