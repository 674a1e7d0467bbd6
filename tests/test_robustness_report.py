"""Robustness from a checkpoint to its report: of several seeds, and of two networks."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_images import write_images
from trained_networks import write_checkpoints

from jaxvision.classifier import ModelCard
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.declaration import Experiment, Table
from jaxvision.errors import InputError
from jaxvision.experiment import run_experiment
from jaxvision.preprocessing import Preprocessing
from jaxvision.robustness.config import RobustnessConfig, RobustnessOptions
from jaxvision.robustness.report import robustness, robustness_sections
from jaxvision.settings import Recipe, RunConfig

SPLIT = SplitConfig(train=0.5, val=0.25, test=0.25)
TRANSFORMS = ("brighten", "rotation", "invert")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` and the checkpoint of two seeds in `network`."""
    folder = tmp_path_factory.mktemp("trained")
    data = DataConfig(root=write_images(folder / "images"), split=SPLIT)
    dataset = load_dataset(data).decode(Preprocessing((12, 12), "stretch"))
    write_checkpoints(folder / "network", dataset, "mlp", {"hidden": 8})
    return folder


def config(trained: Path, tmp_path: Path, **changes: Any) -> RobustnessConfig:
    config = RobustnessConfig(
        trained / "network", transforms=TRANSFORMS, runs=tmp_path / "runs"
    )
    return dataclasses.replace(config, **changes)


def run(config: RobustnessConfig, capsys: pytest.CaptureFixture) -> tuple[Path, dict]:
    folder = robustness(config)
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
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
    for words in (
        "curves.png",
        "contact_sheet.png",
        "robustness.csv",
        "2 seeds",
        "±",
    ):
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


def test_rows_of_an_experiment_stand_beside_published_figures(
    trained, tmp_path
) -> None:
    recipe = Recipe(
        "mlp", {"hidden": 8}, method="scratch", image_size=12, epochs=1, batch_size=8,
        select="last",
    )  # fmt: skip
    recipes = {"plain": recipe, "longer": recipe.replace(epochs=2)}
    published = {"metric": "val_accuracy", "source": "report A"}
    experiment = Experiment(
        name="changed",
        section="1.7",
        title="Changed images",
        question="What do changed images do?",
        chapter="part-1",
        dataset="artists",
        tables={"": Table(recipes, save=tuple(recipes))},
        options=RobustnessOptions,
        sweep=True,
        sections=robustness_sections,
        published=(
            {**published, "row": "rotation 45", "value": 0.123},
            {**published, "row": "never measured", "value": 0.456},
        ),
    )
    settings = RunConfig(
        data=DataConfig(root=trained / "images", split=SPLIT),
        seeds=(0, 1),
        runs=tmp_path / "runs",
        checkpoints=tmp_path / "checkpoints",
    )
    options = RobustnessOptions(("rotation",))
    results = run_experiment(experiment, settings, options=options)
    folder = results.run.path
    figures = json.loads((folder / "results.json").read_text())["figures"]
    for row in recipes:
        name = "unchanged" if row == "plain" else f"{row}: unchanged"
        last = results.measurements["", row]["val_accuracy"]
        assert figures[name]["values"] == pytest.approx(last.values)
    report = (folder / "report.md").read_text()
    assert "What longer gains over plain" in report
    assert "| rotation 45 | validation accuracy | .123 |" in report
    assert "other data" in report
    assert "never measured" not in report


def test_bad_input_is_one_line_and_leaves_no_run_folder(trained, tmp_path) -> None:
    def copy(name: str, old: str = "", new: str = "", **changes) -> Path:
        """A checkpoint that has another card, and `new` for `old` in its splits."""
        folder = tmp_path / name
        shutil.copytree(trained / "network" / "seed-0", folder)
        card = ModelCard.read(folder)
        splits = folder / "splits.csv"
        splits.write_text(splits.read_text().replace(old, new))
        dataclasses.replace(card, **changes).write(folder)
        return folder

    unfinished = copy("unfinished", recorded={})
    no_val = copy("no-val", ",val,", ",train,")
    others = tmp_path / "others"
    shutil.copytree(trained / "images", others)
    (others / "red").rename(others / "crimson")
    classes = ("blue", "crimson", "green")
    mismatched = copy("mismatched", classes=classes)
    renamed = copy(
        "renamed", "red", "crimson", classes=classes, data={"root": str(others)}
    )

    for changes, words in (
        ({"checkpoint": tmp_path}, "no checkpoint there"),
        ({"checkpoint": tmp_path / "nowhere"}, "no checkpoint there"),
        ({"checkpoint": unfinished}, "has not finished"),
        ({"checkpoint": no_val}, "`split` val: .*no image"),
        ({"checkpoint": mismatched}, "classes are not those of the checkpoint"),
        ({"root": others}, "not there"),
        ({"compare": renamed}, "`compare` .*classes are not those of `checkpoint`"),
        ({"root": tmp_path / "nowhere"}, "nowhere"),
        ({"transforms": ("melt",)}, "`transforms`: .*'melt'"),
        ({"image": "red/99.png"}, "`image` red/99.png"),
        ({"compare": tmp_path}, "no checkpoint there"),
        ({"compare": trained / "network", "compare_label": "trained"}, "another name"),
        ({"seed": -1}, "`seed` -1: must be at least 0"),
    ):
        with pytest.raises(InputError, match=words) as error:
            robustness(config(trained, tmp_path, **changes))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
