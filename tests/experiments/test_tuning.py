"""Tuning: the same trials however often it was stopped, shared, and for any config."""

import dataclasses
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

from experiments import part2_mlp, trials, tune, tuning
from experiments.common import Range, RunConfig
from experiments.trials import SharedStudy
from experiments.tuning import TuneConfig, run_tuning, tuning_config, with_tuned
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]

RANGES = {"x": Range(1e-3, 1.0, log=True), "y": Range(0.0, 1.0), "n": Range(1, 9)}
FIRST = {"x": 0.5, "y": 0.5, "n": 2}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def open_study(folder, **changes):
    config = TuneConfig(**{"trials": 12, "startup_trials": 4, **changes})
    url = f"sqlite:///{folder.resolve()}/studies.db"
    folder.mkdir(exist_ok=True)
    return SharedStudy("test", url, folder / "test", config, RANGES, first=FIRST)


def score(params):
    return (params["x"] - 0.1) ** 2 + params["y"] + 0.01 * params["n"]


def work(study, count=100):
    """Does `count` trials at most, without any training."""
    while count and (trial := study.next_trial()) is not None:
        study.tell(trial, score(trial.params), "whole")
        count -= 1


def params(study):
    return [trial.params for trial in study.trials()]


def test_first_trial_has_the_settings_before_tuning_and_ranges_hold(tmp_path):
    with open_study(tmp_path / "a") as study:
        work(study)
        found = params(study)
    assert found[0] == FIRST
    assert len(found) == 12
    for one in found:
        assert 1e-3 <= one["x"] <= 1
        assert one["n"] in range(1, 10)
    # It learns: the last trials are better than those that were drawn at random.
    assert min(map(score, found[6:])) < min(map(score, found[:4]))


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_same_seed_draws_the_same_trials_however_often_it_is_stopped(
    tmp_path, sampler
):
    if sampler == "gp":
        pytest.importorskip("torch")
    how = {"sampler": sampler, "trials": 6, "startup_trials": 3}
    with open_study(tmp_path / "whole", **how) as study:
        work(study)
        whole = params(study)
    for _ in range(6):
        with open_study(tmp_path / "stopped", **how) as study:
            work(study, count=1)
    with open_study(tmp_path / "stopped", **how) as study:
        assert study.next_trial() is None
        assert params(study) == whole
    with open_study(tmp_path / "other", seed=1, **how) as study:
        work(study)
        assert params(study)[1:] != whole[1:]


def test_a_trial_whose_process_died_is_taken_over_with_its_settings(tmp_path):
    with open_study(tmp_path / "whole") as study:
        work(study)
        whole = params(study)

    def die(study):
        """Leaves a trial under way; a dead process holds no locks."""
        trial = study.next_trial()
        study._alive.release()
        return trial

    for _ in range(2):
        study = open_study(tmp_path / "killed").__enter__()
        work(study, count=4)
        lost = die(study)
        study = open_study(tmp_path / "killed").__enter__()
        again = die(study)
        assert again.params == lost.params
        assert study.origin(again) == study.origin(lost)
    with open_study(tmp_path / "killed") as study:
        work(study)
        assert params(study) == whole
        assert study.interrupted() == 4
    assert list((tmp_path / "killed" / "test" / "workers").iterdir()) == []


def test_a_trial_that_died_while_it_was_drawn_is_drawn_again(tmp_path):
    with open_study(tmp_path / "whole", trials=6) as study:
        work(study)
        whole = params(study)
    for done in (0, 5):
        study = open_study(tmp_path / "killed", trials=6).__enter__()
        work(study, count=done)
        attributes = {"worker": study._worker, "seen": 0.0}
        study._study.enqueue_trial({}, user_attrs=attributes)
        assert study._study.ask().params == {}
        study._alive.release()
    with open_study(tmp_path / "killed", trials=6) as study:
        work(study)
        assert params(study) == whole


def test_a_trial_of_a_living_process_is_left_alone(tmp_path):
    with open_study(tmp_path / "a", trials=3) as one:
        mine = one.next_trial()
        with open_study(tmp_path / "a", trials=3) as other:
            theirs = other.next_trial()
            assert theirs.number != mine.number
            other.tell(theirs, 1.0, "whole")
            work(other)
            # Two are finished, and one is under way.
            assert other.finished == 2
            assert other.next_trial() is None
        one.tell(mine, 0.5, "whole")
        assert one.finished == 3
        assert one.interrupted() == 0


