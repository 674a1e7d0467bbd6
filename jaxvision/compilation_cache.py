"""Compiled programs are kept between runs, so that a second start is quick.

They lie in `xla/` of the cache folder (`JAXVISION_CACHE`, or `~/.cache/jaxvision`), may
be deleted at any time, and give the same numbers as what is compiled anew. jax's own
settings stand above ours: `JAX_COMPILATION_CACHE_DIR` for another folder,
`JAX_ENABLE_COMPILATION_CACHE=false` for none.

A program with a flipped bit may end the process that runs it, and jax does not look. So
beside each lies its SHA-256, written right after the program; at the start of a process
all are compared, and what does not agree is removed, to be compiled anew.
"""

import hashlib
import os
import platform
import threading
from pathlib import Path
from typing import Any

from jaxvision.errors import InputError
from jaxvision.storage import (
    cache_folder,
    file_sha256,
    remove_leftovers,
    remove_oldest,
    write_atomically,
)

_PROGRAM, _HASH = "-cache", ".sha256"
"""How the names of jax's files end, and what follows for their hashes."""

_COMPILED = "/jax/core/compile/backend_compile_duration"
"""What jax announces when a program was compiled and kept, or found."""

_WORTHWHILE_SECONDS = 0.1
"""Programs that compile faster are not kept: reading takes a tenth of that. jax's
default, a second, leaves out most of what a first step waits for."""

_folder: Path | None = None
"""Where this process keeps programs; None: nowhere, or where jax's settings say."""

_MOST_BYTES = 2 * 2**30
"""What the folder may hold. jax has a limit too, but a process that is killed while it
writes under that one makes all later writes fail."""


def use_compilation_cache() -> str | None:
    """Lets jax keep compiled programs in the cache folder; before anything is compiled.

    Several processes may use it at once: a program that another one is still writing
    is compiled here too.

    Returns:
      Why none is used, in words, where the folder can't be trusted or written to; else
      None.
    """
    import jax

    global _folder
    settings: Any = jax.config  # its annotations name none of its settings
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return None
    folder = cache_folder() / "xla" / _processor()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _others_may_write(folder):
            return f"others may write to {folder}, and what lies there is executed"
        _remove_damaged(folder)
        remove_oldest(folder, _MOST_BYTES)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        settings.update(
            "jax_persistent_cache_min_compile_time_secs", _WORTHWHILE_SECONDS
        )
    settings.update("jax_compilation_cache_dir", str(folder))
    _folder = folder
    shortest = settings.jax_persistent_cache_min_compile_time_secs
    lock = threading.Lock()

    def hash_new(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and duration_secs >= shortest:
            with lock:
                _hash_new(folder)

    jax.monitoring.register_event_duration_secs_listener(hash_new)
    return None


def is_used() -> bool:
    """Whether this process keeps compiled programs in the cache folder."""
    return _folder is not None


def read_kept(name: str) -> bytes | None:
    """What was kept under a name beside the programs; None: nothing that is whole."""
    if _folder is None:
        return None
    try:
        content = (_folder / name).read_bytes()
        digest = (_folder / f"{name}{_HASH}").read_bytes()
    except OSError:
        return None
    whole = digest == hashlib.sha256(content).hexdigest().encode()
    return content if whole else None


def keep(name: str, content: bytes) -> None:
    """Keeps bytes beside the programs, where these are kept and there is room."""
    if _folder is None:
        return
    digest = hashlib.sha256(content).hexdigest()
    try:
        write_atomically(_folder / name, content)
        write_atomically(_folder / f"{name}{_HASH}", digest.encode())
    except (OSError, InputError):
        return  # as for programs


def _remove_damaged(folder: Path) -> None:
    """Removes programs that are not what their hashes say, or have none, and what
    killed processes left."""
    remove_leftovers(folder)
    names = {path.name for path in folder.iterdir()}
    for name in names:
        program, digest = folder / name, folder / f"{name}{_HASH}"
        if name.endswith(_HASH):
            if name.removesuffix(_HASH) not in names:
                program.unlink(missing_ok=True)
            continue
        try:
            # Of bytes: damage may leave no text.
            used = program.stat()
            whole = digest.read_bytes() == file_sha256(program).encode()
            # Looking is no use, see `storage.remove_oldest`.
            os.utime(program, ns=(used.st_atime_ns, used.st_mtime_ns))
        except FileNotFoundError:  # no hash, or another process is at the same
            whole = False
        if not whole:
            program.unlink(missing_ok=True)
            digest.unlink(missing_ok=True)


def _hash_new(folder: Path) -> None:
    """Writes the hashes of programs that have none."""
    try:
        names = {path.name for path in folder.iterdir()}
        for name in names:
            if name.endswith(_PROGRAM) and f"{name}{_HASH}" not in names:
                digest = file_sha256(folder / name)
                write_atomically(folder / f"{name}{_HASH}", digest.encode())
    except (OSError, InputError):
        # The next process removes what has no hash, and compiles it.
        return


def _processor() -> str:
    """Tells processors apart: machine code of another one may be illegal on this."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        abilities = platform.processor()
    else:
        lines = cpuinfo.read_text(errors="replace").splitlines()
        # Of x86 and of ARM.
        known = ("model name", "flags", "CPU part", "Features")
        abilities = "\n".join(sorted({x for x in lines if x.startswith(known)}))
    digest = hashlib.sha256(abilities.encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"


def _others_may_write(folder: Path) -> bool:
    if not hasattr(os, "getuid"):  # Windows
        return False
    status = folder.stat()
    return status.st_uid != os.getuid() or bool(status.st_mode & 0o022)
