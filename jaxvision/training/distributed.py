"""Several processes, on one host or on many, that train as one.

Each process runs the same program with its own `distributed.process_id`. All of them
compute; process 0 alone prints, reports and touches checkpoints, and tells the others
what it read (`broadcast`), so that they need no common disk for it. A process that ends
too early ends the others (`jaxvision.training.lifeline`): what they have lost cannot be
made up for, and a restart continues from the last checkpoint.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxvision.errors import InputError
from jaxvision.settings import DistributedConfig
from jaxvision.training.lifeline import Lifeline

Plain = TypeVar("Plain")

SHUTDOWN_SECONDS = 3600
"""How long processes that are done wait for process 0 to write its report."""

_CHUNK = 1 << 26
"""Bytes sent at once by `broadcast_arrays`."""

_LOST = re.compile("gloo|nccl|rccl|connection|heartbeat|unavailable|deadline", re.I)
"""In what JAX says where another process has gone."""

_REASON_SECONDS = 5.0
"""How long to wait for the lifeline to say which process has gone."""


@contextlib.contextmanager
def distributed_session(
    config: DistributedConfig,
    *,
    name_of: Callable[[str], str | None] = lambda setting: None,
) -> Iterator[None]:
    """Inside, `jax.devices()` are those of all processes, and process 0 alone prints.

    Does nothing unless the config names several processes. To be entered before JAX
    computes anything. An exception that leaves it ends the process at once, without
    waiting for the others, after one line on stderr (a defect: its traceback).

    Args:
      config: which process this is, of how many.
      name_of: how the program calls a setting; see `InputError.with_names`.

    Raises:
      InputError: settings that mean nothing, or the others cannot be reached.
    """
    if not config.wanted:
        yield
        return
    _initialize(config)
    here, lifeline = jax.process_index(), _connect(config, name_of)
    try:
        with contextlib.nullcontext() if is_main_process() else _silenced():
            yield
        lifeline.part()
        return
    except InputError as error:
        status = 2
        _say(f"error: {_this_process()}: {error.with_names(name_of)}")
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        _say(f"{_this_process()}: interrupted")
    except SystemExit as end:
        # All have agreed on it, see `Interrupted`.
        status, here = end.code if isinstance(end.code, int) else 1, None
    except Exception as error:
        status = 1
        if isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(str(error)):
            # The lifeline may be about to end this process, and knows more.
            time.sleep(_REASON_SECONDS)
            reason = str(error).splitlines()[0]
            lost = f"lost contact with another process ({reason})"
            _say(_lost_message(lost, name_of))
        else:
            traceback.print_exc()
    lifeline.part(lost=here)
    _leave(status, lifeline)


def is_main_process() -> bool:
    """Whether this is process 0, the one that prints and writes; or the only one."""
    return jax.process_index() == 0


def broadcast(value: Plain) -> Plain:
    """Process 0's value, on all; every process has to call it.

    value: as JSON holds it; what the others give is not used.
    """
    if jax.process_count() == 1:
        return value
    return json.loads(_broadcast_bytes(json.dumps(value).encode()))


def broadcast_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Process 0's arrays, bit by bit, on all; every process has to call it.

    arrays: of any shapes and dtypes; what the others give is not used.
    """
    if jax.process_count() == 1:
        return arrays
    kinds = broadcast({k: (str(a.dtype), list(a.shape)) for k, a in arrays.items()})
    content = b""
    if is_main_process():
        content = b"".join(np.ascontiguousarray(arrays[k]).tobytes() for k in kinds)
    content, begin, shared = bytearray(_broadcast_bytes(content)), 0, {}
    for name, (dtype, shape) in kinds.items():
        # `jnp.dtype` knows bfloat16.
        kind, count = jax.numpy.dtype(dtype), int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(content, kind, count, begin)
        shared[name] = flat.reshape(shape)
        begin += flat.nbytes
    return shared


def check_same(what: str, value: Any) -> None:
    """Every process has to call it.

    Raises:
      InputError: the plain value is another one than that of process 0.
    """
    if broadcast(value) != value:
        raise InputError(
            f"its {what} are not those of process 0: give all processes the same "
            "settings, images and weights"
        )


