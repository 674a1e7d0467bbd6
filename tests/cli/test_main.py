"""The command `jaxvision`: its map, its helps, and how a command ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jaxvision
from jaxvision.cli import process
from jaxvision.cli.main import COMMANDS, main
from jaxvision.cli.process import command
from jaxvision.errors import InputError


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxvision", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_map_names_every_command(capsys):
    main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    main(["data", "--help"])
    printed = capsys.readouterr().out
    assert "data prepare" in printed
    assert "finetune" not in printed


@pytest.fixture
def restarts(monkeypatch, tmp_path):
    """What programs are begun anew with, where who asks gets large pages."""
    pages, begun = tmp_path / "enabled", []
    pages.write_text("always [madvise] never\n")
    monkeypatch.setattr(process, "_LARGE_PAGES", pages)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(os, "execv", lambda path, words: begun.append(words))
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "jaxvision", "predict", "a"])
    monkeypatch.setattr(sys, "argv", ["/jaxvision/__main__.py", "predict", "a"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    return begun


def test_a_program_begins_anew_with_large_pages_and_once(restarts):
    process.use_large_pages()
    process.use_large_pages()
    assert restarts == [[sys.executable, "-m", "jaxvision", "predict", "a"]]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


def test_nothing_begins_anew_elsewhere(restarts, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:  # called by another program, such as a test
        patch.setattr(sys, "argv", ["pytest", "predict", "b"])
        process.use_large_pages()
    with monkeypatch.context() as patch:  # read from standard input
        patch.setattr(sys, "orig_argv", ["python", "-", "predict", "a"])
        patch.setattr(sys, "argv", ["-", "predict", "a"])
        process.use_large_pages()
    with monkeypatch.context() as patch:  # a notebook
        patch.setattr(threading, "active_count", lambda: 2)
        process.use_large_pages()
    with monkeypatch.context() as patch:  # a debugger
        patch.setattr(sys, "gettrace", lambda: print)
        process.use_large_pages()
    with monkeypatch.context() as patch:  # another C library
        patch.setattr(os, "confstr", lambda name: None)
        process.use_large_pages()
    with monkeypatch.context() as patch:  # another system
        patch.setattr(process, "_LARGE_PAGES", tmp_path / "missing")
        process.use_large_pages()
    process._LARGE_PAGES.write_text("[always] madvise never\n")
    process.use_large_pages()
    assert not restarts


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"jaxvision {jaxvision.__version__}\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["finetun"], "no command finetun; did you mean finetune?"),
        (["data", "prepar"], "no command data prepar; did you mean data prepare?"),
        (["xyz"], "no command xyz; jaxvision --help lists them"),
    ],
)
def test_unknown_command_is_one_line(given, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert message.count("\n") == 1


@pytest.mark.parametrize("given", [[], ["weights"]])
def test_no_command_prints_the_map_and_fails(given, capsys):
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert "weights list" in capsys.readouterr().out


def test_every_help_is_there_and_imports_no_jax():
    code = """
import contextlib, io, json, sys
from jaxvision.cli.main import COMMANDS, main

found = {}
for name in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main([*name.split(), "--help"])
        except SystemExit as end:
            assert not end.code, (name, end.code)
    found[name] = out.getvalue()
heavy = {"jax", "flax", "optax", "grain", "matplotlib", "sklearn", "optuna"}
print(json.dumps([found, sorted(heavy & set(sys.modules))]))
"""
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    helps, heavy = json.loads(output)
    assert heavy == []
    for name, text in helps.items():
        assert text.startswith(f"usage: jaxvision {name} ")


def test_import_of_the_package_is_light_and_lazy():
    code = """
import sys, jaxvision
assert "numpy" not in sys.modules
recipe = jaxvision.Recipe()
assert "jax" not in sys.modules
import jaxvision.training.loop
assert callable(jaxvision.train)
assert set(jaxvision.__all__) <= set(dir(jaxvision))
for name in jaxvision.__all__:
    getattr(jaxvision, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = jaxvision.nothing


def test_error_names_flags(capsys):
    with (
        pytest.raises(SystemExit) as caught,
        command({"optim.learning_rate": "--optim.learning-rate"}.get),
    ):
        raise InputError(
            "must be lower; see `other`", setting="optim.learning_rate", value=3
        )
    assert caught.value.code == 2
    said = "error: --optim.learning-rate 3: must be lower; see `other`\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "CHECKPOINT: give the folder that training printed, or --pretrained"),
        ("C --pretrained vgg16", "CHECKPOINT: give the folder that training printed"),
        ("--pretrained vgg16", "--images: give some to check the model by"),
    ],
)
def test_export_takes_a_checkpoint_or_pretrained_weights(given, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["export", "--out", "new", *given.split()])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_ctrl_c_ends_with_one_line(capsys):
    with (
        pytest.raises(SystemExit) as caught,
        command({}.get, interrupted="stopped"),
    ):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_closed_pipe_ends_quietly():
    with start("finetune", "--help") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


@pytest.mark.parametrize("ignored", [False, True])
def test_hang_up_is_like_sigterm_unless_it_is_ignored(ignored):
    code = f"""
import signal, time
from jaxvision.cli.process import command

signal.signal(signal.SIGHUP, signal.SIG_{"IGN" if ignored else "DFL"})
with command({{}}.get):
    signal.raise_signal(signal.SIGHUP)
    print("lives on")
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if ignored:
        assert (ended.returncode, ended.stdout) == (0, "lives on\n")
    else:
        assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", "Mädchen 日 a\\udcff.jpg\n"),
        ("ascii", "M\\xe4dchen \\u65e5 a\\udcff.jpg\n"),
        ("cp1252", "Mädchen \\u65e5 a\\udcff.jpg\n"),
    ],
)
def test_names_are_printed_in_any_encoding(encoding, said):
    code = r"""
import os
from jaxvision.cli.process import command

with command({}.get):
    print("M\u00e4dchen \u65e5", os.fsdecode(b"a\xff.jpg"))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding=encoding,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert ended.returncode == 0
    assert ended.stdout == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "a\x1bb"), "a\\x1bb: Permission"),
        (OSError(36, "File name too long", "x" * 300), f"{'x' * 300}: File name"),
        (OSError(28, "No space left on device"), "No space left on device: free"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, said, capsys):
    with pytest.raises(SystemExit) as caught, command(lambda setting: None):
        raise error
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert message.count("\n") == 1


def test_other_errors_keep_their_traceback():
    with pytest.raises(FileNotFoundError), command(lambda setting: None):
        raise FileNotFoundError(2, "No such file or directory", "a")
