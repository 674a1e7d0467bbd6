"""Run folders as they lie on the disk."""

import json

import pytest
from finished_runs import write_run

from jaxvision.errors import InputError
from jaxvision.report.run_folder import RunFolder
from jaxvision.report.runs import FinishedRun, find_runs, read_run


def test_a_run_is_read_as_it_was_written(tmp_path):
    written = write_run(tmp_path, "part2_mlp", {"val_accuracy": [0.5, 0.6]})
    run = read_run(written.path)
    assert (run.experiment, run.command) == ("part2_mlp", written.command)
    assert run.config == {"epochs": 10, "seeds": [0, 1, 2]}
    assert run.results == written.read_results()
    assert run.report == (written.path / "report.md").read_text("utf-8")
    assert run.settings == {"epochs": 10, "seeds": [0, 1, 2]}


def test_finished_begun_and_damaged_runs_are_told_apart(tmp_path):
    one = write_run(tmp_path, "part2_mlp", {"x": [1.0]}, name="b").path
    two = write_run(tmp_path, "part2_mlp", {"x": [1.0]}, name="a").path
    begun = RunFolder.create("part2_mlp", root=tmp_path).path
    bad = write_run(tmp_path, "part2_features", {"x": [1.0]}).path
    (bad / "results.json").write_text("{")
    (tmp_path / "logs").mkdir()
    runs = find_runs(tmp_path)
    assert {run.path for run in runs.finished} == {one, two}
    assert [run.path for run in runs.begun] == [begun]
    ((path, reason),) = runs.damaged
    assert path == bad
    assert "run the experiment again" in reason


def test_no_folder_has_no_runs(tmp_path):
    runs = find_runs(tmp_path / "nowhere")
    assert (runs.finished, runs.begun, runs.damaged) == ((), (), ())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", "[]"),
        ("run.json", '{"experiment": "x"}'),
        ("results.json", '{"command": "x"}'),
        ("config.json", "\x00"),
    ],
)
def test_damage_is_named(tmp_path, file, content):
    path = write_run(tmp_path, "part2_mlp", {"x": [1.0]}).path
    (path / file).write_text(content)
    with pytest.raises(InputError, match=str(path)):
        read_run(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("figures.x.mean", "0.5"),
        ("figures.x.sd", [1]),
        ("figures.x.n", None),
        ("figures.x", []),
        ("figures", []),
        ("headline", ["y"]),
        ("headline", 3),
        ("seconds", float("nan")),
        ("seconds", -1),
        ("seconds", 1e300),
        ("data.classes", 7),
        ("data.num_images", "many"),
        ("data", None),
    ],
)
def test_figures_of_wrong_types_are_damage(tmp_path, place, value):
    path = write_run(tmp_path, "part2_mlp", {"x": [1.0]}).path / "results.json"
    results = json.loads(path.read_text())
    *parents, last = place.split(".")
    inner = results
    for name in parents:
        inner = inner[name]
    inner[last] = value
    path.write_text(json.dumps(results))
    ((damaged, reason),) = find_runs(tmp_path).damaged
    assert damaged == path.parent
    assert reason.count("\n") == 0


def test_odd_dates_and_settings(tmp_path):
    path = write_run(tmp_path, "part2_mlp", {"x": [float("nan")]}).path
    run = json.loads((path / "run.json").read_text())
    for started in ("9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00"):
        (path / "run.json").write_text(json.dumps(run | {"started": started}))
        runs = find_runs(tmp_path)
        assert len(runs.finished) + len(runs.damaged) == 1
    (path / "config.json").write_text('{"recipe": 7}')
    assert len(find_runs(tmp_path).damaged) == 1


def test_a_run_without_report_has_figures_only(tmp_path):
    path = write_run(tmp_path, "part2_mlp", {"x": [1.0]}).path
    (path / "report.md").unlink()
    run = read_run(path)
    assert isinstance(run, FinishedRun)
    assert run.report == ""


def test_runs_within_a_run_are_its_parts(tmp_path):
    whole = write_run(tmp_path, "prado_scratch", {"x": [1.0]}).path
    inner = f"prado_scratch/{whole.name}"
    write_run(tmp_path, inner, {"x": [1.0]}, name="vgg12")
    RunFolder.create(inner, root=tmp_path, name="begun")
    (run,) = find_runs(tmp_path).finished
    assert [part.path.name for part in run.parts] == ["vgg12"]
