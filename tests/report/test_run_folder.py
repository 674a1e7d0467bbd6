"""Run folders: what is in them, resuming, and what goes wrong with disks."""

import csv
import dataclasses
import enum
import errno
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxvision.config import to_plain
from jaxvision.errors import InputError
from jaxvision.report import run_folder
from jaxvision.report.run_folder import (
    DataSummary,
    HistoryCallback,
    Measurement,
    RunFolder,
    command_line,
    environment,
)
from jaxvision.storage import write_atomically

DATA = DataSummary("faces", Path("data/faces"), True, 12, ("ada", "bo|b"))


def row(epoch: int, loss: float = 0.5) -> dict[str, float]:
    return {"epoch": epoch, "step": 10 * epoch, "train_loss": loss, "val_accuracy": 0.7}


def csv_rows(folder: RunFolder) -> list[dict[str, str]]:
    with open(folder.path / "history.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_folders_of_one_second_differ(tmp_path: Path) -> None:
    made = [RunFolder.create("mlp", root=tmp_path).path for _ in range(4)]
    assert len(set(made)) == 4
    assert all(path.parent == tmp_path / "mlp" and path.is_dir() for path in made)


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    assert RunFolder.create("mlp", root=tmp_path, name="a").path.name == "a"
    with pytest.raises(InputError, match=r"mlp/a is there already; choose another"):
        RunFolder.create("mlp", root=tmp_path, name="a")


@pytest.mark.parametrize("name", ["../a", "a/b", "/a", "..", ""])
def test_a_name_stays_below_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        RunFolder.create("mlp", root=tmp_path, name=name)


def test_open_finds_the_first_command(tmp_path: Path) -> None:
    made = RunFolder.create("mlp", root=tmp_path, command="python -m mlp --lr .1")
    opened = RunFolder.open(made.path)
    assert opened.command == "python -m mlp --lr .1"
    assert opened.experiment == "mlp"


def test_open_needs_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        RunFolder.open(tmp_path)


class Schedule(enum.Enum):
    COSINE = "cosine"


@dataclasses.dataclass(frozen=True)
class Inner:
    root: Path = Path("a/b")
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Config:
    inner: Inner = dataclasses.field(default_factory=Inner)
    schedule: Schedule = Schedule.COSINE
    rate: float = 1e-3
    limit: float = math.inf
    name: str | None = None
    scale: float = np.float32(0.5)
    parts: frozenset[str] = frozenset({"head", "backbone"})


def test_config_becomes_plain_values(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    folder.write_config(Config())
    assert folder.read_config() == {
        "inner": {"root": "a/b", "sizes": [1, 2]},
        "schedule": "cosine",
        "rate": 1e-3,
        "limit": None,
        "name": None,
        "scale": 0.5,
        "parts": ["backbone", "head"],
    }


def test_config_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="no plain value"):
        to_plain({"a": [object()]})


def test_history_in_both_files(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    assert folder.read_history() == []
    for epoch in (1, 2):
        folder.append_history(row(epoch, loss=1 / 3))
    assert folder.read_history() == [row(1, 1 / 3), row(2, 1 / 3)]
    assert [float(line["train_loss"]) for line in csv_rows(folder)] == [1 / 3, 1 / 3]
    assert list(csv_rows(folder)[0]) == list(row(1))


def test_history_with_a_new_column_and_nan(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    folder.append_history(row(1))
    folder.append_history({**row(2, math.nan), "test_accuracy": np.float32(0.5)})
    first, second = folder.read_history()
    assert first == row(1)
    assert math.isnan(second["train_loss"])
    assert [line["test_accuracy"] for line in csv_rows(folder)] == ["", "0.5"]
    assert "NaN" not in (folder.path / "history.jsonl").read_text()


def test_resumed_history_has_each_epoch_once(tmp_path: Path) -> None:
    path = RunFolder.create("mlp", root=tmp_path).path
    before = RunFolder.open(path)
    for epoch in (1, 2, 3):
        before.append_history(row(epoch))
    resumed = RunFolder.open(path)
    resumed.truncate_history(1)
    resumed.append_history(row(2, 0.25))
    assert resumed.read_history() == [row(1), row(2, 0.25)]
    assert [line["epoch"] for line in csv_rows(resumed)] == ["1", "2"]


def test_half_a_line_is_fixed(tmp_path: Path) -> None:
    path = RunFolder.create("mlp", root=tmp_path).path
    RunFolder.open(path).append_history(row(1))
    for name in ("history.jsonl", "history.csv"):
        with open(path / name, "a") as file:
            file.write('{"epoch": 2, "tr')
    resumed = RunFolder.open(path)
    assert resumed.read_history() == [row(1)]
    resumed.append_history(row(2))
    assert resumed.read_history() == [row(1), row(2)]
    assert [line["epoch"] for line in csv_rows(resumed)] == ["1", "2"]


def test_histories_of_several_seeds(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    for seed in (0, 1):
        callback = HistoryCallback(folder, seed=seed)
        callback.on_start(2, 10, 0, 100)
        for epoch in (1, 2):
            callback.on_epoch_end(row(epoch))
    resumed = HistoryCallback(RunFolder.open(folder.path), seed=1)
    resumed.on_start(2, 10, 15, 100)
    resumed.on_epoch_end(row(2, 0.25))
    assert folder.read_history(seed=0) == [{"seed": 0, **row(e)} for e in (1, 2)]
    second = [{"seed": 1, **row(1)}, {"seed": 1, **row(2, 0.25)}]
    assert folder.read_history(seed=1) == second
    assert [line["seed"] for line in csv_rows(folder)] == ["0", "0", "1", "1"]


def test_history_of_one_seed_has_no_seed(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    callback = HistoryCallback(folder)
    callback.on_start(2, 10, 0, 100)
    callback.on_epoch_end(row(1))
    callback.on_epoch_end(row(2))
    callback.on_start(2, 10, 10, 100)
    assert folder.read_history() == [row(1)]


def test_measurement() -> None:
    three = Measurement("a", [0.8, 0.9, 1.0], [0, 1, 2])
    assert three.mean == pytest.approx(0.9)
    assert three.sd == pytest.approx(0.1)
    assert Measurement("a", [0.8], [0]).sd is None
    broken = Measurement("a", [0.8, math.nan], [0, 1])
    assert math.isnan(broken.mean)
    assert broken.sd is not None
    assert math.isnan(broken.sd)
    for values, seeds in (([], []), ([0.5], [0, 1])):
        with pytest.raises(ValueError, match="values for"):
            Measurement("a", values, seeds)


def test_results(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path, command="python -m mlp")
    with pytest.raises(InputError, match="has not finished"):
        folder.read_results()
    folder.write_results(
        [
            Measurement("accuracy", [0.5, 1.0], [0, 1]),
            Measurement("blurred", [0.25], [0], data="faces, blurred"),
            Measurement("lost", [math.nan], [0]),
        ],
        data=DATA,
        seconds=12.5,
        devices=["TFRT_CPU"],
    )
    results = folder.read_results()
    assert list(results) == [
        "experiment", "command", "data", "headline", "figures", "versions", "machine",
        "seconds",
    ]  # fmt: skip
    assert results["command"] == "python -m mlp"
    assert results["data"] == {
        "name": "faces",
        "root": "data/faces",
        "is_demo": True,
        "num_images": 12,
        "classes": ["ada", "bo|b"],
        "num_bad": 0,
    }
    assert results["headline"] == []
    assert results["figures"]["accuracy"] == {
        "mean": 0.75,
        "sd": pytest.approx(0.5**0.5 / 2),
        "n": 2,
        "seeds": [0, 1],
        "values": [0.5, 1.0],
        "unit": "accuracy",
        "split": "test",
        "data": "faces",
        "table": "",
        "row": "",
        "metric": "",
    }
    assert results["figures"]["blurred"]["sd"] is None
    assert results["figures"]["blurred"]["data"] == "faces, blurred"
    assert results["figures"]["lost"]["mean"] is None
    assert results["machine"]["devices"] == ["TFRT_CPU"]


def test_two_measurements_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    twice = [Measurement("a", [0.5], [0])] * 2
    with pytest.raises(ValueError, match="one name"):
        folder.write_results(twice, data=DATA, seconds=1)


def test_environment_names_versions_and_machine() -> None:
    versions, machine = environment(["a device"])
    assert versions["numpy"] == np.__version__
    assert set(versions) == {"python", "jaxvision", *run_folder.VERSIONED}
    assert machine["cores"] >= 1
    assert machine["cpu"]
    assert machine["devices"] == ["a device"]


def test_no_commit_without_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "__file__", "/usr/lib/jaxvision/report/x.py")
    assert environment()[1]["git_commit"] is None


def test_command_line_can_be_pasted(tmp_path: Path) -> None:
    script = tmp_path / "say.py"
    script.write_text(
        "from jaxvision.report.run_folder import command_line\nprint(command_line())"
    )
    arguments = ["--data.root", "my images", "--name", "it's"]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.check_output(
        [sys.executable, str(script), *arguments],
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    expected = f"""python {script} --data.root 'my images' --name 'it'"'"'s'\n"""
    assert said == expected
    assert command_line().startswith("python ")


def test_figures_tables_and_text(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    path = folder.save_figure("curves", Figure(figsize=(1, 1)))
    assert path == folder.path / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    odd = os.fsdecode(b"na\xefve,.jpg")
    table = folder.write_csv("bad", ["path", "reason"], [[odd, 'a "bomb"']])
    with open(table, encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == [["path", "reason"], [odd, 'a "bomb"']]
    assert folder.write_text("note.md", odd + "é").read_text("utf-8").endswith("é")


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    folder.write_config(Config())
    folder.append_history(row(1))
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"run.json", "config.json", "history.csv", "history.jsonl"}


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left") as caught:
        write_atomically(path, b"new")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["results.json"]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"experiment": "mlp", "command": "x"}')
    with pytest.raises(InputError, match="No space left"):
        RunFolder.open(folder).append_history(row(1))


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"can't write into .*runs/mlp"):
        RunFolder.create("mlp", root=tmp_path / "runs")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_while_appending(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    folder.append_history(row(1))
    (folder.path / "history.csv").unlink()
    (folder.path / "history.csv").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"):
        folder.append_history(row(2))


def test_tensorboard_without_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"jaxvision-classics\[tensorboard\]"):
        RunFolder.create("mlp", root=tmp_path, tensorboard=True)
    assert not (tmp_path / "mlp").exists()


class FakeWriter:
    """Stands in for tensorboardX's, which is an option."""

    made: list["FakeWriter"]

    def __init__(self, logdir: str, purge_step: int) -> None:
        self.logdir, self.purge_step = logdir, purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        FakeWriter.made.append(self)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))

    def flush(self) -> None: ...

    def close(self) -> None:
        self.closed = True


def test_events_carry_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeWriter.made = []
    monkeypatch.setattr(run_folder, "_event_writer_class", lambda: FakeWriter)
    folder = RunFolder.create("mlp", root=tmp_path, tensorboard=True)
    folder.append_history({**row(1), "learning_rate": 0.1})
    folder.append_history(row(2))
    folder.close()
    (writer,) = FakeWriter.made
    assert writer.closed
    assert writer.purge_step == 10
    assert writer.logdir == str(folder.path / "tensorboard")
    assert writer.scalars[:4] == [
        ("run/epoch", 1, 10),
        ("loss/train", 0.5, 10),
        ("accuracy/val", 0.7, 10),
        ("run/learning_rate", 0.1, 10),
    ]
    resumed = RunFolder.open(folder.path, tensorboard=True)
    resumed.append_history(row(2))
    assert FakeWriter.made[-1].purge_step == 20
    resumed.append_history({"seed": 3, **row(1)})
    assert FakeWriter.made[-1].logdir == str(folder.path / "tensorboard" / "seed3")


def test_events_of_the_real_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    folder = RunFolder.create("mlp", root=tmp_path, tensorboard=True)
    folder.append_history(row(1))
    folder.close()
    (events,) = (folder.path / "tensorboard").iterdir()
    assert b"accuracy/val" in events.read_bytes()


def test_json_files_are_strict_json(tmp_path: Path) -> None:
    folder = RunFolder.create("mlp", root=tmp_path)
    folder.write_results(
        [Measurement("a", [math.inf], [0])], data=DATA, seconds=math.nan
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (folder.path / "results.json").read_text()
    assert json.loads(text, parse_constant=refuse)["seconds"] is None


def test_folders_of_runs_that_begin_together_are_their_own(tmp_path: Path) -> None:
    """Two runs with reports in different places, and networks in one."""
    networks = tmp_path / "networks"

    def begin(number: int) -> str:
        root = tmp_path / f"runs-{number % 2}"
        return RunFolder.create("train", root=root, networks=networks).path.name

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(begin, range(16)))
    assert len(set(names)) == 16
    assert sorted(path.name for path in networks.iterdir()) == sorted(names)
