"""The learning-rate finder: its rule, its sweep, and what the command leaves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
import jaxvision.recipe
from jaxvision.cli.main import main
from jaxvision.errors import InputError
from jaxvision.plotting import learning_rate_curve
from jaxvision.rate_finder import FoundRate
from jaxvision.recipe import losses_at_constant_rates, losses_at_rates, make_start

MLP = jv.Recipe(
    "mlp",
    {"hidden": 8},
    method="scratch",
    image_size=12,
    epochs=1,
    batch_size=8,
    optim=jv.OptimConfig("adam", 1e-2),
    schedule=jv.ScheduleConfig(),
    augment=jv.AugmentConfig(horizontal_flip=0.5),
    mixup=0.2,
)
RATES = np.geomspace(1e-6, 10, 140)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("photos") / "photos")


def curve(steepest: float, end: float = np.inf) -> np.ndarray:
    """Falls around one rate, by a logistic curve; explodes after another."""
    fall = 2 / (1 + np.exp(3 * np.log(RATES / steepest)))
    return 0.4 + fall + np.where(end < RATES, 50.0, 0.0)


@pytest.mark.parametrize("steepest", [1e-4, 3e-3, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_suggestion_is_where_the_loss_falls_most_steeply(steepest, noise):
    losses = curve(steepest) + np.random.default_rng(0).normal(0, noise, len(RATES))
    found = FoundRate.of(RATES, losses)
    assert found.suggestion == pytest.approx(steepest, rel=0.15 if not noise else 0.5)
    assert np.abs(found.smoothed - curve(steepest)).mean() < 0.1
    np.testing.assert_array_equal(found.losses, losses)


def test_what_explodes_does_not_reach_back():
    losses = curve(1e-3, end=0.5)
    found = FoundRate.of(RATES, losses)
    assert found.suggestion == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize("losses", [np.ones(140), np.linspace(1, 3, 140), np.ones(1)])
def test_nothing_is_suggested_where_nothing_falls(losses):
    assert FoundRate.of(RATES[: len(losses)], losses).suggestion is None


def test_the_sweep_is_the_training_at_other_rates(photos, tmp_path):
    """At the recipe's own rate, an epoch's losses are those of `train`."""
    data, start = jv.load_dataset(photos), make_start(MLP.replace(mixup=0.0))
    dataset = data.with_seed(2).decode(start.preprocessing)
    images = len(dataset.splits["train"])
    steps = -(-images // 8)
    left = images - 8 * (steps - 1)
    losses = list(
        losses_at_rates(
            start, dataset, None, [1e-2] * steps,
            seed=2, folder=tmp_path, progress=False,
        )
    )  # fmt: skip
    mean = (sum(losses[:-1]) * 8 + losses[-1] * left) / images
    trained = jv.train(data, start.recipe, seed=2, progress=False)
    assert mean == pytest.approx(trained.history[0]["train_loss"], rel=1e-5)


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_rates_in_parallel_are_trainings_at_each_of_them(photos, tmp_path, mixup):
    data, start = jv.load_dataset(photos), make_start(MLP.replace(mixup=mixup))
    dataset = data.with_seed(2).decode(start.preprocessing)
    rates, options = (1e-4, 1e-2, 0.5), {"seed": 2, "progress": False}
    found = losses_at_constant_rates(
        start, dataset, None, rates, steps=7, folder=tmp_path, **options
    )
    assert found.shape == (7, 3)
    for rate, losses in zip(rates, found.T, strict=True):
        alone = losses_at_rates(
            start, dataset, None, [rate] * 7, folder=tmp_path, **options
        )
        np.testing.assert_allclose(losses, list(alone), rtol=1e-4, atol=1e-6)


def test_parallel_rates_give_a_curve(photos):
    data = jv.load_dataset(photos)
    options = {"lowest": 1e-5, "steps": 20, "parallel": 24, "progress": False}
    found = jv.find_learning_rate(data, MLP, **options)
    assert 1 <= len(found.rates) == len(found.losses) <= 24
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.losses.min() < found.losses[0]
    with pytest.raises(InputError, match="`parallel` 3: must be at least 20"):
        jv.find_learning_rate(data, MLP, **options | {"parallel": 3})


def test_the_same_seed_finds_the_same(photos):
    data = jv.load_dataset(photos)
    found, again = (
        jv.find_learning_rate(data, MLP, steps=30, lowest=1e-4, progress=False)
        for _ in range(2)
    )
    assert len(found.rates) == len(found.losses) <= 30
    assert found.rates[0] == pytest.approx(1e-4)
    np.testing.assert_array_equal(found.losses, again.losses)
    assert found.suggestion == again.suggestion


def test_heads_on_features_have_a_rate_too(photos, monkeypatch):
    """On features that are drawn about a center for each class."""
    data = jv.load_dataset(photos)

    def drawn(recipe, model, variables, dataset, *, progress):
        rng = np.random.default_rng(0)
        centers = rng.normal(size=(len(dataset.classes), 1280))
        noise = rng.normal(size=(len(dataset.images), 1280))
        return (centers[dataset.labels] + noise).astype(np.float32)[None]

    monkeypatch.setattr(jaxvision.recipe, "extract_views", drawn)
    recipe = jv.Recipe(method="features", image_size=32, batch_size=8)
    found = jv.find_learning_rate(data, recipe, progress=False)
    assert found.suggestion is not None
    assert 1e-5 < found.suggestion < 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lowest": 0.0}, "`lowest` 0.0: must be above 0"),
        ({"lowest": 1.0, "highest": 0.1}, r"`highest` 0.1: must be above `lowest` 1"),
        ({"steps": 3}, "`steps` 3: must be at least 20"),
        ({"seed": -1}, "`seed` -1"),
    ],
)
def test_what_means_nothing_is_refused(photos, changes, said):
    with pytest.raises(InputError, match=said):
        jv.find_learning_rate(jv.load_dataset(photos), MLP, **changes)


def test_a_solved_head_has_no_rate(photos):
    recipe = jv.Recipe(method="features", solver="ridge")
    with pytest.raises(InputError, match="`solver` ridge: has no learning rate"):
        jv.find_learning_rate(jv.load_dataset(photos), recipe)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [({}, False), ({"head_epochs": 0}, True), ({"method": "head"}, True)],
)
def test_epochs_count_where_they_decide_on_the_head(changes, idle):
    found = jaxvision.rate_finder.idle_in_range_test(jv.Recipe(**changes))
    assert ("epochs" in found) == idle


def test_the_command_leaves_a_run_folder(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = (
        "--method scratch --network mlp --option hidden=8 --image-size 12 "
        "--batch-size 8 --epochs 3 --steps 24 --lowest 1e-4"
    )
    main(["find-lr", str(photos), *arguments.split()])
    printed = capsys.readouterr()
    assert "--epochs plays no part in a learning-rate range test" in printed.err
    run = Path(printed.out.splitlines()[-1])
    assert run.parent == Path("runs/find_lr")
    assert (run / "learning_rates.png").is_file()
    with (run / "learning_rates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-4)
    assert "learning_rates.csv" in (run / "report.md").read_text()
    figures = json.loads((run / "results.json").read_text())["figures"]
    (line,) = [x for x in printed.out.splitlines() if x.startswith("suggestion:")]
    if figures:
        assert line == f"suggestion: {figures['suggestion']['values'][0]}"
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_one_seed_alone(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["find-lr", str(photos), "--seeds", "0", "1"])
    assert "--seeds" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["find-lr", str(photos), "--steps", "2"])
    assert "--steps 2: must be at least 20" in capsys.readouterr().err


def test_a_figure_without_a_suggestion():
    found = FoundRate.of(RATES, np.ones(140))
    figure = learning_rate_curve(
        found.rates, found.losses, found.smoothed, None, title="x"
    )
    assert len(figure.axes[0].lines) == 2
