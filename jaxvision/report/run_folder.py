"""The folder that a run writes into, `runs/<experiment>/<time>/`.

    run.json       experiment, command and time, written when the folder is made
    config.json    settings
    history.jsonl  one row an epoch; history.csv holds the same for spreadsheets
    results.json   figures with mean, sd, n and seeds; written once, at the end
    *.png, *.csv   figures and tables
    tensorboard/   events, if asked for

Every file but the growing history is replaced as a whole, so that a run which is
killed never leaves half of one. What cannot be written is an `InputError` that names
the folder.
"""

import dataclasses
import io
import itertools
import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import jaxvision
from jaxvision.config import to_plain
from jaxvision.errors import InputError
from jaxvision.report.formats import format_count, format_mean_sd
from jaxvision.storage import (
    csv_text,
    remove_leftovers,
    write_atomically,
    write_json,
    writing,
)
from jaxvision.typing import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxvision.data.dataset import DecodedDataset

VERSIONED = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "pillow",
)
"""Distributions whose versions a run records, beside Python's and our own."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One figure of a report, measured once for each seed.

    name: what a reader looks it up by, unique in a run.
    values: one for each of `seeds`.
    unit: "accuracy" (0 to 1) or any other, such as "s".
    split: the part of the data it was measured on.
    data: the data set, where it is not the run's.
    table, row, metric: what it is of; published figures are looked up by them. A run
        of one table or one row has no name for it.
    """

    name: str
    values: Sequence[float]
    seeds: Sequence[int]
    unit: str = "accuracy"
    split: str = "test"
    data: str | None = None
    table: str = ""
    row: str = ""
    metric: str = ""

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.seeds):
            raise ValueError(
                f"{self.name}: {len(self.values)} values for {len(self.seeds)} seeds"
            )

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n − 1 in the denominator); None for one value."""
        if len(self.values) == 1:
            return None
        if not all(map(math.isfinite, self.values)):
            return math.nan
        return statistics.stdev(self.values)


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """The data set of a run, as its report names it."""

    name: str
    root: str | Path
    is_demo: bool
    num_images: int
    classes: Sequence[str]
    num_bad: int = 0
    """Images that cannot be read, beside `num_images`."""

    @classmethod
    def of(cls, dataset: "DecodedDataset") -> Self:
        return cls(
            dataset.name,
            dataset.root,
            dataset.is_demo,
            len(dataset.images),
            dataset.classes,
            len(dataset.bad),
        )


class HistoryCallback:
    """Writes the epochs of `jaxvision.training.loop.fit` into a run folder as they end;
    those that a resumed run does again are dropped first.

    seed: stands in each row, where a run trains once for each of several seeds.
    """

    def __init__(self, run_folder: "RunFolder", *, seed: int | None = None) -> None:
        self._run_folder, self._seed = run_folder, seed

    def on_start(
        self,
        total_epochs: int,
        steps_per_epoch: int,
        start_step: int,
        num_examples: int,
    ) -> None:
        self._run_folder.truncate_history(
            start_step // steps_per_epoch, seed=self._seed
        )

    def on_step(self, step: int, images: int, metrics: Row | None) -> None: ...

    def on_epoch_end(self, row: Row) -> None:
        seed = {} if self._seed is None else {"seed": self._seed}
        self._run_folder.append_history({**seed, **row})

    def on_finish(self, reason: str) -> None: ...


class RunFolder:
    """Made by `RunFolder.create` for a new run, by `RunFolder.open` for one that is
    there already."""

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        self.path = path
        run = json.loads((path / "run.json").read_text("utf-8"))
        self.experiment: str = run["experiment"]
        self.command: str = run["command"]
        self._history_columns: list[str] | None = None
        self._events = _event_writer_class() if tensorboard else None
        self._writers: dict[float | None, Any] = {}

    @classmethod
    def create(
        cls,
        experiment: str,
        *,
        root: Path = Path("runs"),
        name: str | None = None,
        command: str | None = None,
        networks: Path | None = None,
        tensorboard: bool = False,
    ) -> "RunFolder":
        """Makes `root/experiment/name` and writes `run.json` into it.

        name: default is the time, with a number where two begin in one second.
        command: default is the command line of this process.
        networks: where a folder for its networks is made as well, of the same name;
          neither of the two was there before.
        tensorboard: also write the history as events.

        Raises InputError: `name` is taken or no plain name, the folder can't be
        written, or tensorboardX is not installed.
        """
        if tensorboard:
            _event_writer_class()
        parent = root / experiment
        now = datetime.now().astimezone()
        if networks is not None:
            with writing(networks):
                networks.mkdir(parents=True, exist_ok=True)
        with writing(parent):
            parent.mkdir(parents=True, exist_ok=True)
            path = _new_folder(parent, name, now, networks)
        write_json(
            path / "run.json",
            {
                "experiment": experiment,
                "command": command or command_line(),
                "started": now.isoformat(timespec="seconds"),
            },
        )
        return cls(path, tensorboard=tensorboard)

    @classmethod
    def open(cls, path: Path, *, tensorboard: bool = False) -> "RunFolder":
        """The folder of an earlier run, to resume or to read.

        Raises InputError: there is none at `path`, or tensorboardX is not installed.
        """
        if not (path / "run.json").is_file():
            raise InputError(
                f"{path} is no run folder (it has no run.json); give the folder that "
                "the run printed as its last line"
            )
        remove_leftovers(path)
        return cls(path, tensorboard=tensorboard)

    def write_config(self, config: Any) -> None:
        """The config, a dataclass or a dict of plain values, as `config.json`."""
        write_json(self.path / "config.json", to_plain(config))

    def read_config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text("utf-8"))

    def append_history(self, row: Mapping[str, float]) -> None:
        """Adds one epoch; it is on the disk when this returns.

        Values that are not finite are kept as an empty field and read as NaN.
        """
        if self._history_columns is None:
            # Also fixes a last line that a killed run left half written.
            self._write_history(self.read_history())
        assert self._history_columns is not None
        if new := [name for name in row if name not in self._history_columns]:
            self._history_columns += new
            self._write_history([*self.read_history(), dict(row)])
        else:
            _append(self.path / "history.jsonl", _json_line(row))
            _append(
                self.path / "history.csv",
                csv_text([[_field(row.get(name)) for name in self._history_columns]]),
            )
        self._write_events(row)

    def truncate_history(self, last_epoch: int, *, seed: int | None = None) -> None:
        """Drops the epochs after `last_epoch`, which a resumed run does again; only
        those of `seed`, if given."""
        rows = [
            row
            for row in self.read_history()
            if row["epoch"] <= last_epoch or row.get("seed") != seed
        ]
        self._history_columns = None
        self._write_history(rows)

    def read_history(self, *, seed: int | None = None) -> list[Row]:
        """All whole rows in the order in which they were written; only those of
        `seed`, if given."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        whole, _, _ = path.read_text("utf-8").rpartition("\n")
        rows = [
            {k: math.nan if v is None else v for k, v in json.loads(line).items()}
            for line in whole.splitlines()
        ]
        return [row for row in rows if seed is None or row.get("seed") == seed]

    def save_figure(self, name: str, figure: "Figure") -> Path:
        """Writes `<name>.png`; returns its path."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return self._write(f"{name}.png", buffer.getvalue())

    def write_csv(
        self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> Path:
        """Writes `<name>.csv`; returns its path. File names that are no valid UTF-8
        keep their bytes (read them with errors="surrogateescape")."""
        text = csv_text([header, *rows])
        return self._write(f"{name}.csv", text.encode("utf-8", "surrogateescape"))

    def write_text(self, name: str, text: str) -> Path:
        """Writes `text` into the file `name` as UTF-8; returns its path."""
        return self._write(name, text.encode("utf-8", "backslashreplace"))

    def write_results(
        self,
        measurements: Sequence[Measurement],
        *,
        data: DataSummary,
        seconds: float,
        headline: Sequence[str] = (),
        devices: Sequence[str] | None = None,
    ) -> Path:
        """Writes `results.json`, from which reports and other programs read.

        seconds: duration of the run.
        headline: names of the figures that matter most; none: all.
        devices: kinds of the devices it ran on, as `jax.Device.device_kind` has them;
          default: those of this process.
        """
        if devices is None:
            import jax  # slow to load, and most of a run folder does without

            devices = [device.device_kind for device in jax.local_devices()]
        names = [measurement.name for measurement in measurements]
        if len(set(names)) != len(names):
            raise ValueError(f"two measurements of one name among {names}")
        figures = {
            m.name: {
                "mean": m.mean,
                "sd": m.sd,
                "n": len(m.values),
                "seeds": list(m.seeds),
                "values": list(m.values),
                "unit": m.unit,
                "split": m.split,
                "data": m.data or data.name,
                "table": m.table,
                "row": m.row,
                "metric": m.metric,
            }
            for m in measurements
        }
        versions, machine = environment(devices)
        results = {
            "experiment": self.experiment,
            "command": self.command,
            "data": data,
            "headline": headline,
            "figures": figures,
            "versions": versions,
            "machine": machine,
            "seconds": seconds,
        }
        return write_json(self.path / "results.json", to_plain(results))

    def read_results(self) -> dict[str, Any]:
        """What `write_results` wrote.

        Raises InputError: the run has not finished.
        """
        path = self.path / "results.json"
        if not path.is_file():
            raise InputError(
                f"{self.path} has no results.json: the run has not finished; continue "
                "it with `resume`"
            )
        return json.loads(path.read_text("utf-8"))

    def close(self) -> None:
        """Ends the TensorBoard files, if there are any."""
        while self._writers:
            self._writers.popitem()[1].close()

    def _write(self, name: str, content: bytes) -> Path:
        path = self.path / name
        write_atomically(path, content)
        return path

    def _write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        columns = self._history_columns or list(dict.fromkeys(itertools.chain(*rows)))
        self._history_columns = columns
        self.write_text("history.jsonl", "".join(map(_json_line, rows)))
        lines = [[_field(row.get(name)) for name in columns] for row in rows]
        self.write_text("history.csv", csv_text([columns, *lines] if columns else []))

    def _write_events(self, row: Mapping[str, float]) -> None:
        if self._events is None:
            return
        step, seed = int(row["step"]), row.get("seed")
        with writing(self.path):
            if seed not in self._writers:
                folder = self.path / "tensorboard"
                logdir = folder if seed is None else folder / f"seed{seed}"
                # Events of a killed run after this step are hidden by purge_step.
                self._writers[seed] = self._events(str(logdir), purge_step=step)
            writer = self._writers[seed]
            for name, value in row.items():
                if name not in ("step", "seed"):
                    split, _, metric = name.partition("_")
                    known = split in ("train", "val", "test")
                    tag = f"{metric}/{split}" if known else f"run/{name}"
                    writer.add_scalar(tag, value, step)
            writer.flush()


def print_run(
    run: RunFolder,
    measurements: Sequence[Measurement] = (),
    *,
    is_demo: bool = False,
    checkpoint: Path | None = None,
) -> None:
    """Prints figures, where what was trained and the report are and, as the last line,
    the run folder."""
    demo = " (demo data)" if is_demo else ""
    for one in measurements:
        spread = format_mean_sd(one.mean, one.sd)
        print(f"{one.name}: {spread}, {format_count(len(one.values), 'seed')}{demo}")
    if checkpoint is not None:
        print(f"checkpoint: {checkpoint}")
    print(f"report: {run.path / 'report.md'}")
    print(run.path)


def folder_name(row: str) -> str:
    """A row's name as that of a folder."""
    return re.sub(r"[^\w.]+", "-", row)


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by dotted names, those of its recipe, of the network and of
    the experiment by their own: `{"optim.learning_rate": 0.001, "hidden": 300}`.

    config: as in `config.json`.
    """
    config = dict(config)
    recipe = dict(config.pop("recipe", None) or {})
    network = recipe.pop("options", None) or {}
    return flatten(config | recipe | network | (config.pop("options", None) or {}))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, such as `optim.learning_rate`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def environment(
    devices: Sequence[str] = (),
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Versions of Python and of what we stand on (None where not installed), and the
    machine: platform, processor, cores that this process may use, devices, commit."""
    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "jaxvision": jaxvision.__version__,
    }
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    machine = {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": _usable_cores(),
        "devices": list(devices),
        "git_commit": _git_commit(),
    }
    return versions, machine


