"""What a run shows on the way: bars on a terminal, plain lines anywhere else.

Everything goes to stderr: stdout is for results. Use these as context managers, so
that Ctrl-C leaves the terminal as it was.
"""

import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from jaxvision.report.formats import format_count, format_duration, format_figure
from jaxvision.training.history import val_score
from jaxvision.typing import Row

if TYPE_CHECKING:  # where nothing is shown, nothing need wait for it
    import rich.progress
    from rich.console import Console

Item = TypeVar("Item")

LOG_SECONDS = 10.0
"""In a plain log, at most one line in this many seconds beside those of the epochs."""


class TrainingProgress:
    """Watches `jaxvision.training.loop.fit`: give it as `callback`, inside `with`.

    On a terminal two bars, this epoch's and the whole run's, below one line for each
    finished epoch; else those lines alone and, in long epochs, one every ten seconds.
    The loss and the training accuracy are means over the epoch so far.

    title: stands before the epoch, such as "seed 1".
    history: rows of epochs done before, when a run is resumed: the best is known then.
    enabled: False in all processes but the first.
    """

    def __init__(
        self,
        *,
        title: str = "",
        history: Sequence[Row] = (),
        enabled: bool = True,
        console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = _Screen(enabled, console)
        self._title = title
        self._clock = clock
        self._best = max(map(val_score, history), default=None)
        self._last_row: Row = history[-1] if history else {}
        self._bars: tuple[rich.progress.TaskID, rich.progress.TaskID] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        self._epochs, self._per_epoch = total_epochs, steps_per_epoch
        self._step = start_step
        self._began = self._said = self._clock()
        self._images = _Meter()
        self._first: tuple[float, int] | None = None
        self._sums: dict[str, list[float]] = {}
        line = (
            f"{self._named()}{format_count(num_examples, 'image')}, "
            f"{format_count(total_epochs, 'epoch')} of "
            f"{format_count(steps_per_epoch, 'step')}"
        )
        if start_step:
            line += f"; continues after step {start_step}"
        self._screen.say(line)
        if self._screen.live:
            epoch = self._screen.add_bar("", steps_per_epoch)
            run = self._screen.add_bar("whole run", total_epochs * steps_per_epoch)
            self._bars = epoch, run
            self._show()

    def on_step(self, step: int, images: int, metrics: Row | None) -> None:
        now = self._clock()
        self._images.add(now, images)
        self._step = step
        self._first = self._first or (now, step)
        for name, value in (metrics or {}).items():
            self._sums.setdefault(name, []).append(value)
        if self._screen.live:
            self._show()
        elif now - self._said >= LOG_SECONDS:
            self._said = now
            epoch, done = self._position()
            parts = [
                f"{self._epoch_name(epoch)}  step {done}/{self._per_epoch}",
                self._so_far(),
                self._speed(),
            ]
            self._screen.say("  ".join(filter(None, parts)))

    def on_epoch_end(self, row: Row) -> None:
        score = val_score(row)
        best = self._best is None or score > self._best
        if best:
            self._best = score
        self._last_row = row
        self._sums = {}
        self._said = self._clock()
        self._images.pause(self._said)
        line = f"{self._epoch_name(int(row['epoch']))}  {_row_text(row)}"
        marked = best and "val_accuracy" in row
        self._screen.say(f"{line}  best" if marked else line, bold=marked)

    def on_finish(self, reason: str) -> None:
        self._screen.stop()
        seconds = format_duration(self._clock() - self._began)
        self._screen.say(f"{self._named()}training took {seconds}: {reason}")

    def _position(self) -> tuple[int, int]:
        """The epoch under way, from 1, and its steps done."""
        epoch = max(self._step - 1, 0) // self._per_epoch
        return epoch + 1, self._step - epoch * self._per_epoch

    def _named(self) -> str:
        return f"{self._title}: " if self._title else ""

    def _epoch_name(self, epoch: int) -> str:
        name = f"epoch {epoch:{len(str(self._epochs))}}/{self._epochs}"
        return f"{self._title} {name}" if self._title else name

    def _so_far(self) -> str:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        row = {f"train_{name}": value for name, value in means.items()}
        val = self._last_row.get("val_accuracy")
        return _row_text(row if val is None else {**row, "val_accuracy": val})

    def _speed(self) -> str:
        parts = []
        if rate := self._images.rate:
            parts.append(f"{rate:.0f} images/s")
        if self._first is not None and self._step > self._first[1]:
            # Since the first step, which compiles; epochs' ends are counted in.
            began, first = self._first
            a_step = (self._clock() - began) / (self._step - first)
            left = (self._epochs * self._per_epoch - self._step) * a_step
            parts.append(f"{format_duration(left)} left")
        return "  ".join(parts)

    def _show(self) -> None:
        assert self._bars is not None
        epoch, done = self._position()
        name = self._epoch_name(epoch)
        self._screen.update(self._bars[0], done, detail=self._so_far(), name=name)
        self._screen.update(self._bars[1], self._step, detail=self._speed())


class Progress:
    """A bar with rate and time left for any long work, inside `with`.

    Call it with what is done and the total, as often as you like and from any thread:

        with Progress("decoding", unit="images") as progress:
            decode_all(paths, progress=progress)  # calls progress(done, total)

    A line with the time taken is left at the end.
    """

    def __init__(
        self,
        description: str,
        *,
        unit: str = "images",
        total: int | None = None,
        enabled: bool = True,
        console: "Console | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = _Screen(enabled, console)
        self._description, self._unit, self._total = description, unit, total
        self._clock = clock
        self._done = 0
        self._bar: rich.progress.TaskID | None = None

    def __enter__(self) -> Self:
        self._began = self._said = self._clock()
        self._meter = _Meter()
        if self._screen.live:
            self._bar = self._screen.add_bar(self._description, self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._screen.stop()
        if kind is None and self._done:
            seconds = self._clock() - self._began
            rate = f" ({self._done / seconds:.0f}/s)" if seconds > 0 else ""
            self._screen.say(
                f"{self._description}: {self._done} {self._unit} in "
                f"{format_duration(seconds)}{rate}"
            )

    def __call__(self, done: int, total: int | None = None) -> None:
        now = self._clock()
        self._meter.add(now, done - self._done)
        self._done = done
        self._total = total if total is not None else self._total
        if self._bar is not None:
            self._screen.update(self._bar, done, total=total, detail=self._speed())
        elif now - self._said >= LOG_SECONDS:
            self._said = now
            of = "" if self._total is None else f"/{self._total}"
            self._screen.say(
                f"{self._description}: {done}{of} {self._unit}  {self._speed()}"
            )

    def _speed(self) -> str:
        rate = self._meter.rate
        if not rate:
            return ""
        text = f"{rate:.0f} {self._unit}/s"
        if self._total is None:
            return text
        return f"{text}  {format_duration((self._total - self._done) / rate)} left"


class _Meter:
    """Amount a second over the last fifty reports, None at first.

    The first report is where it begins to measure: before it, programs compile.
    """

    def __init__(self) -> None:
        self._amount = 0.0
        self._points: deque[tuple[float, float]] = deque(maxlen=50)
        self.rate: float | None = None

    def add(self, now: float, amount: float) -> None:
        self._amount += amount
        self._points.append((now, self._amount))
        began, before = self._points[0]
        if now > began:
            self.rate = (self._amount - before) / (now - began)

    def pause(self, now: float) -> None:
        """Leaves the time since the last report out."""
        if self._points:
            gap = now - self._points[-1][0]
            moved = [(point + gap, amount) for point, amount in self._points]
            self._points = deque(moved, maxlen=self._points.maxlen)


class _Screen:
    """Lines, and on a terminal bars below them."""

    def __init__(self, enabled: bool, console: "Console | None") -> None:
        self._console = (console or _stderr()) if enabled else None
        self.live = (
            self._console is not None
            and self._console.is_terminal
            and not self._console.is_dumb_terminal
        )
        self._bars: rich.progress.Progress | None = None

    def say(self, line: str, bold: bool = False) -> None:
        if self._console is None:
            return
        if self.live:
            from rich.text import Text

            text = Text(line, style="bold" if bold else "")
            self._console.print(text, soft_wrap=True)
        else:
            print(line, file=self._console.file, flush=True)

    def add_bar(self, name: str, total: int | None) -> "rich.progress.TaskID":
        import rich.progress

        if self._bars is None:
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(bar_width=14),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[detail]}", markup=False),
                console=self._console,
                transient=True,
                refresh_per_second=4,
                # What a program prints into a file or pipe must get there.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._bars.start()
        return self._bars.add_task(name, total=total, detail="")

    def update(
        self,
        bar: "rich.progress.TaskID",
        done: int,
        *,
        detail: str,
        total: int | None = None,
        name: str | None = None,
    ) -> None:
        if self._bars is not None:
            self._bars.update(
                bar, completed=done, total=total, description=name, detail=detail
            )

    def stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


@functools.cache
def _stderr() -> "Console":
    from rich.console import Console

    # One for all: rich stacks the bars of one console, and garbles those of two.
    return Console(stderr=True, highlight=False)


def _row_text(row: Row) -> str:
    """`loss .412  train .871  val .802` and, of a whole epoch, time and speed."""
    labels = {
        "train_loss": "loss",
        "train_accuracy": "train",
        "val_accuracy": "val",
    }
    parts = [
        f"{label} {format_figure(row[name])}"
        for name, label in labels.items()
        if name in row
    ]
    if "seconds" in row:
        parts.append(format_duration(row["seconds"]))
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']:.0f} images/s")
    return "  ".join(parts)
