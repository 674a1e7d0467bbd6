"""One thread that computes: people's questions first, then what can wait."""

import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

MAX_WAITING = 16
"""Questions that wait at once; a page asks a few."""


class Busy(Exception):
    """Too many questions wait already."""


@dataclasses.dataclass(order=True)
class _Job:
    rank: int
    number: int
    call: Callable[[], Any] | None = dataclasses.field(compare=False)
    future: Future = dataclasses.field(compare=False)


class Worker:
    """Runs functions one at a time, in the order they came."""

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def submit(
        self, call: Callable[[], Result], *, background: bool = False
    ) -> Future[Result]:
        """The future result of a function.

        Args:
          call: what is to be run.
          background: it waits until nobody asks anything.

        Raises:
          Busy: `MAX_WAITING` others wait.
        """
        if not background and self._jobs.qsize() >= MAX_WAITING:
            raise Busy
        future: Future[Result] = Future()
        rank = 2 if background else 1
        self._jobs.put(_Job(rank, next(self._numbers), call, future))
        return future

    def stop(self) -> None:
        """Ends the thread after what it runs now; what waits is not run.

        It is waited for: what compiles when the interpreter ends would end it badly.
        """
        self._jobs.put(_Job(0, next(self._numbers), None, Future()))
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()).call is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(job.call())
            except BaseException as error:
                job.future.set_exception(error)
        while not self._jobs.empty():
            self._jobs.get().future.cancel()
