"""Work spread over processes or threads: results in order, memory bounded, no orphans.

Processes are started afresh and not forked, because the caller may hold threads (JAX
starts some): a script calls what uses them under `if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from jaxvision.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(
    pool: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    ahead: int,
) -> Generator[Result, None, None]:
    """`pool.map` with at most `ahead` results waiting, so that memory is bounded."""
    waiting: deque[Future] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def map_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    processes: int,
    *,
    chunk: int = 8,
) -> Generator[Result, None, None]:
    """The results of `function` in the order of `items`.

    Args:
      function: picklable where `processes` is above 1.
      items: picklable there too.
      processes: 1 works in this one.
      chunk: items that a process takes at a time.

    Raises:
      InputError: less than one process, or one of them was killed, as the system
        does where memory runs out.
    """
    if processes < 1:
        raise InputError("must be at least 1", setting="processes", value=processes)
    if processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin_worker) as pool:
        try:
            for results in map_in_order(
                pool,
                partial(_apply, function),
                (items[i : i + chunk] for i in range(0, len(items), chunk)),
                ahead=4 * processes,
            ):
                yield from results
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {processes} worker processes was killed, perhaps for want of "
                "memory; the same command goes on from here, with fewer `processes` "
                "it takes less"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def default_processes(num_items: int, *, most: int = 8) -> int:
    """One process a CPU core, at most `most`; 1 where starting them takes longer."""
    return min(most, os.cpu_count() or 1) if num_items > 300 else 1


def end_with_parent() -> None:
    """In a worker process: a parent that was killed leaves no orphan."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _begin_worker() -> None:
    # Ctrl-C is the parent's to handle; workers end with it, without tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _apply(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
