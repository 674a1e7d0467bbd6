"""Tuning: the same trials however often it is stopped, shared, and read back."""

import dataclasses
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from drawn_images import write_images
from optuna.trial import TrialState

from jaxvision.data.config import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, SearchRange
from jaxvision.errors import InputError
from jaxvision.settings import (
    AugmentConfig,
    DistributedConfig,
    OptimConfig,
    Recipe,
    ScheduleConfig,
    TuneConfig,
)
from jaxvision.tuning import tune, tuning_config, tuning_of, with_tuned
from jaxvision.tuning.study import (
    COMPLETE,
    DIVERGED,
    PRUNED,
    Study,
    ended,
    optuna_is_quiet,
    origin,
)

REPOSITORY = Path(__file__).resolve().parents[1]

RANGES = {
    "x": SearchRange(1e-3, 1.0, log=True),
    "y": SearchRange(0.0, 1.0),
    "n": SearchRange(1, 9),
}
FIRST = {"x": 0.5, "y": 0.5, "n": 2}

EXPERIMENT = Experiment(
    name="tiny",
    section="",
    title="Tuning",
    question="Which settings are best?",
    dataset="faces",
    recipe=Recipe(
        "mlp",
        method="scratch",
        options={"hidden": 16, "dropout_rate": 0.1},
        image_size=8,
        augment=AugmentConfig(),
        optim=OptimConfig("adam", 1e-3),
        schedule=ScheduleConfig(),
        epochs=3,
        batch_size=8,
    ),
    search_space={
        "optim.learning_rate": SearchRange(1e-5, 1e-2, log=True),
        "dropout_rate": SearchRange(0.0, 0.7),
        "hidden": SearchRange(8, 64, log=True),
    },
    split=SplitConfig(train=0.5, val=0.25, test=0.25),
    published=[
        {"row": "tuned", "metric": "dropout_rate", "value": 0.1, "source": "a report"}
    ],
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with optuna_is_quiet():
        yield


def open_study(folder, **changes):
    config = TuneConfig(**{"trials": 8, "startup_trials": 4, **changes})
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{folder.resolve()}/studies.db"
    return Study("test", url, folder / "test", config, RANGES, FIRST)


def cost(params):
    return (params["x"] - 0.1) ** 2 + params["y"] + 0.01 * params["n"]


def work(study, count=100):
    """Does `count` trials at most, without any training."""
    while count and study.run_next(lambda trial, _: (cost(trial.params), COMPLETE)):
        count -= 1


def params(study):
    return [trial.params for trial in study.trials()]


def leave_trial(study, *, drawn=True, heartbeat=True):
    """Leaves a trial under way, as a process does that is killed."""
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = study.optuna.ask()
    if heartbeat:
        study.optuna._storage.record_heartbeat(trial._trial_id)
    if drawn:
        study.draw(trial, study.place(trial))
    return trial


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that was never stopped."""
    with optuna_is_quiet():
        study = open_study(tmp_path_factory.mktemp("whole"), trials=12)
        work(study)
        return study


def test_the_first_trial_has_the_settings_before_tuning_and_ranges_hold(whole):
    found = params(whole)
    assert found[0] == FIRST
    assert len(found) == 12
    for one in found:
        assert 1e-3 <= one["x"] <= 1
        assert one["n"] in range(1, 10)
    # It learns: the last trials are better than those that were drawn at random.
    assert min(map(cost, found[6:])) < min(map(cost, found[:4]))
    importances = whole.importances()
    assert max(importances, key=lambda name: importances[name]) == "y"
    assert sum(importances.values()) == pytest.approx(1)


def test_the_same_seed_draws_the_same_trials_however_often_it_is_stopped(
    tmp_path, whole
):
    for _ in range(3):
        work(open_study(tmp_path / "stopped"), count=2)
    study = open_study(tmp_path / "stopped")
    work(study)
    assert params(study) == params(whole)[:8]
    study = open_study(tmp_path / "other", seed=1, trials=2)
    work(study)
    assert params(study)[1] != params(whole)[1]


def test_a_gaussian_process_draws_the_same_trials_too(tmp_path):
    pytest.importorskip("torch")
    how = {"sampler": "gp", "trials": 4, "startup_trials": 2}
    study = open_study(tmp_path / "whole", **how)
    work(study)
    work(open_study(tmp_path / "stopped", **how), count=3)
    again = open_study(tmp_path / "stopped", **how)
    work(again)
    assert params(again) == params(study)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_trial_that_is_stopped_goes_on_with_its_settings(tmp_path, whole, error):
    for done in (0, 4):
        study = open_study(tmp_path / "stopped", trials=6)
        work(study, count=done)
        begun = []

        def stop(trial, first, begun=begun):
            begun.append((first, trial.params))
            raise error

        for _ in range(2):
            with pytest.raises(error):
                study.run_next(stop)
        assert begun[0] == begun[1]
    study = open_study(tmp_path / "stopped", trials=6)
    work(study)
    assert params(study) == params(whole)[:6]
    assert study.retries() == 4


@pytest.mark.parametrize(
    ("drawn", "heartbeat"), [(True, True), (False, True), (False, False)]
)
def test_a_trial_whose_process_was_killed_is_retried(tmp_path, whole, drawn, heartbeat):
    study = open_study(tmp_path / "killed", trials=6, grace_seconds=2)
    work(study, count=4)
    lost = leave_trial(study, drawn=drawn, heartbeat=heartbeat)
    study = open_study(tmp_path / "killed", trials=6, grace_seconds=2)
    study.await_heartbeats()
    work(study)
    assert params(study) == params(whole)[:6]
    assert study.retries() == drawn
    origins = [origin(trial) for trial in study.trials()]
    assert (lost.number in origins) == drawn


def test_a_trial_of_a_living_process_is_left_alone(tmp_path):
    study = open_study(tmp_path / "a", trials=3)
    mine = leave_trial(study)
    other = open_study(tmp_path / "a", trials=3)
    work(other)
    # Two are finished, and one is under way.
    assert len(other.trials()) == 2
    study.optuna.tell(mine, 0.5)
    assert len(other.trials()) == 3
    assert other.retries() == 0


def test_an_epoch_is_a_sign_of_life(tmp_path, monkeypatch):
    study = open_study(tmp_path / "a", grace_seconds=1000)
    trial = leave_trial(study)
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        trial.report(1.0, 1)

    monkeypatch.setattr(time, "sleep", sleep)
    study.await_heartbeats()
    assert len(waited) == 1


def test_who_was_given_up_for_dead_ends_with_one_line(tmp_path):
    study = open_study(tmp_path / "a")

    def sleep_too_long(trial, _):
        study.optuna.tell(trial.number, state=TrialState.FAIL)
        trial.report(1.0, 1)

    with pytest.raises(InputError, match="trial 0: another process has taken it over"):
        study.run_next(sleep_too_long)
    work(study)
    assert study.retries() == 0


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_trials_that_were_pruned_do_not_win(tmp_path, sampler):
    if sampler == "gp":
        pytest.importorskip("torch")
    study = open_study(tmp_path / "a", trials=3, sampler=sampler)
    for found in ((0.1, PRUNED), (None, DIVERGED), (1.0, COMPLETE)):
        study.run_next(lambda trial, _, found=found: found)
    assert [ended(trial) for trial in study.trials()] == [PRUNED, DIVERGED, COMPLETE]
    assert study.best().value == 1.0
    states = [trial.state for trial in study.trials()]
    # A Gaussian process learns from complete trials alone.
    pruned = TrialState.COMPLETE if sampler == "gp" else TrialState.PRUNED
    assert states == [pruned, TrialState.PRUNED, TrialState.COMPLETE]


def test_a_trial_worse_than_half_of_the_others_is_pruned(tmp_path):
    study = open_study(tmp_path / "a", startup_trials=3, pruning_epochs=2)
    verdicts = []
    for value in (0.1, 0.2, 0.3, 9.0):

        def train(trial, _, value=value):
            for epoch in (1, 2):
                trial.report(value, epoch)
                verdicts.append(trial.should_prune())
            return value, COMPLETE

        study.run_next(train)
    assert verdicts == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("studies.db", "no URL of a database"),
        ("sqlite:////no/such/folder/studies.db", "cannot be used"),
        ("nosuch://host/name", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_bad_input(tmp_path, url, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        Study("t", url, tmp_path / "t", TuneConfig(), RANGES, FIRST)
    assert error.value.setting == "tune.storage"
    assert "\n" not in str(error.value)


def test_no_password_is_shown(tmp_path, monkeypatch):
    url = "postgresql://me:secret@host/name"
    monkeypatch.setattr(sys, "orig_argv", ["python", "x", "--tune.storage", url])
    monkeypatch.setattr(Study, "_open", lambda *_: None)
    study = Study("t", url, tmp_path / "t", TuneConfig(), RANGES, FIRST)
    assert "secret" not in study.shown_url + study.shown_command
    assert "me:***@host" in study.shown_command


WORK = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_tuning import open_study, optuna_is_quiet, work
with optuna_is_quiet():
    study = open_study(Path("a"))
    study.await_heartbeats()
    work(study)
"""


def test_processes_that_begin_at_the_same_time_share_a_study(tmp_path):
    command = [sys.executable, "-c", WORK, str(REPOSITORY), str(Path(__file__).parent)]
    processes = [
        subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    study = open_study(tmp_path / "a")
    assert len(study.trials()) == 8
    assert study.retries() == 0
    drawn = [tuple(one.values()) for one in params(study)]
    assert len(set(drawn)) == 8
    assert not study.run_next(lambda trial, _: (0.0, COMPLETE))


@pytest.fixture
def config(tmp_path):
    root = write_images(tmp_path / "images", per_class=8, size=8)
    data = DataConfig(root=root, split=EXPERIMENT.split)
    return dataclasses.replace(tuning_config(EXPERIMENT), data=data, save_seconds=60.0)


def search(**changes):
    how = {"trials": 4, "startup_trials": 2, "pruner": "none", **changes}
    return TuneConfig(**how)


def test_a_tuning_writes_its_report_and_is_continued(config, capsys):
    folder = tune(EXPERIMENT, config, search(), next_command=lambda run: f"train {run}")
    assert folder is not None
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "history.png", "slice.png", "contour.png", "importance.png", "trials.csv",
        "tuned.json", "results.json", "report.md",
    }  # fmt: skip
    report = (folder / "report.md").read_text()
    assert f"train {folder}" in report
    assert "0.1 (a report)" in report
    figures = json.loads((folder / "results.json").read_text())["figures"]
    assert figures["trials"]["mean"] == 4
    # The networks of trials are gone, their curves are not.
    (study,) = Path("checkpoints", "tiny").glob("tiny-*")
    assert len(list(study.glob("trial-*/history.csv"))) == 4
    assert not list(study.glob("trial-*/seed-*"))
    # What was found goes into any recipe that has the settings.
    settings = json.loads((folder / "tuned.json").read_text())["settings"]
    recipe = EXPERIMENT.recipe
    assert recipe is not None
    tuned = with_tuned(recipe.replace(epochs=99), folder)
    assert tuned.epochs == 99
    assert tuned.optim.learning_rate == settings["optim.learning_rate"]
    assert tuned.options == {
        "hidden": settings["hidden"], "dropout_rate": settings["dropout_rate"],
    }  # fmt: skip
    assert type(tuned.options["hidden"]) is int
    # The same call again trains nothing, and more trials are added.
    again = tune(EXPERIMENT, config, search())
    assert again is not None
    assert (again / "trials.csv").read_text() == (folder / "trials.csv").read_text()
    more = tune(EXPERIMENT, config, search(trials=5))
    assert more is not None
    assert len((more / "trials.csv").read_text().splitlines()) == 6


def test_the_score_is_the_mean_over_seeds_at_their_best_epochs(config):
    config = dataclasses.replace(config, seeds=(0, 1), max_epochs=2)
    folder = tune(EXPERIMENT, config, search(trials=1))
    assert folder is not None
    score = json.loads((folder / "tuned.json").read_text())["score"]
    (history,) = Path("checkpoints").glob("tiny/*/trial-0000/history.jsonl")
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 1, 2]
    best = [min(r["val_loss"] for r in rows if r["seed"] == s) for s in (0, 1)]
    assert score == pytest.approx(sum(best) / 2)


