"""Progress on a terminal and in a log, driven as training drives it."""

import io
import math
import re
import sys

import pytest
from rich.console import Console

from jaxvision.report.progress import LOG_SECONDS, Progress, TrainingProgress

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def shown(console: Console) -> str:
    """Without the control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written(console))


def row(epoch: int, accuracy: float, loss: float = 0.5) -> dict[str, float]:
    return {
        "epoch": epoch,
        "step": 4 * epoch,
        "train_loss": 0.25,
        "train_accuracy": 0.875,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "seconds": 4.0,
        "images_per_second": 32.0,
    }


def drive(
    progress: TrainingProgress,
    clock: Clock,
    accuracies: list[float],
    seconds: float = 1.0,
) -> None:
    """Epochs of 4 steps of 32 images, `seconds` each; the first compiles for 60 s."""
    progress.on_start(len(accuracies), 4, 0, 128)
    clock.now += 60
    for step in range(4 * len(accuracies)):
        clock.now += seconds
        metrics = None if step < 2 else {"loss": 0.25, "accuracy": 0.875}
        progress.on_step(step + 1, 32, metrics)
        if step % 4 == 3:
            epoch = step // 4
            progress.on_epoch_end(row(epoch + 1, accuracies[epoch]))
    progress.on_finish(f"{len(accuracies)} epochs; best: epoch 2")


def test_log_has_a_line_an_epoch_and_marks_the_best() -> None:
    console, clock = log(), Clock()
    with TrainingProgress(console=console, clock=clock) as progress:
        drive(progress, clock, [0.5, 0.75, 0.625], seconds=0.1)
    lines = written(console).splitlines()
    assert lines[0] == "128 images, 3 epochs of 4 steps"
    # The step that compiles takes longer than the log is silent for.
    assert lines[1].startswith("epoch 1/3  step 1/4")
    assert lines[2:] == [
        "epoch 1/3  loss .250  train .875  val .500  4.0 s  32 images/s  best",
        "epoch 2/3  loss .250  train .875  val .750  4.0 s  32 images/s  best",
        "epoch 3/3  loss .250  train .875  val .625  4.0 s  32 images/s",
        "training took 1:01: 3 epochs; best: epoch 2",
    ]


def test_log_in_long_epochs() -> None:
    console, clock = log(), Clock()
    with TrainingProgress(title="seed 1", console=console, clock=clock) as progress:
        drive(progress, clock, [0.5, 0.75], seconds=LOG_SECONDS / 2)
    lines = [line for line in written(console).splitlines() if "step " in line]
    assert lines == [
        "seed 1 epoch 1/2  step 1/4",
        "seed 1 epoch 1/2  step 3/4  loss .250  train .875  6 images/s  25.0 s left",
        "seed 1 epoch 2/2  step 2/4  loss .250  train .875  val .500  6 images/s  "
        "10.0 s left",
        "seed 1 epoch 2/2  step 4/4  loss .250  train .875  val .500  6 images/s  "
        "0.0 s left",
    ]


def test_terminal_shows_both_bars_and_leaves_the_lines() -> None:
    console, clock = terminal(), Clock()
    with TrainingProgress(console=console, clock=clock) as progress:
        progress.on_start(2, 4, 0, 128)
        for step in (1, 2, 3):
            clock.now += 1
            progress.on_step(step, 32, {"loss": 0.25, "accuracy": 0.875})
        progress._screen._bars.refresh()  # not to wait for its thread
        progress.on_epoch_end(row(1, 0.5))
        progress.on_finish("2 epochs; best: epoch 1")
    text = shown(console)
    assert re.search(r"epoch 1/2 +━.* 3/4 +loss \.250  train \.875", text)
    assert re.search(r"whole run +━.* 3/8 +32 images/s  5\.0 s left", text)
    assert "epoch 1/2  loss .250  train .875  val .500" in text
    assert "training took 3.0 s: 2 epochs; best: epoch 1" in text
    assert written(console).count(HIDE) == written(console).count(SHOW) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_cursor_comes_back(error: type[BaseException]) -> None:
    console = terminal()

    def train() -> None:
        with TrainingProgress(console=console) as progress:
            progress.on_start(2, 4, 0, 128)
            raise error

    def decode() -> None:
        with Progress("decoding", total=3, console=console) as progress:
            progress(1, 3)
            raise error

    for work in (train, decode):
        with pytest.raises(error):
            work()
    text = written(console)
    assert text.count(HIDE) == text.count(SHOW) == 2
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_a_resumed_run_knows_its_best() -> None:
    console, clock = log(), Clock()
    history = [row(1, 0.75), row(2, 0.5)]
    progress = TrainingProgress(history=history, console=console, clock=clock)
    progress.on_start(4, 4, 8, 128)
    progress.on_step(9, 32, None)
    progress.on_epoch_end(row(3, 0.75))
    progress.on_epoch_end(row(4, 0.75, loss=0.25))
    lines = written(console).splitlines()
    assert lines[0].endswith("; continues after step 8")
    assert [line.endswith("best") for line in lines[1:]] == [False, True]


@pytest.mark.parametrize("broken", ["val_loss", "val_accuracy"])
def test_nan_is_never_best(broken: str) -> None:
    console = log()
    progress = TrainingProgress(console=console)
    progress.on_start(3, 4, 0, 128)
    progress.on_epoch_end(row(1, 0.5))
    progress.on_epoch_end({**row(2, 0.9), broken: math.nan})
    progress.on_epoch_end(row(3, 0.75))
    lines = written(console).splitlines()[1:]
    assert [line.endswith("best") for line in lines] == [True, False, True]


def test_without_validation_there_is_no_best() -> None:
    console = log()
    progress = TrainingProgress(console=console)
    progress.on_start(1, 4, 0, 128)
    progress.on_epoch_end({"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.5})
    assert written(console).splitlines()[1] == "epoch 1/1  loss .500  train .500"


@pytest.mark.parametrize("make", [terminal, log])
def test_other_processes_are_silent(make) -> None:
    console, clock = make(), Clock()
    with TrainingProgress(enabled=False, console=console, clock=clock) as training:
        drive(training, clock, [0.5])
    with Progress("x", enabled=False, console=console) as progress:
        progress(1, 2)
    assert written(console) == ""


def test_names_are_no_markup() -> None:
    console = terminal()
    with TrainingProgress(title="[red]x[/]", console=console) as progress:
        progress.on_start(1, 4, 0, 128)
        progress.on_epoch_end(row(1, 0.5))
    with Progress("[bold]y", total=1, console=console) as other:
        other(1, 1)
    assert "[red]x[/] epoch 1/1" in shown(console)
    assert "[bold]y" in shown(console)


def test_other_work_in_a_log() -> None:
    console, clock = log(), Clock()
    with Progress("decoding", console=console, clock=clock) as progress:
        for done in range(100, 501, 100):
            clock.now += 6
            progress(done, 500)
    assert written(console).splitlines() == [
        "decoding: 200/500 images  17 images/s  18.0 s left",
        "decoding: 400/500 images  17 images/s  6.0 s left",
        "decoding: 500 images in 30.0 s (17/s)",
    ]


def test_other_work_on_a_terminal() -> None:
    console, clock = terminal(), Clock()
    with Progress("decoding", console=console, clock=clock) as progress:
        for done in (100, 200, 300):
            clock.now += 1
            progress(done, 500)
        progress._screen._bars.refresh()  # not to wait for its thread
    text = shown(console)
    assert re.search(r"decoding +━.* 300/500 +100 images/s  2\.0 s left", text)
    assert "decoding: 300 images in 3.0 s (100/s)" in text


def test_no_work_prints_nothing() -> None:
    console = log()
    with Progress("reading", console=console):
        pass
    assert written(console) == ""


def test_bars_within_bars() -> None:
    console = terminal()
    with TrainingProgress(console=console) as training:
        training.on_start(1, 4, 0, 128)
        with Progress("decoding", console=console) as progress:
            progress(2, 2)
        training.on_step(1, 32, None)
        training.on_finish("1 epoch")
    assert "decoding: 2 images" in shown(console)
    assert written(console).rindex(SHOW) > written(console).rindex(HIDE)


def test_everything_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.on_start(1, 4, 0, 128)
        progress.on_finish("1 epoch")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("128 images, 1 epoch of 4 steps\n")


def test_results_on_stdout_are_not_drawn_into_the_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, console = io.StringIO(), terminal()
    monkeypatch.setattr(sys, "stdout", out)
    with Progress("decoding", total=2, console=console) as progress:
        progress(1, 2)
        print("a result")
    assert out.getvalue() == "a result\n"
    assert "a result" not in written(console)
