"""`fit`: best epoch, patience, devices, resuming, being killed, diverging."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from random_runs import NORMALIZE, SHAPE, RandomBatches, small_model

from jaxvision.errors import InputError
from jaxvision.metrics import make_cross_entropy
from jaxvision.optim import OptimConfig, ScheduleConfig, make_optimizer
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.loop import (
    Callbacks,
    Diverged,
    FitResult,
    Interrupted,
    Steps,
    evaluate,
    fit,
    fit_steps,
)
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables

ONE_DEVICE = Runner(tuple(jax.local_devices()[:1]))
LOSS = make_cross_entropy()
SCHEDULE_EPOCHS = 40
"""One schedule for short and long runs, so that they share a program."""


def run(
    *,
    epochs=4,
    optimizer="adam",
    learning_rate=0.01,
    val=True,
    dropout_rate=0.2,
    **options,
):
    model = small_model(batch_norm=True, dropout_rate=dropout_rate)
    train = RandomBatches(num_examples=22, batch_size=8, train=True)
    tx = make_optimizer(
        OptimConfig(optimizer, learning_rate),
        ScheduleConfig("cosine"),
        steps_per_epoch=train.steps_per_epoch,
        epochs=SCHEDULE_EPOCHS,
    )
    state = create_state(init_variables(model, 0, SHAPE), tx, seed=0)
    return fit(
        model,
        tx,
        LOSS,
        state,
        train,
        normalize=NORMALIZE,
        epochs=epochs,
        val=RandomBatches(num_examples=13, batch_size=8, train=False) if val else None,
        **{"runner": ONE_DEVICE, **options},
    )


def same(a: FitResult, b: FitResult) -> None:
    chex.assert_trees_all_equal(a.state, b.state)
    timing = ("seconds", "images_per_second")
    rows = [
        [{k: v for k, v in row.items() if k not in timing} for row in result.history]
        for result in (a, b)
    ]
    assert rows[0] == rows[1]
    assert (a.best_epoch, a.reason) == (b.best_epoch, b.reason)


def test_learns_and_records():
    result = run(epochs=30, dropout_rate=0.0, learning_rate_at=lambda step: 0.5)
    assert len(result.history) == 30
    assert result.history[-1]["train_accuracy"] > result.history[0]["train_accuracy"]
    assert result.history[-1]["val_accuracy"] > 0.8
    assert {"epoch", "step", "seconds", "images_per_second", "learning_rate"} <= set(
        result.history[0]
    )


def test_state_is_that_of_the_best_epoch():
    result = run(epochs=6)
    accuracies = [row["val_accuracy"] for row in result.history]
    assert accuracies[result.best_epoch - 1] == max(accuracies)
    val = RandomBatches(num_examples=13, batch_size=8, train=False)
    summary, logits = evaluate(
        small_model(batch_norm=True),
        LOSS,
        result.state.variables,
        val,
        normalize=NORMALIZE,
        runner=ONE_DEVICE,
    )
    assert summary["accuracy"] == max(accuracies)
    assert logits.shape == (13, 3)


def test_without_validation_the_last_epoch_counts():
    result = run(epochs=3, val=False)
    assert result.best_epoch == 3
    assert int(result.state.step) == 9


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    last = run(epochs=5, select="last")
    assert last.best_epoch == 5
    assert "val_accuracy" in last.history[-1]
    chex.assert_trees_all_equal(last.state, run(epochs=5, val=False).state)


def test_patience_stops():
    result = run(epochs=50, learning_rate=0.0, patience=3)
    assert result.best_epoch == 1 or len(result.history) < 50
    assert len(result.history) == result.best_epoch + 3
    assert "no better epoch in 3" in result.reason


def test_patience_waits_for_the_best_epoch_where_the_last_is_selected():
    options = {"epochs": 50, "learning_rate": 0.0, "patience": 3}
    last, best = (run(**options, select=select) for select in ("last", "best"))
    assert len(last.history) == len(best.history) == best.best_epoch + 3
    assert last.best_epoch == len(last.history)


def test_a_run_that_diverged_can_end_with_its_epoch():
    model = small_model(batch_norm=True)
    train = RandomBatches(num_examples=22, batch_size=8, train=True)
    tx = make_optimizer(OptimConfig("sgd", 1e30), steps_per_epoch=3, epochs=4)
    steps = Steps.compile(model, tx, LOSS, normalize=NORMALIZE, runner=ONE_DEVICE)
    state = create_state(init_variables(model, 0, SHAPE), tx, seed=0)
    with pytest.raises(Diverged):
        fit_steps(steps, state, train, epochs=4)
    result = fit_steps(steps, state, train, epochs=4, on_nonfinite="stop")
    assert result.reason == "the loss is not finite"
    assert len(result.history) < 4
    assert not np.isfinite(result.history[-1]["train_loss"])
    for leaf in jax.tree.leaves(result.state.params):
        assert np.isfinite(leaf).all()


def test_nan_never_displaces_the_best(monkeypatch):
    """100 random sequences of metrics, some NaN: the true best is kept each time."""
    from jaxvision.training.loop import _Progress, _score

    rng = np.random.default_rng(0)
    for _ in range(100):
        progress = _Progress()
        losses = np.where(rng.random(7) < 0.3, np.nan, rng.random(7))
        accuracies = rng.integers(0, 4, 7) / 4
        for epoch, (loss, accuracy) in enumerate(
            zip(losses, accuracies, strict=True), start=1
        ):
            row = {"epoch": epoch, "val_loss": loss, "val_accuracy": accuracy}
            if (score := _score(row, "best")) > progress.best_score:
                progress.best_score, progress.best_epoch = score, epoch
        finite = [
            (accuracies[i], -losses[i], -i) for i in range(7) if losses[i] == losses[i]
        ]
        assert progress.best_epoch == (1 - max(finite)[2] if finite else 0)


def test_four_devices_equal_one():
    """Batch norm on, uneven last batch, same global batch.

    Not with Adam: it makes steps of full length out of the rounding noise that is
    the gradient of a bias before batch norm.
    """
    options = {"epochs": 7, "dropout_rate": 0.0, "optimizer": "sgd"}  # 21 steps
    one = run(**options)
    four = run(**options, runner=None)
    assert len(Runner.all_devices().devices) == 4
    chex.assert_trees_all_close(four.state.params, one.state.params, atol=1e-5)
    for a, b in zip(four.history, one.history, strict=True):
        assert a["val_accuracy"] == b["val_accuracy"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)


def test_batch_that_cannot_be_spread_is_refused():
    runner = Runner(tuple(jax.local_devices()[:3]))
    with pytest.raises(InputError, match="`batch_size` 8"):
        run(runner=runner)


def test_nothing_recompiles_during_a_run():
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(NORMALIZE, n=2)  # one to train, one to evaluate
    model = small_model(batch_norm=True)
    train = RandomBatches(num_examples=22, batch_size=8, train=True)
    tx = make_optimizer(OptimConfig(), steps_per_epoch=3, epochs=4)
    fit(
        model,
        tx,
        LOSS,
        create_state(init_variables(model, 0, SHAPE), tx, seed=0),
        train,
        normalize=traced,
        epochs=4,
        val=RandomBatches(num_examples=13, batch_size=8, train=False),
        runner=ONE_DEVICE,
    )


class StopAt(Callbacks):
    """Sends this process a signal when a step is reached."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__()
        self._step, self._number = step, number

    def on_step(self, step, images, metrics) -> None:
        if step == self._step:
            os.kill(os.getpid(), self._number)


