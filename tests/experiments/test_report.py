"""Which runs the report shows, and what it says of them."""

import dataclasses

import pytest
from finished_runs import write_run

from experiments import part1_baseline, part2_mlp, receptive_field, report
from experiments.catalog import EXPERIMENTS
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.report.run_folder import RunFolder
from jaxvision.report.runs import find_runs

BASELINE = {
    "baseline/baseline/train_accuracy": [0.6, 0.62],
    "baseline/baseline/val_accuracy": [0.9, 0.91],
}


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def baseline(runs, **options):
    config = options.pop("config", part1_baseline.Config())
    return write_run(runs, "part1_baseline", BASELINE, config=config, **options)


def entries(runs, problems=()):
    """Name of an experiment -> what the page shows of it."""
    shown: dict[str, list] = {}
    for chapter in report.chapters(find_runs(runs), dict(problems)):
        for entry in chapter.entries:
            name = entry.run.experiment if entry.run else entry.anchor
            shown.setdefault(name, []).append(entry)
    return shown


def test_every_experiment_is_shown_run_or_not(runs):
    baseline(runs)
    write_run(runs, "another_project", {"x": [1.0]})
    shown = entries(runs)
    assert shown.keys() == EXPERIMENTS.keys()
    assert [name for name, (one, *_) in shown.items() if one.run] == ["part1_baseline"]
    assert shown["robustness"][0].command.endswith("--checkpoint DIR")


def test_figures_stand_beside_published_ones(runs):
    baseline(runs)
    (entry,) = entries(runs)["part1_baseline"]
    assert [(c.value, c.source, c.verdict) for c in entry.comparisons] == [
        (0.6277, "Niaz, 1.2", "agrees"),
        (0.4945, "Niaz, 1.2", "higher"),
        (0.549, "Gözpınar, 1.2", "higher"),
    ]


def test_the_newest_run_counts_and_real_images_before_drawn_ones(runs):
    baseline(runs, name="1")
    second = baseline(runs, name="2").path
    baseline(runs, name="3", is_demo=True)
    (entry,) = entries(runs)["part1_baseline"]
    assert entry.run.path == second


def test_variants_stand_side_by_side(runs):
    for name, batch_norm in (("1", True), ("2", False), ("3", True)):
        config = part2_mlp.Config(batch_norm=batch_norm)
        write_run(runs, "part2_mlp", {"test_accuracy": [0.5]}, config=config, name=name)
    shown = entries(runs)["part2_mlp"]
    assert [entry.run.path.name for entry in shown] == ["3", "2"]
    assert [entry.variant for entry in shown] == ["batch norm", "no batch norm"]
    assert [entry.anchor for entry in shown] == ["part2_mlp", "part2_mlp-2"]


def test_a_run_is_the_published_row_of_its_settings(runs):
    figures = {"test_accuracy": [0.68, 0.7], "train_accuracy": [0.91, 0.93]}
    for name, batch_norm in (("1", True), ("2", False)):
        config = part2_mlp.Config(batch_norm=batch_norm)
        write_run(runs, "part2_mlp", figures, config=config, name=name)
    rows = [
        {comparison.row for comparison in entry.comparisons}
        for entry in entries(runs)["part2_mlp"]
    ]
    assert rows == [{"300 hidden, regularized"}, {"300 hidden"}]


def test_settings_that_are_not_the_experiments_own_are_named(runs):
    own = part1_baseline.Config()
    data = dataclasses.replace(own.data, root=runs, split=SplitConfig(0.5, 0.5, 0.0))
    baseline(runs, config=dataclasses.replace(own, data=data, seeds=(7,), runs=runs))
    (entry,) = entries(runs)["part1_baseline"]
    assert entry.changed == []
    few = dataclasses.replace(data, limit=9)
    baseline(runs, name="z", config=dataclasses.replace(own, epochs=3, data=few))
    (entry,) = entries(runs)["part1_baseline"]
    assert entry.changed == [("data.limit", "9", "–"), ("epochs", "3", "–")]


def test_what_is_missing_can_be_run_on_the_same_images(runs):
    data = DataConfig(root=runs / "my paintings")
    baseline(runs, config=part1_baseline.Config(data=data))
    RunFolder.create("part2_mlp", root=runs)
    shown = entries(runs, {"part2_features": "error: broken"})
    assert shown["part1_tuning"][0].command == (
        f"python -m experiments.part1_tuning --data.root '{runs}/my paintings'"
    )
    assert shown["part2_features"][0].problem == "error: broken"
    assert shown["part2_mlp"][0].problem.startswith("Begun and not finished")


def test_it_writes_one_file_and_names_it(runs, capsys):
    baseline(runs, is_demo=True)
    fields = {"test_image_size_receptive_field": [7.0]}
    write_run(runs, "receptive_field", fields, config=receptive_field.Config())
    (runs / "part2_mlp" / "x").mkdir(parents=True)
    (runs / "part2_mlp" / "x" / "run.json").write_text("{}")
    out = report.main(report.Config(runs=runs))
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(out) == str(runs / "report.html")
    assert printed[-2].startswith(f"2 of {len(EXPERIMENTS)} experiments, ")
    text = out.read_text("utf-8")
    assert "part2_mlp/x: a file in it is missing or damaged" in text
    assert "images drawn by code" in text


def test_named_runs_and_no_others(runs, tmp_path, capsys):
    first = baseline(runs, name="1").path
    baseline(runs, name="2")
    out = tmp_path / "elsewhere" / "page.html"
    report.main(report.Config(folders=(first,), out=out))
    assert str(first) in out.read_text("utf-8")
    begun = RunFolder.create("part2_mlp", root=runs).path
    with pytest.raises(InputError, match="has not finished"):
        report.main(report.Config(folders=(begun,), out=out))
    with pytest.raises(InputError, match=r"no run\.json"):
        report.main(report.Config(folders=(tmp_path,), out=out))


def test_no_runs_at_all_are_a_list_of_commands(runs):
    text = report.main(report.Config(runs=runs)).read_text("utf-8")
    assert "0 of" in text
    for name in EXPERIMENTS:
        assert f"python -m experiments.{name}" in text
