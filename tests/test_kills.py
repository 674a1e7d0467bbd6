"""What a process that is killed while it writes leaves is gone after the next write.

How trainings end that are killed is tested in tests/training/test_loop.py.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvision.pretrained import SOURCES, store
from jaxvision.pretrained.convert import Report
from jaxvision.report.run_folder import RunFolder
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.transfer import _write

KILLED = """
import os, signal, sys
sys.path.append({tests!r})
import test_kills

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

os.rename = os.replace = kill
test_kills.{write}(test_kills.Path({folder!r}))
"""


def write_checkpoint(folder: Path) -> None:
    checkpoints = CheckpointFolder(folder)
    checkpoints.save("last", 1, {"params": np.zeros(3, np.float32)}, {})
    checkpoints.wait()


def write_conversion(folder: Path) -> None:
    variables = {"params": {"a": np.zeros(3, np.float32)}}
    source = SOURCES["efficientnet_lite0"]
    store.save(folder / "converted", variables, Report(("params/a",)), source, "0" * 64)


def write_report(folder: Path) -> None:
    RunFolder.open(folder).write_text("report.md", "all of it")


def write_features(folder: Path) -> None:
    _write(folder / "abc.npy", np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("write", "whole"),
    [
        (write_checkpoint, {"last-00000001"}),
        (write_conversion, {"converted"}),
        (write_report, {"run.json", "report.md"}),
        (write_features, {"abc.npy", "abc.sha256"}),
    ],
)
def test_nothing_is_left_of_a_killed_write(tmp_path, write, whole):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "run.json").write_text('{"experiment": "train", "command": ""}')
    before = set(folder.iterdir())
    here = str(Path(__file__).parent)
    program = KILLED.format(tests=here, write=write.__name__, folder=str(folder))
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert set(folder.iterdir()) > before
    write(folder)
    assert {path.name for path in folder.iterdir()} == whole | {"run.json"}
