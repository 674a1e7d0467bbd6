"""Kills the preparation of a set at random moments, and compares what comes of it.

    python -m benchmarks.kill_prepare --root DIR --kills 20

The set is prepared once undisturbed. Then once more, killed (SIGKILL) after times drawn
at random and started again each time: what is there at the end must be the same to the
bit, no worker process may outlive its parent, and no finished shard be done twice.
"""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from jaxvision.cli.flags import run
from jaxvision.config import Bounds, check
from jaxvision.errors import InputError
from jaxvision.storage import MANIFEST, find_damage

SECONDS_TO_DIE = 5.0
"""In which the workers of a killed process must be gone."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare, and how often it is killed."""

    root: Path
    """Folder with one subfolder per class."""
    kills: Annotated[int, Bounds(1)] = 20
    """Kills before it is left to end."""
    seed: int = 0
    """Of the moments."""
    processes: Annotated[int, Bounds(1)] = 2
    """That decode."""
    shard: Annotated[int, Bounds(1)] = 64
    """Images a shard."""


def main(options: Options) -> None:
    """Prints one line a kill and a verdict; status 1 if anything was lost."""
    check(options)
    with tempfile.TemporaryDirectory() as folder:
        ok = _measure(options, Path(folder))
    raise SystemExit(0 if ok else 1)


def _measure(options: Options, folder: Path) -> bool:
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    if _start(options, whole).wait():
        raise InputError(f"{options.root}: cannot be prepared even undisturbed")
    seconds = time.monotonic() - began
    print(f"undisturbed: {seconds:.1f} s")
    rng = random.Random(options.seed)
    orphans = redone = number = sets = 0
    before: dict[str, int] = {}
    while number < options.kills:
        process = _start(options, killed)
        # A set survives a few of them, and is done between two of them in the end.
        wait = rng.uniform(0.1, 0.7) * seconds
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            workers = _children(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            number += 1
            orphans += _alive_after(workers, SECONDS_TO_DIE)
            shards = _shards(folder)
            redone += sum(shards.get(n, when) != when for n, when in before.items())
            before = shards
            print(f"kill {number} after {wait:.1f} s: {len(shards)} shards are there")
        else:
            # Done between two kills: the rest of them begin anew.
            if not _same(whole, killed):
                print("DIFFERENT")
                return False
            print("whole, and the same to the bit; once more from nothing")
            sets, before = sets + 1, {}
            killed = folder / f"killed{sets}"
    if _start(options, killed).wait():
        return False
    same = _same(whole, killed)
    print(
        f"{options.kills} kills: {'the same to the bit' if same else 'DIFFERENT'}; "
        f"{orphans} workers outlived their parent, {redone} shards were done again"
    )
    return same and not orphans and not redone


def _start(options: Options, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxvision", "data", "prepare"]
    command += [str(options.root), str(out), "--size", "96", "--gray"]
    command += ["--shard", str(options.shard), "--processes", str(options.processes)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _same(whole: Path, killed: Path) -> bool:
    if find_damage(killed):
        return False
    manifests = [json.loads((p / MANIFEST).read_text()) for p in (whole, killed)]
    return manifests[0] == manifests[1]


def _shards(folder: Path) -> dict[str, int]:
    """When each finished shard was written, by its name."""
    done = folder.glob(".killed*.partial/done/*.json")
    return {str(path): path.stat().st_mtime_ns for path in done}


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _alive_after(pids: list[int], seconds: float) -> int:
    end = time.monotonic() + seconds
    alive = pids
    while alive and time.monotonic() < end:
        time.sleep(0.05)
        alive = [pid for pid in alive if Path(f"/proc/{pid}/status").exists()]
    return len(alive)


if __name__ == "__main__":
    run(Options, main, None, "python -m benchmarks.kill_prepare", __doc__)