def barrier() -> None:
    """Returns when every process has called it."""
    multihost_utils.sync_global_devices("barrier")


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The body runs in process 0, and then in the others: what the first one makes on
    a common disk, the others find."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def _initialize(config: DistributedConfig) -> None:
    named: tuple[Any, ...] = (
        config.coordinator, config.num_processes, config.process_id,
    )  # fmt: skip
    if config.detect and named != (None, None, None):
        raise InputError(
            "finds the other settings out; drop it or drop them",
            setting="distributed.detect",
        )
    if not config.detect and None in named:
        raise InputError(
            "`distributed.coordinator`, `distributed.num_processes` and "
            "`distributed.process_id` belong together: give all three, or "
            "`distributed.detect` alone"
        )
    if not config.detect:
        _check(*named)
    # `fit` saves on SIGTERM itself, on all processes at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *named,
            cluster_detection_method=None if config.detect else "deactivate",
            initialization_timeout=config.connect_seconds,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        raise InputError(
            f"JAX finds no cluster here ({error}); give `distributed.coordinator`, "
            "`distributed.num_processes` and `distributed.process_id`",
            setting="distributed.detect",
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"not all processes came together in {config.connect_seconds} s "
            f"({str(error).splitlines()[0]}); check that each runs and reaches "
            "`distributed.coordinator`"
        ) from error


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(
            "give HOST:PORT",
            setting="distributed.coordinator",
            value=coordinator,
        )
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"must be from 0 to {num_processes - 1}, for "
            f"`distributed.num_processes` {num_processes}",
            setting="distributed.process_id",
            value=process_id,
        )


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _this_process() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _connect(
    config: DistributedConfig, name_of: Callable[[str], str | None]
) -> Lifeline:
    """Joins the lifeline of the job; every process has to call it."""

    def lost(index: int) -> None:
        # Bars hide the cursor.
        cursor = "\x1b[?25h" if os.isatty(2) else ""
        # The other thread is somewhere inside JAX, its streams may be redirected.
        line = _lost_message(f"process {index} has ended", name_of)
        os.write(2, f"{cursor}{line}\n".encode())
        _leave(1, lifeline)

    lifeline = Lifeline(lost)
    host = (config.coordinator or "").rpartition(":")[0] or socket.getfqdn()
    token = secrets.token_hex(16)
    port = lifeline.listen(token) if is_main_process() else 0
    meeting: list[Any] = [host, port, token]
    host, port, token = broadcast(meeting)
    if not is_main_process():
        try:
            lifeline.connect(
                host.strip("[]"), port, index=jax.process_index(), token=token
            )
        except OSError as error:
            _say(
                f"{_this_process()}: no connection with {host}:{port} ({error}); "
                f"that another process ended may go unnoticed for "
                f"{config.heartbeat_seconds} s"
            )
    return lifeline


def _lost_message(what: str, name_of: Callable[[str], str | None]) -> str:
    error = InputError(
        f"{_this_process()}: {what}, its own output may say why; start all of them "
        "again, with `resume` to continue from the last checkpoint"
    )
    return f"error: {error.with_names(name_of)}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _leave(status: int, lifeline: Lifeline) -> NoReturn:
    """Ends the process without JAX's own exit, which waits for all the others."""
    sys.stdout.flush()
    lifeline.linger()
    os._exit(status)


def _broadcast_bytes(content: bytes) -> bytes:
    """Process 0's bytes. As bytes even arrays: sums would lose the sign of zeros."""
    size = int.from_bytes(_broadcast(len(content).to_bytes(8, "little")), "little")
    # Padded to one of few sizes: a program is compiled for each.
    padded = min(_CHUNK, 1 << max(size - 1, 0).bit_length())
    content = content.ljust(-(-size // padded) * padded, b"\0")
    starts = range(0, size, padded)
    return b"".join(_broadcast(content[s : s + padded]) for s in starts)[:size]


def _broadcast(content: bytes) -> bytes:
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(content, np.uint8))
    return np.asarray(sent).tobytes()
