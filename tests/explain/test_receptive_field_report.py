"""Receptive fields of a network, from settings to report."""

import json
from pathlib import Path

import pytest

from jaxvision.errors import InputError
from jaxvision.explain.config import ReceptiveFieldConfig
from jaxvision.explain.receptive_field import example, receptive_field


def test_the_example_of_the_assignment():
    network = example()
    assert [row[2] for row in network.rows()] == ["5×5", "7×7"]
    assert all(check.agrees for check in network.checks)


@pytest.mark.parametrize("network", ["simple_cnn", "mlp"])
def test_a_run_leaves_figure_results_and_report(tmp_path, capsys, network):
    folder = receptive_field(ReceptiveFieldConfig(network, runs=tmp_path))
    printed = capsys.readouterr().out
    assert Path(printed.splitlines()[-1]) == folder
    assert "7×7" in printed
    assert "DIFFERS" not in printed
    report = (folder / "report.md").read_text("utf-8")
    assert report.index("| Z2 | 9×9 | 7×7 |") < report.index("| whole image |")
    figures = json.loads((folder / "results.json").read_text())["figures"]
    assert (folder / f"{network}.png").is_file() == (network == "simple_cnn")
    if network == "simple_cnn":
        assert figures["conv2_receptive_field"]["values"] == [13]
        assert figures["agreeing_layers"]["mean"] == 1
    config = json.loads((folder / "config.json").read_text())
    assert config["image_size"] == {"simple_cnn": 50, "mlp": 28}[network]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "lexnet"}, "no network 'lexnet'; there are: mlp"),
        ({"image_size": 9}, "conv2: a 5x5 kernel of stride 2 leaves nothing"),
        ({"image_size": 0}, "`image_size` 0: must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        receptive_field(ReceptiveFieldConfig(**settings, runs=tmp_path))
    assert list(tmp_path.iterdir()) == []
