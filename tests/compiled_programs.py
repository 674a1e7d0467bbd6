"""What is compiled while a test watches."""

import contextlib
import threading
from collections.abc import Iterator

import jax

from jaxvision import transfer
from jaxvision.training import loop


def forget_programs() -> None:
    """Forgets the steps that are kept: another test may have made equal ones."""
    loop._train_program.cache_clear()
    loop._eval_program.cache_clear()
    transfer._feature_program.cache_clear()


@contextlib.contextmanager
def compiled_programs() -> Iterator[list[tuple[str, str]]]:
    """(program, thread) of what is compiled within, or found in the cache on the
    disk."""
    found: list[tuple[str, str]] = []

    def listen(event: str, duration_secs: float, **about: str | int) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            found.append((str(about["fun_name"]), threading.current_thread().name))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