def test_what_cannot_be_tuned_is_bad_input(config, tmp_path):
    for changes, complaint in (
        ({"parameters": ("momentum",)}, "`tune.parameters` momentum: not in the"),
        ({"trials": 0}, "`tune.trials` 0: must be at least 1"),
        ({"pruning_epochs": -1}, "`tune.pruning_epochs` -1"),
    ):
        with pytest.raises(InputError, match=complaint):
            tune(EXPERIMENT, config, search(**changes))
    for changes in (
        {"resume": tmp_path},
        {"rows": ("a",)},
        {"seeds": ()},
        {"distributed": DistributedConfig(detect=True)},
    ):
        (name,) = changes
        with pytest.raises(InputError) as error:
            tune(EXPERIMENT, dataclasses.replace(config, **changes), search())
        assert error.value.setting == name
    nothing = dataclasses.replace(EXPERIMENT, search_space={})
    with pytest.raises(InputError, match="tiny: has no recipe with settings to tune"):
        tune(nothing, config, search())


@pytest.mark.parametrize(
    ("missing", "sampler", "complaint"),
    [
        ("optuna", "tpe", r"tuning needs optuna; pip install .*\[tune\]"),
        ("sqlalchemy", "tpe", "tuning needs sqlalchemy"),
        ("torch", "gp", r"needs torch; pip install .*\[gp\]"),
    ],
)
def test_a_missing_package_is_one_line(
    config, monkeypatch, missing, sampler, complaint
):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == missing else there(name),
    )
    with pytest.raises(InputError, match=complaint) as error:
        tune(EXPERIMENT, config, search(sampler=sampler))
    assert "\n" not in str(error.value)


