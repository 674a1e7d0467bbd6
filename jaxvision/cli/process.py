"""How every command begins and ends, as a process."""

import atexit
import contextlib
import errno
import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxvision.errors import exit_on_input_error
from jaxvision.report.formats import format_line

_FIXES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        "free some space where output and files go",
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "fix the permissions, or give another place",
    ),
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What helps against what the system refuses, wherever it does."""

_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Who gets large pages on Linux: `[always]`, `[never]`, or who asks, `[madvise]`."""


@contextlib.contextmanager
def command(
    name_of: Callable[[str], str | None], *, interrupted: str = "interrupted"
) -> Iterator[None]:
    """Around a whole command: streams, signals and the exit status.

    Bad input ends with one line on stderr and status 2, and so does what the system
    refuses, such as writing to a full disk, be it stdout's; Ctrl-C ends with status
    130, a closed pipe quietly with status 141. A hang-up stops training as SIGTERM
    does.

    Args:
      name_of: setting -> its flag; None: it has none.
      interrupted: printed on Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files need not be text.
            stream.reconfigure(errors="backslashreplace")
    _collect_rarely()
    _terminate_on_hang_up()
    try:
        with exit_on_input_error(name_of):
            try:
                yield
            finally:
                if sys.stdout is not None:  # closed by whoever started the command
                    sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        _discard_stdout()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.errno not in _FIXES:
            raise
        _discard_stdout()
        where = "" if error.filename is None else f"{error.filename}: "
        what = format_line(f"{where}{error.strerror}: {_FIXES[error.errno]}")
        print(f"error: {what}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None


def use_large_pages() -> None:
    """Begins the program of this process anew, with large pages for large arrays: a
    training step of a deep network takes a third less processor time.

    glibc reads the setting before Python starts. Nothing happens where it is set
    already, where the system gives large pages to all or to nobody, and within another
    program, such as a test or a debugger.
    """
    setting, given = "GLIBC_TUNABLES", sys.orig_argv[1:]
    inside = (
        sys.gettrace() is not None
        or threading.active_count() > 1
        or sys.argv[0] in ("", "-")  # a script that was read from standard input
        or given[len(given) - len(sys.argv) + 1 :] != sys.argv[1:]
    )
    if setting in os.environ or inside or not sys.executable:
        return
    try:
        asked = "[madvise]" in _LARGE_PAGES.read_text("ascii")
        glibc = "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, OSError, ValueError):  # another system or C library
        return
    if asked and glibc:
        os.environ[setting] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *given])


def keep_compiled() -> None:
    """Keeps what is compiled for the next run, or prints why not."""
    from jaxvision.compilation_cache import use_compilation_cache

    if (problem := use_compilation_cache()) is not None:
        print(f"compiled programs are not kept: {problem}", file=sys.stderr)


def _collect_rarely() -> None:
    """Lets Python search for garbage in cycles less often, and not at the end: modules
    and traces are millions of objects that stay, and to search them is a sixth of what
    predicting an image takes."""
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)


def _terminate_on_hang_up() -> None:
    if not hasattr(signal, "SIGHUP"):  # Windows
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def _discard_stdout() -> None:
    """What is left in its buffers is for nobody."""
    if sys.stdout is not None:  # as it is where it was closed
        with contextlib.suppress(io.UnsupportedOperation):  # no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    """Whether whoever read stdout or stderr has closed it."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