@pytest.fixture(scope="module")
def whole():
    """The run that is never stopped."""
    return run()


@pytest.mark.parametrize(
    ("step", "number"),
    [(1, signal.SIGINT), (5, signal.SIGTERM), (6, signal.SIGINT), (11, signal.SIGINT)],
)
def test_interrupted_run_resumes_exactly(tmp_path, whole, step, number):
    """In the middle of an epoch and at its end; 3 steps an epoch."""
    with pytest.raises(Interrupted) as stopped:
        run(checkpoints=CheckpointFolder(tmp_path), callback=StopAt(step, number))
    assert stopped.value.checkpoint == tmp_path
    assert stopped.value.signal_number == number
    assert CheckpointFolder(tmp_path).load("last").step == step
    assert CheckpointFolder(tmp_path).load("last").info["next_batch"] == step
    same(run(checkpoints=CheckpointFolder(tmp_path)), whole)


def test_asked_to_stop_after_the_last_epoch(tmp_path, whole, monkeypatch):
    """Not forgotten: a sweep or several seeds would go on with the next training."""
    save = CheckpointFolder.save

    def save_and_stop(self, name, step, *what):
        save(self, name, step, *what)
        if (name, step) == ("last", 12):
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(CheckpointFolder, "save", save_and_stop)
    with pytest.raises(Interrupted) as stopped:
        run(checkpoints=CheckpointFolder(tmp_path))
    assert stopped.value.signal_number == signal.SIGTERM
    monkeypatch.undo()
    same(run(checkpoints=CheckpointFolder(tmp_path)), whole)


