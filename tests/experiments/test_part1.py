"""Part 1: tables of configurations × seeds beside the published figures."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

from experiments import (
    evaluate,
    part1,
    part1_architecture,
    part1_baseline,
    part1_pooling,
    part1_regularization,
    part1_robustness,
    part1_transfer,
    part1_tuning,
    tables,
)
from experiments.tables import Study, StudyConfig, Table, TableRow, table_findings
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.models import check_fits, create_model
from jaxvision.optim import OptimConfig
from jaxvision.report.run_folder import Measurement
from jaxvision.training import sweep
from jaxvision.training.state import init_variables
from jaxvision.training.sweep import Configuration

EXPERIMENTS = (
    part1_baseline,
    part1_pooling,
    part1_regularization,
    part1_architecture,
    part1_tuning,
)
ALL = [table for module in EXPERIMENTS for table in module.tables()]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """What an experiment writes below the working folder goes to the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    root = write_images(tmp_path / "images")
    return DataConfig(root=root, split=SplitConfig(0.75, 0.25, 0.0))


def small_row(name="small", *, save=False, **options):
    optim = OptimConfig("adam", 1e-2)
    configuration = Configuration(
        "mlp", {"hidden": 4, **options}, optim, epochs=2, batch_size=8
    )
    return TableRow(name, configuration, save)


@pytest.fixture
def small_baseline(monkeypatch):
    """The first experiment with a network that trains in no time."""
    rows = (small_row("baseline"), small_row("other", batch_norm=True))
    table = Table("1.2", "baseline", "About.", rows)
    monkeypatch.setattr(part1_baseline, "tables", lambda: (table,))


def test_every_row_makes_a_network_for_the_images():
    for table in ALL:
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names)
        assert table.reference is None or table.reference in names
        assert len(names) <= tables.LINES
        for row in table.rows:
            configuration = row.configuration
            configuration.check()
            model = create_model(configuration.model, 11, **configuration.options)
            check_fits(model, (50, 50, 3))
    assert len({table.name for table in ALL}) == len(ALL)


def test_every_published_figure_has_its_row():
    rows = {(table.section, row.name) for table in ALL for row in table.rows}
    entries = json.loads(tables.PUBLISHED.read_text("utf-8"))
    for entry in entries:
        assert set(entry) == {"section", "row", "metric", "value", "source"}
        if entry["section"][:2] == "1." and entry["section"] != "1.7":
            assert (entry["section"], entry["row"]) in rows
    assert [e["value"] for e in tables.published_figures("1.3")][:2] == [0.6722, 0.5165]


def test_the_first_network_is_the_assignments(data, capsys):
    """Two convolutions and two dense layers, for one epoch, from image to report."""
    config = part1_baseline.Config(data=data, seeds=(0, 1), epochs=1)
    published = part1_baseline.main(config)
    assert capsys.readouterr().out.splitlines()[-1] == str(published.path)
    report = (published.path / "report.md").read_text("utf-8")
    for words in (
        "4 layers with weights, 2 convolutional and 2 dense",
        "| conv2 | 10×10×16 | 6416 | 640000 | 13×13 | 4×4 |",
        "(x − 127.5) / 255",
        "learning rate 0.0001",
        "| baseline | validation accuracy | .494 | Niaz, 1.2 |",
        "No row was given more than 1 epochs",
        "baseline.png",
        "curves.csv",
    ):
        assert words in report
    assert "Demo data" not in report


