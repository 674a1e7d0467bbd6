"""A training run that is killed again and again, beside one that is left alone.

python -m benchmarks.kills --kills 20 --processes 1
python -m benchmarks.kills --kills 20 --processes 2

Trains `experiments.part2_mlp` on drawn faces, which saves after every step. One of its
processes, chosen at random, gets SIGKILL at a random moment; the others have to end by
themselves; all are started again with `--resume`. In the end all that was saved last,
parameters, statistics, optimizer and key, has to be that of the undisturbed run, bit by
bit.
"""

import dataclasses
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxvision.cli.flags import run
from jaxvision.training.checkpoint import CheckpointFolder

REPOSITORY = Path(__file__).resolve().parents[1]
EXPERIMENT = "part2_mlp"
PATIENCE_SECONDS = 600.0
"""After which a process that should have saved or ended counts as hung."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How often, and how many processes that train together."""

    kills: int = 20
    """Kills before the run is left to end."""
    processes: int = 1
    """Processes, with two forced CPU devices each where there are several."""
    epochs: int = 40
    """Of the run."""
    seed: int = 0
    """Of the moments and of the choice of the process."""


class Job:
    """The processes of one start; they work in one folder."""

    def __init__(self, folder: Path, options: Options, resume: Path | None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            coordinator = f"127.0.0.1:{free.getsockname()[1]}"
        self.logs = [folder / f"process-{i}.log" for i in range(options.processes)]
        self.processes = []
        for index, log in enumerate(self.logs):
            with log.open("w") as file:
                command = _command(options, index, coordinator, resume)
                self.processes.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
                        env=_environment(options),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def running(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def wait(self) -> list[int]:
        """Exit statuses; a process that does not end is a failure."""
        end = time.monotonic() + PATIENCE_SECONDS
        return [
            process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes
        ]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def train(folder: Path, options: Options, resume: Path | None = None) -> Path:
    """Trains to the end; the run's checkpoint folder."""
    job = Job(folder, options, resume)
    try:
        statuses = job.wait()
    finally:
        job.close()
    if any(statuses):
        raise SystemExit(f"ended with {statuses}:\n{job.logs[0].read_text()}")
    return _run(folder)


def train_killed(
    folder: Path, options: Options, steps: int
) -> tuple[Path, list[float]]:
    """The same with kills, spread over its steps; and the seconds until the other
    processes had ended."""
    rng = random.Random(options.seed)
    resume, ends = None, []
    for number in range(options.kills):
        job = Job(folder, options, resume)
        try:
            part = (number + rng.random()) / options.kills
            _wait_for_step(job, folder, int(0.95 * part * steps))
            time.sleep(rng.uniform(0.0, 0.1))
            victim = rng.choice(job.processes)
            victim.send_signal(signal.SIGKILL)
            began = time.monotonic()
            statuses = job.wait()
            ends.append(time.monotonic() - began)
        finally:
            job.close()
        if 0 in statuses:
            raise SystemExit(
                f"kill {number + 1}: the run had ended; give more --epochs"
            )
        resume = _run(folder)
        others = [
            s for p, s in zip(job.processes, statuses, strict=True) if p != victim
        ]
        print(f"kill {number + 1}: step {_saved(folder)}, others {others}", flush=True)
    return train(folder, options, resume), ends


def differences(one: Path, other: Path) -> list[str]:
    """Names of the arrays of the last entries that are not the same bits."""
    entries = [CheckpointFolder(path / "seed-0").load("last") for path in (one, other)]
    first, second = (entry.arrays if entry else {} for entry in entries)
    if not first:
        raise SystemExit("nothing was saved")
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first
        or name not in second
        or first[name].tobytes() != second[name].tobytes()
    ]


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        alone, killed = Path(temporary, "alone"), Path(temporary, "killed")
        for folder in (alone, killed):
            folder.mkdir()
        whole = train(alone, options)
        step = _saved(alone)
        survivor, ends = train_killed(killed, options, step)
        different = differences(whole, survivor)
    print(
        f"{options.processes} process(es), {options.kills} kills, {step} steps: "
        + (f"{len(different)} arrays differ" if different else "the same bits")
    )
    if options.processes > 1:
        print(
            "seconds until the others had ended: "
            f"median {statistics.median(ends):.2f}, longest {max(ends):.2f}"
        )
    if different:
        raise SystemExit(1)


def _command(
    options: Options, index: int, coordinator: str, resume: Path | None
) -> list[str]:
    command = [sys.executable, "-m", f"experiments.{EXPERIMENT}"]
    if resume is None:
        command += ["--epochs", str(options.epochs), "--seeds", "0"]
        command += ["--save-seconds", "0"]
    else:
        command += ["--resume", str(resume)]
    if options.processes > 1:
        command += ["--distributed.coordinator", coordinator]
        command += ["--distributed.num-processes", str(options.processes)]
        command += ["--distributed.process-id", str(index)]
    return command


def _environment(options: Options) -> dict[str, str]:
    devices = 2 if options.processes > 1 else 1
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }


def _run(folder: Path) -> Path:
    """The one run that was started in the folder."""
    (run,) = (folder / "checkpoints" / EXPERIMENT).iterdir()
    return run


def _saved(folder: Path) -> int:
    """Step of the newest entry; -1 where there is none yet."""
    entries = folder.glob(f"checkpoints/{EXPERIMENT}/*/seed-0/last-*")
    return max((int(entry.name.split("-")[1]) for entry in entries), default=-1)


def _wait_for_step(job: Job, folder: Path, step: int) -> None:
    """Returns when the step, and something new, has been saved."""
    step, end = max(step, _saved(folder) + 1), time.monotonic() + PATIENCE_SECONDS
    while job.running() and _saved(folder) < step:
        if time.monotonic() > end:
            raise SystemExit(f"nothing was saved:\n{job.logs[0].read_text()}")
        time.sleep(0.01)


if __name__ == "__main__":
    run(Options, main, None, "python -m benchmarks.kills", __doc__)