def test_asked_to_stop_when_a_callback_ends_the_training():
    """As tuning does with a trial that it gives up."""

    class GiveUp(Callbacks):
        def on_epoch_end(self, row):
            signal.raise_signal(signal.SIGINT)
            raise StopIteration

    with pytest.raises(KeyboardInterrupt):
        run(callback=GiveUp())


def test_finished_run_continued_is_finished(tmp_path, whole):
    for _ in range(2):
        same(run(checkpoints=CheckpointFolder(tmp_path)), whole)


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_best_is_not_passed_off_as_the_best(tmp_path, damaged):
    """The one before it stands in; without one, what was trained last."""
    run(checkpoints=CheckpointFolder(tmp_path), save_seconds=0.0)
    entries = sorted(tmp_path.glob("best-*"), reverse=True)
    assert len(entries) == 2
    for entry in entries[:damaged]:
        (entry / "info.json").write_text("{}")
    with pytest.warns(UserWarning, match="passed over"):
        result = run(checkpoints=CheckpointFolder(tmp_path), save_seconds=0.0)
    last = CheckpointFolder(tmp_path).load("last")
    if damaged == 2:
        assert result.best_epoch == 0
        params = result.state.params["head"]["logits"]["kernel"]
        np.testing.assert_array_equal(params, last.arrays["params/head/logits/kernel"])
    else:
        accuracy = result.history[result.best_epoch - 1]["val_accuracy"]
        summary, _ = evaluate(
            small_model(batch_norm=True),
            LOSS,
            result.state.variables,
            RandomBatches(num_examples=13, batch_size=8, train=False),
            normalize=NORMALIZE,
            runner=ONE_DEVICE,
        )
        assert summary["accuracy"] == accuracy


def test_resume_on_four_devices_is_exact(tmp_path):
    whole = run(runner=None)
    with pytest.raises(Interrupted):
        run(
            runner=None,
            checkpoints=CheckpointFolder(tmp_path),
            callback=StopAt(5, signal.SIGINT),
        )
    same(run(runner=None, checkpoints=CheckpointFolder(tmp_path)), whole)


_KILLED_RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
import test_loop
from jaxvision.training.checkpoint import CheckpointFolder, flatten
result = test_loop.run(
    epochs=40, checkpoints=CheckpointFolder(Path(sys.argv[2])), save_seconds=0.0
)
np.savez(sys.argv[3], **flatten(result.state))
"""


def test_process_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    """SIGKILL lands in steps and in the middle of saves, which never pause.

    Each of the first processes is killed a moment after it has saved something new,
    long before its last epoch, however fast or loaded the machine is.
    """
    here = str(Path(__file__).parent)
    result, folder = tmp_path / "state.npz", tmp_path / "run"
    command = [sys.executable, "-c", _KILLED_RUN, here, str(folder), str(result)]
    rng = np.random.default_rng(0)
    for _ in range(2):
        before = set(folder.glob("last-*"))
        process = subprocess.Popen(command)
        while process.poll() is None and set(folder.glob("last-*")) <= before:
            time.sleep(0.002)
        time.sleep(0.05 * rng.random())
        assert process.poll() is None, "ended before it could be killed"
        process.kill()
        process.wait()
    subprocess.run(command, check=True, timeout=300)
    from jaxvision.training.checkpoint import flatten

    whole = flatten(run(epochs=40).state)
    with np.load(result) as resumed:
        assert set(resumed) == set(whole)
        for name, array in whole.items():
            np.testing.assert_array_equal(resumed[name], array)


def test_diverging_run_stops_and_names_the_last_good_checkpoint(tmp_path):
    checkpoints = CheckpointFolder(tmp_path)
    with pytest.raises(InputError) as error:
        run(learning_rate=1e30, checkpoints=checkpoints, save_seconds=0.0)
    assert "not finite at step" in str(error.value)
    assert "last-0" in str(error.value)
    for array in checkpoints.load("last").arrays.values():
        assert np.isfinite(array).all()
