"""The experiment on receptive fields, from command line to report."""

import json
import sys
from pathlib import Path

import pytest

from experiments.common import run_cli
from experiments.receptive_field import Config, main
from experiments.receptive_field_report import example


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    flags = ["receptive_field.py", *arguments, "--runs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", flags)
    run_cli(main, Config, "description")


def test_the_example_of_the_assignment():
    network = example()
    assert [row[2] for row in network.rows()] == ["5×5", "7×7"]
    assert all(check.agrees for check in network.checks)


@pytest.mark.parametrize("model", ["simple_cnn", "mlp"])
def test_a_run_leaves_figure_results_and_report(tmp_path, monkeypatch, capsys, model):
    run(tmp_path, monkeypatch, "--model", model)
    printed = capsys.readouterr().out
    folder = Path(printed.splitlines()[-1])
    assert folder.is_dir()
    assert "7×7" in printed
    assert "DIFFERS" not in printed
    report = (folder / "report.md").read_text("utf-8")
    assert report.index("| Z2 | 9×9 | 7×7 |") < report.index("| whole image |")
    figures = json.loads((folder / "results.json").read_text())["figures"]
    assert (folder / f"{model}.png").is_file() == (model == "simple_cnn")
    if model == "simple_cnn":
        assert figures["conv2_receptive_field"]["values"] == [13]
        assert figures["agreeing_layers"]["mean"] == 1
    config = json.loads((folder / "config.json").read_text())
    assert config["image_size"] == {"simple_cnn": 50, "mlp": 28}[model]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lexnet"], "no network 'lexnet'; there are: mlp"),
        (["--image-size", "9"], "conv2: a 5x5 kernel of stride 2 leaves nothing"),
        (["--image-size", "0"], "--image-size is 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path, monkeypatch, capsys, arguments, message
):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, monkeypatch, *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