def test_tuning_is_imported_without_optuna():
    code = (
        "import sys; sys.modules['optuna'] = sys.modules['sqlalchemy'] = None; "
        "import jaxvision.tuning; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_tuned_settings_of_another_experiment_are_bad_input(tmp_path):
    recipe = EXPERIMENT.recipe
    assert recipe is not None
    with pytest.raises(InputError, match=f"`tuned` {tmp_path}: no finished tuning"):
        with_tuned(recipe, tmp_path)
    for text in ("{", '{"settings": {"nothing": 1}}', '{"settings": {"a.b": 1}}'):
        (tmp_path / "tuned.json").write_text(text)
        with pytest.raises(InputError, match="not of this experiment, or damaged"):
            with_tuned(recipe, tmp_path)
    (tmp_path / "tuned.json").write_text('{"settings": {"optim.learning_rate": -1}}')
    with pytest.raises(InputError, match=r"`optim.learning_rate` -1"):
        with_tuned(recipe, tmp_path)


def test_a_rate_that_diverges_ends_its_trial_only(config, capsys):
    wild = dataclasses.replace(
        EXPERIMENT,
        search_space={"optim.learning_rate": SearchRange(1e35, 1e37, log=True)},
    )
    with pytest.raises(InputError, match="none of 2 trials came to its end"):
        tune(wild, config, search(trials=2))
    assert capsys.readouterr().out.count("diverged") == 2


def test_a_tuning_has_names_of_its_own():
    named = tuning_of(EXPERIMENT)
    assert named.name == "tune_tiny"
    assert "`tiny`: optim.learning_rate, dropout_rate, hidden" in named.question
    assert tuning_config(EXPERIMENT).seeds == (0,)


KILLS = int(os.environ.get("JAXVISION_KILLS", "1"))
"""More of them for a closing measurement."""
TRIALS = 2 + KILLS * 3 // 2
"""A trial that is pruned has two epochs, and there are three to a kill at most."""

TUNE = f"""
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import dataclasses
from test_tuning import DataConfig, EXPERIMENT, search, tune, tuning_config
if __name__ == "__main__":
    data = DataConfig(root=Path(sys.argv[1]), split=EXPERIMENT.split)
    config = dataclasses.replace(
        tuning_config(EXPERIMENT), data=data, save_seconds=0.0
    )
    tune(
        EXPERIMENT, config,
        search(
            trials={TRIALS}, pruner="median", grace_seconds=3,
            parameters=("optim.learning_rate", "dropout_rate"),
        ),
    )
"""


def start(folder, data):
    folder.mkdir(exist_ok=True)
    (folder / "tune.py").write_text(TUNE)
    return subprocess.Popen(
        [
            *(sys.executable, "tune.py", str(data.root)),
            *(str(REPOSITORY), str(Path(__file__).parent)),
        ],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder):
    """(settings, score) of the finished trials in the study of a folder."""
    (database,) = folder.glob("checkpoints/*/studies.db")
    url = f"sqlite:///{database}"
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [(trial.params, trial.value) for trial in study.get_trials(states=states)]


def test_killed_processes_lose_no_finished_trial(config, tmp_path):
    """By turns by SIGKILL and, which training answers by saving, by SIGTERM."""
    whole = start(tmp_path / "whole", config.data)
    moments = random.Random(0)
    done: list = []
    for kill in range(KILLS):
        how = (signal.SIGKILL, signal.SIGTERM)[kill % 2]
        process = start(tmp_path / "killed", config.data)
        lines = moments.randrange(1, 4)
        for line in process.stderr:
            lines -= " epoch " in line
            if not lines:
                break
        time.sleep(moments.random() / 10)
        process.send_signal(how)
        _, err = process.communicate(timeout=300)
        # Outside of training SIGTERM ends a process as SIGKILL does.
        assert process.returncode == -how or "Stopped" in err, err
        now = finished(tmp_path / "killed")
        assert now[: len(done)] == done
        done = now
    for folder in ("killed", "whole"):
        process = whole if folder == "whole" else start(tmp_path / folder, config.data)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert finished(tmp_path / "killed") == finished(tmp_path / "whole")
