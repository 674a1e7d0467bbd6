"""Two processes of two devices are one process of four; and what ends one of them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from distributed_run import STEPS, measure, train

from jaxvision.training.checkpoint import CheckpointFolder, flatten
from jaxvision.training.loop import Callbacks, FitResult, Interrupted

LONG = 300
"""Seconds after which a process that should have ended long ago is given up."""


def free_port(ports: Iterable[int] = (0,)) -> int:
    """The first of the ports that nobody listens on; 0: any."""
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as server:
            server.bind(("127.0.0.1", port))
            return server.getsockname()[1]
    raise AssertionError("no port is free")


def start(*, slurm: bool = False, **options: object) -> list[tuple[int, str, str]]:
    """Runs `distributed_run` as two processes of two devices each, to their end.

    slurm: in the environment that SLURM makes, without any address.

    Returns:
      Of each process the exit status, standard output and standard error.
    """
    coordinator, environment = f"127.0.0.1:{free_port()}", {}
    if slurm:
        # JAX makes the port of the job's number, in the last 4096.
        port = free_port(range(65535, 61440, -1))
        coordinator = "detect"
        environment = {
            "SLURM_JOB_ID": str(port - 61440),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_NODES": "1",
            "SLURM_NTASKS": "2",
        }
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("distributed_run.py")),
                coordinator,
                "2",
                str(index),
                json.dumps(options),
            ],
            env={
                **os.environ,
                **environment,
                "SLURM_PROCID": str(index),
                "SLURM_LOCALID": str(index),
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        ends = [process.communicate(timeout=LONG) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *end) for process, end in zip(processes, ends, strict=True)
    ]


def finish(out: Path, **options: object) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The arrays and the history of a run of two processes."""
    ends = start(out=str(out), **options)
    assert [status for status, _, _ in ends] == [0, 0], ends
    with np.load(out) as arrays:
        return dict(arrays), json.loads(out.with_suffix(".json").read_text())


def errors(text: str) -> list[str]:
    """The lines of standard error that are ours or a traceback's."""
    return [
        line for line in text.splitlines() if line.startswith(("error:", "Traceback"))
    ]


def untimed(history: list[dict]) -> list[dict]:
    timing = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timing} for row in history]


def assert_close(
    arrays: dict[str, np.ndarray], history: list[dict], one: FitResult
) -> None:
    """As the run on one process: curves and parameters within 1e-5."""
    for a, b in zip(untimed(history), untimed(one.history), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    wanted = {**flatten(one.state), "logits": measure(one)}
    chex.assert_trees_all_close(arrays, wanted, atol=1e-5)


@pytest.fixture(scope="module")
def one() -> FitResult:
    """The run of one process with four devices."""
    assert jax.device_count() == 4
    return train()


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The run of two processes with two devices each, never stopped."""
    return finish(tmp_path_factory.mktemp("two") / "two.npz", slurm=True)


def test_two_processes_are_one_of_as_many_devices(one, two):
    """Batch norm on, and the last batch of an epoch is not full."""
    arrays, history = two
    assert len(history) * 3 == STEPS >= 20
    assert_close(arrays, history, one)


def test_killed_process_ends_the_other_and_both_continue_exactly(tmp_path, one, two):
    """And what the two had saved is continued by one process as well."""
    folder = tmp_path / "run"
    killed = {1: {"signal_at": 10, "signal_number": signal.SIGKILL}}
    first, second = start(folder=str(folder), each=killed)
    assert second[0] == -signal.SIGKILL
    assert first[0] == 1, first
    (error,) = errors(first[2])
    assert error.startswith("error: process 0 of 2: process 1 has ended")
    assert "`resume`" in error
    assert 0 < CheckpointFolder(folder).load("last").step < STEPS
    shutil.copytree(folder, tmp_path / "copy")

    arrays, history = finish(tmp_path / "again.npz", folder=str(folder))
    chex.assert_trees_all_equal(arrays, two[0])
    assert untimed(history) == untimed(two[1])

    alone = train(str(tmp_path / "copy"))
    chex.assert_trees_all_close(alone.state, one.state, atol=1e-5)


class StopAt(Callbacks):
    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def on_step(self, step, images, metrics) -> None:
        if step == self._step:
            os.kill(os.getpid(), signal.SIGINT)


def test_one_process_saves_and_two_go_on_until_one_of_them_is_asked_to_stop(
    tmp_path, one
):
    """All of them leave after the same step, as the saved one continued shows."""
    folder = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(str(folder), callback=StopAt(4))
    assert CheckpointFolder(folder).load("last").step == 4
    asked = {1: {"signal_at": 8, "signal_number": signal.SIGTERM}}
    ends = start(folder=str(folder), each=asked)
    for status, _, stderr in ends:
        assert status == 128 + signal.SIGTERM, stderr
        assert errors(stderr) == []
    assert 4 < CheckpointFolder(folder).load("last").step < STEPS
    alone = train(str(folder))
    chex.assert_trees_all_close(alone.state, one.state, atol=1e-5)
    assert [row["step"] for row in alone.history] == [3 * i for i in range(1, 8)]
