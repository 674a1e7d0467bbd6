"""Work in processes: in order, in bounded memory, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxvision.data.workers import default_processes, map_in_order, map_in_processes
from jaxvision.errors import InputError


def double(number: int) -> int:
    return 2 * number


def die_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise KeyError(number)


def test_results_come_in_order_and_no_more_is_begun_than_asked() -> None:
    begun = []
    with ThreadPoolExecutor(3) as pool:
        items = (begun.append(number) or number for number in range(50))
        for done, result in enumerate(map_in_order(pool, double, items, ahead=5)):
            assert result == 2 * done
            assert len(begun) <= done + 6


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_change_nothing(processes: int) -> None:
    found = list(map_in_processes(double, range(45), processes, chunk=4))
    assert found == list(range(0, 90, 2))


def test_errors_and_killed_workers_come_through() -> None:
    with pytest.raises(KeyError):
        list(map_in_processes(refuse, range(9), 2))
    with pytest.raises(InputError, match=r"one of 2 worker processes was killed"):
        list(map_in_processes(die_at_seven, range(20), 2))
    with pytest.raises(InputError, match="`processes` 0"):
        list(map_in_processes(double, [1], 0))


def test_little_work_is_done_here() -> None:
    assert default_processes(10) == 1
    assert 1 <= default_processes(10**6) <= 8


PROGRAM = """
import multiprocessing, sys, time
from jaxvision.data.workers import map_in_processes

def slow(number):
    time.sleep(0.02)
    return number

if __name__ == "__main__":
    for number in map_in_processes(slow, range(10**5), 2):
        if number == 10:
            children = multiprocessing.active_children()
            print(*[child.pid for child in children], flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_parent(tmp_path: Path, number: int) -> None:
    # Here, because every worker process imports this module.
    from test_loader import wait_until_gone

    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    # The parent's own trace of Ctrl-C, and none of the workers'.
    assert errors.count("Traceback") <= 1
    assert wait_until_gone(workers, 30) == []