def test_a_study_writes_a_whole_run_folder_and_reuses_rows(
    data, small_baseline, capsys, monkeypatch
):
    config = part1_baseline.Config(data=data, seeds=(0, 1))
    first = part1_baseline.main(config).path
    results = json.loads((first / "results.json").read_text("utf-8"))
    figure = results["figures"]["baseline/baseline/val_accuracy"]
    assert figure["n"] == 2
    assert figure["seeds"] == [0, 1]
    assert figure["split"] == "val"
    assert figure["mean"] == np.mean(figure["values"])
    with open(first / "curves.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    last = next(r for r in rows if r["seed"] == "1" and r["epoch"] == "2")
    assert float(last["val_accuracy"]) == figure["values"][1]
    splits = [(first / f"splits-seed-{seed}.csv").read_text() for seed in (0, 1)]
    assert splits[0] != splits[1]
    assert "of which 0 were finished before" in (first / "report.md").read_text()

    monkeypatch.setattr(sweep, "_Program", None)
    second = part1_baseline.main(config).path
    assert second != first
    again = json.loads((second / "results.json").read_text("utf-8"))
    assert again["figures"] == results["figures"]
    assert (
        "Trainings: 4, of which 4 were finished" in (second / "report.md").read_text()
    )


def test_demo_data_is_named_everywhere(data, small_baseline, capsys):
    marker = {"kind": "paintings", "seed": 0, "size": 24, "count": 36, "version": 1}
    (data.root / "DEMO.json").write_text(json.dumps(marker), encoding="utf-8")
    path = part1_baseline.main(part1_baseline.Config(data=data, seeds=(0,))).path
    out = capsys.readouterr().out
    assert "demo data, drawn by code" in out
    assert "val_accuracy: " in out
    assert "(demo data)" in out
    assert "**Demo data.**" in (path / "report.md").read_text("utf-8")
    assert json.loads((path / "results.json").read_text())["data"]["is_demo"]


def test_kept_networks_can_be_evaluated(data, capsys):
    study = Study(StudyConfig(data=data, seeds=(3,)))
    row = small_row(save=True)
    table = Table("1.6", "best", "About.", (row,))
    findings = table_findings(study, [table])
    ((_, run),) = findings.runs["best/small"]
    evaluate.main(evaluate.Config(run.folder.parent, split="val"))
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["val accuracy"] == lines["recorded val accuracy"]
    (figure,) = [m for m in findings.measurements if m.name.endswith("/val_accuracy")]
    assert float(lines["val accuracy"]) == pytest.approx(figure.values[0], abs=1e-6)


def test_apart_by_more_than_two_sd():
    ours = Measurement("x", [0.4, 0.5, 0.6], [0, 1, 2])
    assert ours.sd == pytest.approx(0.1)
    assert tables.apart(0.69, ours) == "no"
    assert tables.apart(0.71, ours) == "yes, ours is lower"
    assert tables.apart(0.29, ours) == "yes, ours is higher"
    assert tables.apart([0.6, 0.71], ours) == "no"
    assert tables.apart([0.71, 0.8], ours) == "yes, ours is lower"
    assert tables.apart(0.9, Measurement("x", [0.4], [0])) == "–"


def test_settings_are_shared_or_the_rows_own():
    optim = OptimConfig("sgd", 0.1, momentum=0.0)
    rows = (
        small_row("a"),
        dataclasses.replace(
            small_row("b"),
            configuration=Configuration(
                "mlp", {"hidden": 4}, optim, epochs=2, batch_size=8
            ),
        ),
    )
    shared, varied = tables.settings(Table("1.4", "t", "About.", rows))
    assert shared["hidden"] == "4"
    assert shared["epochs"] == "2"
    assert varied["a"] == "optimizer adam, learning rate 0.01"
    assert varied["b"] == "optimizer sgd, learning rate 0.1, momentum 0"


def test_findings_in_words():
    def figures(train, val):
        return {
            "train_accuracy": Measurement("t", train, [0, 1]),
            "val_accuracy": Measurement("v", val, [0, 1]),
        }

    one = tables.finding({"a": figures([0.9, 0.9], [0.5, 0.6])})
    assert "it overfits" in one
    two = tables.finding(
        {
            "a": figures([0.6, 0.6], [0.5, 0.52]),
            "b": figures([0.9, 0.9], [0.3, 0.31]),
        }
    )
    assert "Highest validation accuracy: **a (.510 ± .014)**" in two
    assert "more than two standard errors" in two
    assert "most for b (by .595)" in two


def test_heads_name_images_they_have_not_seen(data):
    dataset = load_dataset(data, tables.IMAGES)
    labels = dataset.labels
    rng = np.random.default_rng(0)
    features = (np.eye(3)[labels] * 3 + rng.normal(0, 0.3, (2, len(labels), 3))).astype(
        np.float32
    )
    features[:, 0] = -features[:, 0]  # one that nothing like it can be learned from
    model = create_model("mlp", 3, hidden=3)
    config = part1_transfer.Config(
        folds=3, head_epochs=40, batch_size=8, optim=OptimConfig("adam", 3e-2)
    )
    variables = init_variables(model, 0, (3,))
    logits, fold = part1_transfer.fold_logits(
        config, model, variables, dataset, features, seed=0
    )
    right = logits.argmax(-1) == labels
    assert not right[0]
    assert right[1:].all()
    assert sorted(np.bincount(fold)) == [12, 12, 12]
    for label in range(3):
        assert sorted(np.bincount(fold[labels == label])) == [4, 4, 4]


def test_part1_writes_one_report_of_all(data, small_baseline, capsys, monkeypatch):
    """With stand-ins for the two experiments that need large networks."""
    monkeypatch.setattr(part1, "TABLES", (part1_baseline,))

    def robustness(config, study):
        assert config.seeds == (0,)
        path = part1_baseline.main(part1_baseline.Config(data=data, seeds=(0,))).path
        (path / "curves.png").write_bytes((path / "baseline.png").read_bytes())
        return path

    def transfer(config):
        published = part1_baseline.main(part1_baseline.Config(data=data, seeds=(0,)))
        return dataclasses.replace(
            published, title="Transfer", findings=tables.Findings([], {}, [])
        )

    monkeypatch.setattr(part1_robustness, "main", robustness)
    monkeypatch.setattr(part1_transfer, "main", transfer)
    path = part1.main(part1.Config(data=data, seeds=(0,)))
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    report = (path / "report.md").read_text("utf-8")
    for line in report.splitlines():
        if line.startswith("- ["):
            assert (path / line.rpartition("](")[2].rstrip(")")).is_file()
    assert report.count("report.md)") == 3
    assert "baseline.png" in report
    assert "curves.png" in report
    figures = json.loads((path / "results.json").read_text("utf-8"))["figures"]
    assert "baseline/baseline/val_accuracy" in figures


def test_bad_input_is_one_line(data):
    for config, message in (
        (part1_baseline.Config(data=data, seeds=()), "--seeds"),
        (part1_baseline.Config(data=data, epochs=0), "epochs"),
        (part1_baseline.Config(data=DataConfig(root=Path("nowhere"))), "nowhere"),
    ):
        with pytest.raises(InputError, match=message) as error:
            part1_baseline.main(config)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="sideways"):
        part1_robustness.main(
            part1_robustness.Config(data=data, transforms=("sideways",))
        )