def test_a_process_of_another_machine_is_dead_without_signs_of_life(
    tmp_path, monkeypatch
):
    with open_study(tmp_path / "a") as one:
        trial = one.next_trial()
        # Another machine sees no lock file.
        Path(one._alive.lock_file).unlink()
        with open_study(tmp_path / "a") as other:
            assert other.next_trial().number != trial.number
            assert other.interrupted() == 0
            monkeypatch.setattr(trials, "STALE_SECONDS", -1.0)
            assert other.next_trial().params == trial.params
            assert other.interrupted() >= 1


def test_trials_that_were_given_up_do_not_win(tmp_path):
    for sampler in ("tpe", "gp"):
        with open_study(tmp_path / sampler, trials=3, sampler=sampler) as study:
            for ended, value in (("given up", 0.1), ("diverged", None), ("whole", 1.0)):
                trial = study.next_trial()
                if value is not None:
                    trial.report(value, 1)
                study.tell(trial, value, ended)
            from experiments.tuning_report import best_trial

            assert best_trial(study).value == 1.0
            states = [trial.state for trial in study.trials()]
            # A Gaussian process learns from complete trials alone.
            given_up = TrialState.COMPLETE if sampler == "gp" else TrialState.PRUNED
            assert states == [given_up, TrialState.PRUNED, TrialState.COMPLETE]


def test_a_trial_worse_than_half_of_the_others_is_hopeless(tmp_path):
    how = {"startup_trials": 3, "pruning_epochs": 2}
    with open_study(tmp_path / "a", **how) as study:
        for value in (0.1, 0.2, 0.3):
            trial = study.next_trial()
            for epoch in (1, 2, 3):
                trial.report(value, epoch)
                assert not trial.should_prune()
            study.tell(trial, value, "whole")
        trial = study.next_trial()
        trial.report(9.0, 1)
        assert not trial.should_prune()
        trial.report(9.0, 2)
        assert trial.should_prune()


def test_importance_finds_the_setting_that_matters(tmp_path):
    with open_study(tmp_path / "a", trials=20, startup_trials=20) as study:
        assert study.importances() == {}
        work(study)
        importances = study.importances()
        assert max(importances, key=importances.get) == "y"
        assert sum(importances.values()) == pytest.approx(1)


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
        SharedStudy("t", url, tmp_path / "t", TuneConfig(), RANGES, first=FIRST)
    assert "\n" not in str(error.value)


def test_no_password_is_shown(tmp_path, monkeypatch):
    url = "postgresql://me:secret@host/name"
    monkeypatch.setattr(sys, "orig_argv", ["python", "x", "--tune.storage", url])
    monkeypatch.setattr(trials, "_open", lambda *_: None)
    study = SharedStudy("t", url, tmp_path / "t", TuneConfig(), RANGES, first=FIRST)
    assert "secret" not in study.shown_url + study.shown_command
    assert "me:***@host" in study.shown_command


@pytest.fixture
def data(tmp_path):
    root = write_images(tmp_path / "images", per_class=8, size=8)
    return DataConfig(root=root, split=SplitConfig(train=0.5, val=0.25, test=0.25))


def mlp_config(data, **changes):
    how = {"trials": 4, "startup_trials": 2, "pruner": "none", **changes}
    config = tune.CONFIGS[part2_mlp]
    return config(
        data=data,
        image_size=8,
        epochs=2,
        batch_size=8,
        save_seconds=60.0,
        tune=TuneConfig(parameters=("optim.learning-rate", "dropout-rate"), **how),
    )


def tune_mlp(config, capsys):
    tune.main(config)
    return Path(capsys.readouterr().out.splitlines()[-1])


def test_tuning_an_experiment_writes_its_report(data, capsys):
    folder = tune_mlp(mlp_config(data), capsys)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "history.png",
        "surface.png",
        "importance.png",
        "trials.csv",
        "tuned.json",
        "results.json",
        "report.md",
    }
    figures = json.loads((folder / "results.json").read_text())["figures"]
    assert figures["trials"]["mean"] == 4
    # The networks of trials are gone, their curves are not.
    (study,) = Path("checkpoints", "tune_part2_mlp").glob("tune_part2_mlp-*")
    assert len(list(study.glob("trial-*/history.csv"))) == 4
    assert not list(study.glob("trial-*/seed-*"))
    # What was found goes into any config that has the settings.
    settings = json.loads((folder / "tuned.json").read_text())["settings"]
    tuned = with_tuned(part2_mlp.Config(), folder)
    assert tuned.dropout_rate == settings["dropout_rate"]
    assert tuned.optim.learning_rate == settings["optim.learning_rate"]
    assert tuned.hidden == part2_mlp.Config().hidden
    # The same command again trains nothing, and more trials are added.
    again = tune_mlp(mlp_config(data), capsys)
    assert (again / "trials.csv").read_text() == (folder / "trials.csv").read_text()
    more = tune_mlp(mlp_config(data, trials=5), capsys)
    assert len((more / "trials.csv").read_text().splitlines()) == 6


