"""Running everything: what is done is skipped, what fails is listed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from finished_runs import write_run

from experiments import all as everything
from experiments.all import Children, Config, Step, main, run_step, step_arguments
from experiments.catalog import collect
from jaxvision.errors import InputError
from jaxvision.experiment import CONFIG
from jaxvision.report.run_folder import RunFolder
from jaxvision.report.runs import find_runs


def step(name, arguments=""):
    return Step(collect()[name], arguments)


BASELINE = step("part1_baseline", "--seeds 0")


class Programs(Children):
    """In place of programs: remembers what it was to run and leaves what they leave."""

    def __init__(self, runs, failing=(), interrupted=None):
        super().__init__()
        self.runs, self.failing, self.interrupted = runs, failing, interrupted
        self.ran = []

    def run(self, arguments, log):
        self.ran.append(" ".join(arguments))
        name = arguments[1].removeprefix("experiments.")
        if name in self.failing:
            return 2, "error: broken"
        if name == self.interrupted:
            self.stopped = signal.SIGINT
            return 130, ""
        if "--resume" not in arguments:
            command = " ".join(["python", *arguments])
            write_run(self.runs, name, {"val_accuracy": [0.5]}, command=command)
        return 0, "the run folder"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Config()


@pytest.fixture
def programs(config, monkeypatch):
    made = Programs(config.runs)
    monkeypatch.setattr(everything, "Children", lambda: made)
    return made


def test_a_step_is_run_once(config):
    programs = Programs(config.runs)
    assert run_step(config, BASELINE, programs).status == "done"
    assert programs.ran == ["-m experiments.part1_baseline --seeds 0"]
    assert run_step(config, BASELINE, programs).status == "skipped"
    assert len(programs.ran) == 1
    other = step("part1_baseline", "--seeds 0 1")
    assert run_step(config, other, programs).status == "done"
    again = Config(again=("part1_baseline",))
    assert run_step(again, BASELINE, programs).status == "done"
    assert len(programs.ran) == 3


def test_a_stopped_run_is_continued(config):
    command = "python -m experiments.part2_mlp"
    run = RunFolder.create("part2_mlp", root=config.runs, command=command)
    checkpoints = config.checkpoints / "part2_mlp" / run.path.name
    programs = Programs(config.runs)
    assert run_step(config, step("part2_mlp"), programs).status == "done"
    assert programs.ran.pop() == "-m experiments.part2_mlp"
    for folder in (config.runs / "part2_mlp").iterdir():
        (folder / "results.json").unlink(missing_ok=True)
    checkpoints.mkdir(parents=True)
    (checkpoints / CONFIG).write_text("{}")
    for folder in (config.runs / "part2_mlp").iterdir():
        if folder != run.path:
            (folder / "run.json").unlink()
    assert run_step(config, step("part2_mlp"), programs).status == "done"
    assert programs.ran == [f"-m experiments.part2_mlp --resume {checkpoints}"]


def test_images_and_folders_are_handed_on(config, tmp_path):
    flags = step_arguments(
        Config(artists=tmp_path / "a b"), BASELINE, find_runs(tmp_path)
    )
    assert flags == ["--seeds", "0", "--data.root", f"{tmp_path}/a b"]
    scrub = Config(faces=tmp_path, faces_per_person=70)
    assert step_arguments(scrub, step("part2_mlp"), find_runs(tmp_path)) == [
        "--data.root", str(tmp_path), "--data.split.train-per-class", "70",
    ]  # fmt: skip
    elsewhere = Config(runs=tmp_path / "r", checkpoints=tmp_path / "c")
    folders = ["--runs", f"{tmp_path}/r"]
    none = find_runs(tmp_path)
    assert step_arguments(elsewhere, step("receptive_field"), none) == folders
    folders += ["--checkpoints", f"{tmp_path}/c"]
    assert step_arguments(elsewhere, step("part2_mlp"), none) == folders


def test_a_step_builds_on_what_another_made(config):
    saliency = step("part2_saliency")
    with pytest.raises(InputError, match="part2_finetune"):
        step_arguments(config, saliency, find_runs(config.runs))
    write_run(config.runs, "part2_finetune", {"x": [1.0]}, name="a")
    write_run(config.runs, "part2_finetune", {"x": [1.0]}, name="b")
    write_run(config.runs, "comics_tune", {"x": [1.0]}, name="c")
    runs = find_runs(config.runs)
    assert step_arguments(config, saliency, runs) == [
        "--checkpoint", "checkpoints/part2_finetune/b",
    ]  # fmt: skip
    final = step("comics_final")
    assert step_arguments(config, final, runs) == ["--tuned", "runs/comics_tune/c"]


def test_a_failure_is_listed_and_the_rest_is_run(config, programs, capsys):
    programs.failing = ("part1_pooling", "part2_finetune")
    with pytest.raises(SystemExit) as stop:
        main(config)
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    # And what takes the fine-tuned network, which has not been trained.
    assert printed.count("failed ") == 3 + 3
    assert "error: broken" in printed
    assert printed.splitlines()[-1] == "runs/report.html"
    text = (config.runs / "report.html").read_text("utf-8")
    assert "error: broken" in text
    ran = {command.split()[1].removeprefix("experiments.") for command in programs.ran}
    needing = {name for name, one in collect().items() if one.network_of}
    assert ran == collect().keys() - needing


def test_an_interruption_ends_it_and_the_same_command_goes_on(
    config, programs, capsys, monkeypatch
):
    three = [step(f"part1_{name}") for name in ("baseline", "pooling", "tuning")]
    monkeypatch.setattr(everything, "steps", lambda config: three)
    programs.interrupted = "part1_pooling"
    with pytest.raises(SystemExit) as stop:
        main(config)
    assert stop.value.code == 128 + signal.SIGINT
    shown = capsys.readouterr()
    assert "1 not begun" in shown.out
    assert "the same command continues" in shown.err
    programs.interrupted, programs.stopped = None, 0
    programs.ran.clear()
    main(config)
    assert programs.ran == [
        "-m experiments.part1_pooling", "-m experiments.part1_tuning",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": ("part3",)}, "no experiment is called part3"),
        ({"again": ("part3",)}, "no experiment is called part3"),
        ({"faces": Path("nowhere")}, "`faces` nowhere: there is no such folder"),
    ],
)
def test_bad_input_is_one_line(config, options, words):
    with pytest.raises(InputError, match=words):
        main(Config(**options))


def test_what_a_program_says_is_shown_and_logged(tmp_path, capsys):
    code = "import sys; print('one'); print('error: two', file=sys.stderr); exit(2)"
    with Children() as children:
        status, last = children.run(["-c", code], tmp_path / "logs" / "x")
    assert (status, last) == (2, "error: two")
    assert (tmp_path / "logs" / "x.log").read_text() == "one\nerror: two\n"
    assert capsys.readouterr().out == "one\nerror: two\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_program_which_may_save(tmp_path, number):
    """The program is told once and ends in its own time."""
    code = (
        "import signal, sys, time\n"
        "def stop(number, _):\n"
        "    print('saved', number)\n"
        "    sys.exit(130)\n"
        "for one in (signal.SIGINT, signal.SIGTERM): signal.signal(one, stop)\n"
        "print('ready')\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "x"

    ended = threading.Event()

    def send():
        while not ended.wait(0.02):
            if "ready" in _text(log.with_suffix(".log")):
                os.kill(os.getpid(), number)
                return

    before = signal.getsignal(number)
    with Children() as children:
        thread = threading.Thread(target=send)
        thread.start()
        status, last = children.run(["-c", code], log)
        ended.set()
        thread.join()
    expected = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    assert (status, last) == (130, f"saved {expected.value}")
    assert children.stopped == number
    assert signal.getsignal(number) == before


def _text(path):
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def test_from_the_command_line_to_the_report(tmp_path):
    """One experiment as its own program, once; then it is there."""
    command = [sys.executable, "-m", "experiments.all", "--only", "receptive_field"]
    repository = Path(everything.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    for said in ("took ", "done before"):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert done.stdout.splitlines()[-1] == "runs/report.html"
    (run, _) = (tmp_path / "runs" / "receptive_field").iterdir()
    assert json.loads((run / "results.json").read_text())["seconds"] > 0
    assert "7×7" in (tmp_path / "runs" / "report.html").read_text("utf-8")
