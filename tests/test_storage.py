"""Where caches lie; files that are whole or not there."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvision.errors import InputError
from jaxvision.storage import (
    only_process,
    remove_leftovers,
    remove_oldest,
    write_atomically,
)

NO_HOME = """
from pathlib import Path

def home():
    raise RuntimeError("Could not determine home directory.")

Path.home = home
from jaxvision.storage import cache_folder

assert cache_folder() == cache_folder() and cache_folder().is_dir()
print(cache_folder())
"""


def test_a_user_without_a_home_folder_has_a_cache_for_the_process():
    """As a user id without a passwd entry, in a container."""
    environment = {k: v for k, v in os.environ.items() if k != "JAXVISION_CACHE"}
    run = subprocess.run(
        [sys.executable, "-c", NO_HOME],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    (line,) = run.stderr.splitlines()
    assert "set JAXVISION_CACHE" in line
    assert not Path(run.stdout.strip()).exists()


def test_what_a_killed_process_left_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = tmp_path / f".report.json.{ended.pid}.part"
    gone.write_text("half")
    folder = tmp_path / f".abc.{ended.pid}.part"
    folder.mkdir()
    (folder / "half").write_text("half")
    mine = tmp_path / f".report.json.{os.getpid()}.part"
    mine.write_text("being written")
    others = tmp_path / ".notes.part"
    others.write_text("somebody's")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, others])
    remove_leftovers(tmp_path / "gone")


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "\udcff" * 200])
def test_long_names_can_be_written(tmp_path, name):
    write_atomically(tmp_path / name, b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_plain_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match="is there and no plain file"):
            write_atomically(tmp_path / name, b"content")
    with pytest.raises(InputError, match="there is no folder"):
        write_atomically(tmp_path / "gone" / "file", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_pieces_are_written_as_they_come(tmp_path):
    write_atomically(tmp_path / "a", (bytes([i]) for i in range(5)))
    assert (tmp_path / "a").read_bytes() == bytes(range(5))

    def broken():
        yield b"half"
        raise KeyError

    with pytest.raises(KeyError):
        write_atomically(tmp_path / "a", broken())
    assert (tmp_path / "a").read_bytes() == bytes(range(5))
    assert len(list(tmp_path.iterdir())) == 1


def test_where_folders_cannot_be_locked_nobody_is_kept_out(tmp_path, monkeypatch):
    """As on some file systems of several machines."""

    def refuse(*_):
        raise OSError(errno.EBADF, "no locks here")

    with only_process(tmp_path, "busy"):
        with (
            pytest.raises(InputError, match="another process is busy"),
            only_process(tmp_path, "busy"),
        ):
            raise AssertionError("two at once")
        monkeypatch.setattr(fcntl, "flock", refuse)
        with only_process(tmp_path, "busy"):
            pass


def test_what_was_used_last_stays(tmp_path):
    for age, name in enumerate("dcba"):
        path = tmp_path / name
        path.write_bytes(bytes(10))
        os.utime(path, (1e9 - age, 1e9 - age))
    remove_oldest(tmp_path, most_bytes=25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]