def test_what_cannot_be_tuned_is_bad_input(data, tmp_path):
    for changes, complaint in (
        ({"parameters": ("momentum",)}, "not tunable"),
        ({"trials": 0}, "--tune.trials 0"),
        ({"pruning_epochs": -1}, "--tune.pruning-epochs"),
    ):
        config = dataclasses.replace(mlp_config(data), tune=TuneConfig(**changes))
        with pytest.raises(InputError, match=complaint):
            tune.main(config)
    with pytest.raises(InputError, match="--resume"):
        tune.main(dataclasses.replace(mlp_config(data), resume=tmp_path))
    with pytest.raises(InputError, match="no finished tuning"):
        with_tuned(part2_mlp.Config(), tmp_path)
    (tmp_path / "tuned.json").write_text('{"settings": {"nothing": 1}}')
    with pytest.raises(InputError, match="damaged"):
        with_tuned(part2_mlp.Config(), tmp_path)


def test_a_gaussian_process_without_torch_is_one_line(data, monkeypatch):
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs torch; pip install") as error:
        TuneConfig(sampler="gp").check()
    assert "\n" not in str(error.value)


def test_a_rate_that_diverges_ends_its_trial_only(data, capsys):
    config = mlp_config(data, trials=2)
    infinite = dataclasses.replace(config.optim, learning_rate=1e-3, clip_norm=None)
    kind = dataclasses.make_dataclass("Config", [], bases=(type(config),), frozen=True)
    kind.TUNABLE = {"optim.learning_rate": Range(1e35, 1e37, log=True)}
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    config = kind(**{**fields, "optim": infinite})
    config = dataclasses.replace(
        config, tune=dataclasses.replace(config.tune, parameters=())
    )
    with pytest.raises(InputError, match="none of 2 trials came to its end"):
        run_tuning(
            "diverging", config, title="", question="", prepare=part2_mlp.prepare
        )
    assert capsys.readouterr().out.count("diverged") == 2


def test_every_tunable_setting_is_there_and_inside_its_range():
    for module in tune.EXPERIMENTS:
        config = module.Config()
        assert module.Config.TUNABLE
        for name, span in module.Config.TUNABLE.items():
            assert span.low <= tuning._get(config, name) <= span.high, name
        assert isinstance(tuning_config(module.Config)(), RunConfig)


KILLS = int(os.environ.get("JAXVISION_KILLS", "2"))
"""More of them for a closing measurement."""
TRIALS = 2 + KILLS * 3 // 2
"""A trial that is given up has two epochs, and there are three to a kill at most."""


def start(folder, data):
    """The real command."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.tune", "part2-mlp"),
            f"--data.root={data.root}",
            "--data.split.train=0.5",
            "--data.split.val=0.25",
            "--data.split.test=0.25",
            "--image-size=8",
            "--epochs=4",
            "--batch-size=8",
            "--save-seconds=0",
            f"--tune.trials={TRIALS}",
            "--tune.startup-trials=2",
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""},
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
    return [
        (trial.params, trial.value)
        for trial in study.get_trials(states=trials.FINISHED)
    ]


def test_killed_commands_lose_no_finished_trial(data, tmp_path):
    """By turns by SIGKILL and, which training answers by saving, by SIGTERM."""
    whole = start(tmp_path / "whole", data)
    moments = random.Random(0)
    done: list = []
    for kill in range(KILLS):
        how = (signal.SIGKILL, signal.SIGTERM)[kill % 2]
        process = start(tmp_path / "killed", data)
        lines = moments.randrange(1, 4)
        for line in process.stderr:
            lines -= " epoch " in line
            if not lines:
                break
        time.sleep(moments.random() / 10)
        process.send_signal(how)
        _, err = process.communicate(timeout=300)
        # Outside of training SIGTERM ends a process as SIGKILL does.
        assert process.returncode in (-how, 128 + how), err
        now = finished(tmp_path / "killed")
        assert now[: len(done)] == done
        done = now
    process = start(tmp_path / "killed", data)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    assert finished(tmp_path / "killed") == finished(tmp_path / "whole")


WORK = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:]
from test_tuning import open_study, work
with open_study(Path("a")) as study:
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
    with open_study(tmp_path / "a") as study:
        assert study.finished == 12
        assert study.interrupted() == 0
        assert study.next_trial() is None