def command_line() -> str:
    """The command that started this process, ready to be pasted into a shell."""
    arguments = sys.orig_argv[1:] or sys.argv
    if Path(arguments[0]).name == "jaxvision":
        return shlex.join(["jaxvision", *arguments[1:]])
    return shlex.join(["python", *arguments])


def _new_folder(
    parent: Path, name: str | None, now: datetime, networks: Path | None
) -> Path:
    if name is not None:
        if Path(name).name != name:
            raise InputError(f"{name!r} is no name for a run: give one without slashes")
        path = parent / name
        if not _made(path, networks):
            raise InputError(
                f"{path} is there already; choose another name, or continue it with "
                "`resume`"
            )
        return path
    stamp = now.strftime("%Y%m%d-%H%M%S")
    numbered = (f"{stamp}-{number}" for number in itertools.count(2))
    for name in itertools.chain([stamp], numbered):
        if _made(parent / name, networks):
            return parent / name
    raise AssertionError("unreachable")


def _made(path: Path, networks: Path | None) -> bool:
    """Makes a folder, and one of the same name in `networks`; False where one of them
    is there already, then none is made."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    if networks is None:
        return True
    with writing(networks):
        try:
            (networks / path.name).mkdir()
        except OSError as error:
            path.rmdir()
            if isinstance(error, FileExistsError):
                return False
            raise
    return True


def _append(path: Path, text: str) -> None:
    with writing(path.parent), open(path, "a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _json_line(row: Mapping[str, float]) -> str:
    return json.dumps(to_plain(row), allow_nan=False) + "\n"


def _field(value: float | None) -> float | str:
    return "" if value is None or not math.isfinite(value) else to_plain(value)


def _event_writer_class() -> type:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError(
            "TensorBoard events need tensorboardX: "
            "pip install 'jaxvision-classics[tensorboard]'"
        ) from None
    return SummaryWriter


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with `+changes` where files
    differ from it; None where the package was installed or git is missing."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.check_output(
        command, text=True, stderr=subprocess.DEVNULL, timeout=5
    ).strip()
