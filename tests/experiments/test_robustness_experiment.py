"""Robustness from a checkpoint to its report: of several seeds, and of two networks."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

from experiments import part2_mlp, robustness, robustness_report
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError

TRANSFORMS = ("brighten", "rotation", "invert")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and the checkpoint of two seeds in `network`."""
    folder = tmp_path_factory.mktemp("trained")
    root = write_images(folder / "images")
    config = dataclasses.replace(
        part2_mlp.Config(),
        data=DataConfig(root=root, split=SplitConfig(train=0.5, val=0.25, test=0.25)),
        hidden=8,
        epochs=4,
        batch_size=8,
        seeds=(0, 1),
        runs=folder / "runs",
        checkpoints=folder / "checkpoints",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        part2_mlp.main(config)
    (network,) = (folder / "checkpoints" / "part2_mlp").iterdir()
    shutil.move(network, folder / "network")
    return folder


def config(trained: Path, tmp_path: Path, **changes) -> robustness.Config:
    settings = {"checkpoint": trained / "network", "transforms": TRANSFORMS}
    return robustness.Config(**{**settings, "runs": tmp_path / "runs", **changes})


def run(config: robustness.Config, capsys) -> tuple[Path, dict]:
    robustness.main(config)
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    return folder, json.loads((folder / "results.json").read_text())


def read_csv(folder: Path) -> list[dict[str, str]]:
    with open(folder / "robustness.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_all_seeds_are_measured_and_written(trained, tmp_path, capsys) -> None:
    folder, results = run(config(trained, tmp_path), capsys)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "robustness.csv",
        "curves.png",
        "contact_sheet.png",
        "results.json",
        "report.md",
    }
    rows = read_csv(folder)
    assert len(rows) == 2 * (1 + 5 + 5 + 1)
    for row in rows:
        assert float(row["accuracy"]) == int(row["correct"]) / int(row["num"])

    figures = results["figures"]
    for seed in (0, 1):
        card = json.loads((trained / f"network/seed-{seed}/card.json").read_text())
        recorded = card["recorded"]["val"]["accuracy"]
        assert figures["unchanged"]["values"][seed] == recorded
    for row in rows:
        if row["transform"] != "none":
            figure = figures[f"{row['transform']} {float(row['strength']):g}"]
            value = figure["values"][figure["seeds"].index(int(row["seed"]))]
            assert value == float(row["accuracy"])
    brighter = [figures[f"brighten {s:g}"]["mean"] for s in (0.1, 0.25, 0.5, 1, 2)]
    assert figures["brighten"]["mean"] == pytest.approx(np.mean(brighter))
    assert figures["brighten"]["split"] == "val"
    means = [figures[name]["mean"] for name in TRANSFORMS]
    assert figures["mean over all changes"]["mean"] == pytest.approx(np.mean(means))

    report = (folder / "report.md").read_text()
    for words in ("curves.png", "contact_sheet.png", "robustness.csv", "2 seeds", "±"):
        assert words in report
    assert "| brighten 0.1 |" not in report  # in results.json, not at the top


def test_the_same_command_gives_the_same_figures(trained, tmp_path, capsys) -> None:
    seed = config(trained, tmp_path, checkpoint=trained / "network" / "seed-1")
    first, one = run(seed, capsys)
    second, two = run(seed, capsys)
    assert first != second
    assert one["figures"] == two["figures"]
    assert one["figures"]["unchanged"]["seeds"] == [1]
    assert one["figures"]["unchanged"]["sd"] is None


def test_two_networks_are_compared(trained, tmp_path, capsys) -> None:
    both = config(
        trained,
        tmp_path,
        compare=trained / "network",
        label="plain",
        compare_label="augmented",
        image="red/03.png",
        transforms=("invert",),
    )
    folder, results = run(both, capsys)
    figures = results["figures"]
    assert figures["augmented: invert"]["values"] == figures["invert"]["values"]
    report = (folder / "report.md").read_text()
    assert "What augmented gains over plain" in report
    assert "+.000 ± .000" in report
    assert "on the same images, seed by seed" in report
    assert "red/03.png" in report
    assert {row["network"] for row in read_csv(folder)} == {"plain", "augmented"}


def test_different_seeds_are_not_taken_for_pairs(trained, tmp_path, capsys) -> None:
    both = config(
        trained,
        tmp_path,
        checkpoint=trained / "network" / "seed-0",
        compare=trained / "network" / "seed-1",
        transforms=("invert",),
    )
    folder, _ = run(both, capsys)
    assert "of its own splits, which differ" in (folder / "report.md").read_text()


def test_published_figures_stand_beside_ours(
    trained, tmp_path, capsys, monkeypatch
) -> None:
    entry = {"section": "1.7", "metric": "val_accuracy", "source": "report A"}
    entries = [
        {**entry, "row": "rotation 45", "value": 0.123},
        {**entry, "row": "unchanged", "value": 0.5},
        {**entry, "row": "never measured", "value": 0.456},
        {**entry, "row": "invert", "value": 0.789, "metric": "train_accuracy"},
        {**entry, "row": "invert", "value": 0.567, "section": "1.4"},
    ]
    path = tmp_path / "published.json"
    path.write_text(json.dumps(entries))
    found = robustness_report.published_figures(path)
    assert [e["row"] for e in found] == ["rotation 45", "unchanged", "never measured"]
    assert robustness_report.published_figures(tmp_path / "missing.json") == []

    monkeypatch.setattr(robustness_report, "published_figures", lambda: found)
    folder, _ = run(config(trained, tmp_path), capsys)
    report = (folder / "report.md").read_text()
    assert "| rotation 45 | .123 | report A |" in report
    assert "| unchanged | .500 | report A |" in report
    assert "never measured" not in report


def test_bad_input_is_one_line_and_leaves_no_run_folder(trained, tmp_path) -> None:
    def copy(name: str, **changes) -> Path:
        """A checkpoint that has another card."""
        folder = tmp_path / name
        shutil.copytree(trained / "network" / "seed-0", folder)
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **changes}))
        return folder

    def rewrite_splits(folder: Path, old: str, new: str) -> None:
        path = folder / "splits.csv"
        path.write_text(path.read_text().replace(old, new))

    unfinished = copy("unfinished", recorded={})
    no_val = copy("no-val")
    rewrite_splits(no_val, ",val\n", ",train\n")
    others = tmp_path / "others"
    shutil.copytree(trained / "images", others)
    (others / "red").rename(others / "crimson")
    classes = ["blue", "crimson", "green"]
    mismatched = copy("mismatched", classes=classes)
    renamed = copy("renamed", classes=classes, data={"root": str(others)})
    rewrite_splits(renamed, "red", "crimson")

    for changes, words in (
        ({"checkpoint": tmp_path}, "no checkpoint there"),
        ({"checkpoint": tmp_path / "nowhere"}, "no checkpoint there"),
        ({"checkpoint": unfinished}, "has not finished"),
        ({"checkpoint": no_val}, "--split val: .*no image"),
        ({"checkpoint": mismatched}, "classes are not those of the checkpoint"),
        ({"root": others}, "not there"),
        ({"compare": renamed}, "--compare .*classes are not those of --checkpoint"),
        ({"root": tmp_path / "nowhere"}, "nowhere"),
        ({"transforms": ("melt",)}, "--transforms: .*'melt'"),
        ({"image": "red/99.png"}, "--image red/99.png"),
        ({"compare": tmp_path}, "no checkpoint there"),
        ({"compare": trained / "network", "compare_label": "trained"}, "another name"),
        ({"seed": -1}, "seed -1"),
    ):
        with pytest.raises(InputError, match=words) as error:
            robustness.main(config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
