"""Sweeps: many models at once end as each of them alone, and as `fit` has it."""

import dataclasses
import math
from itertools import chain

import numpy as np
import pytest
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import create_model
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.training import sweep
from jaxvision.training.checkpoint import CheckpointFolder, flatten
from jaxvision.training.loop import fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.sweep import Configuration, curves, run_sweep

SIZE = 12
BATCH = 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """30 images of three classes; 24 train, so that the last batch is whole."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        (root / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 200, (SIZE, SIZE, 3)) + 25 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    config = DataConfig(root=root, split=SplitConfig(train=0.7, val=0.3, test=0.0))
    return load_dataset(config, Preprocessing(size=(SIZE, SIZE), resize_mode="stretch"))


@pytest.fixture
def datasets(dataset):
    """Seed -> the images in its own split."""
    split = dataset.config.split
    return {
        seed: dataset.resplit(dataclasses.replace(split, seed=seed)) for seed in (0, 3)
    }


def network(rate=0.0, **changes):
    options = {"blocks": 1, "filters": 4, "dense_width": 8, "conv_dropout_rate": rate}
    values = {"epochs": 4, "batch_size": BATCH, "optim": OptimConfig("adam", 3e-3)}
    return Configuration("convnet", options, **{**values, **changes})


def quick(**changes):
    """For what does not depend on the network."""
    values = {"epochs": 4, "batch_size": BATCH, "optim": OptimConfig("adam", 3e-3)}
    return Configuration("mlp", {"hidden": 4}, **{**values, **changes})


VARIED = [
    network(0.0),
    network(0.3),
    network(0.5, optim=OptimConfig("adam", 1e-3, weight_decay=0.05)),
    network(0.3, optim=OptimConfig("adam", 3e-3, schedule="cosine"), epochs=3),
    network(0.1, optim=OptimConfig("adam", 1e-2), patience=1, epochs=6),
]


def final(folder):
    return flatten(CheckpointFolder(folder).load("best").arrays)


def assert_same(runs, others):
    pairs = zip(chain(*runs), chain(*others), strict=True)
    for run, other in pairs:
        assert len(run.rows) == len(other.rows)
        assert run.reason == other.reason
        for row, same in zip(run.rows, other.rows, strict=True):
            assert row == pytest.approx(same, abs=1e-4)
        if run.folder is not None:
            left, right = final(run.folder), final(other.folder)
            assert left.keys() == right.keys()
            for name, values in left.items():
                np.testing.assert_allclose(values, right[name], atol=1e-4, rtol=0)


def test_models_at_once_end_as_each_alone(datasets, tmp_path):
    """Dropout, rates, decay, schedules, epochs and early stopping in one program."""
    together, alone = (
        run_sweep(
            VARIED,
            datasets,
            store=tmp_path / str(models),
            save=VARIED,
            models_at_once=models,
        )
        for models in (4, 1)  # 10 models: blocks of 4, 4 and 2 filled up
    )
    assert_same(together, alone)
    stopped = together[-1]
    assert any(len(run.rows) < 6 for run in stopped)
    assert together[0][0].rows != together[0][1].rows


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(rotation=10.0)])
def test_a_sweep_ends_as_fit_does(datasets, tmp_path, augment):
    optim = OptimConfig("adam", 3e-3, schedule="step", decay_epochs=2)
    configuration = network(0.3, optim=optim, augment=augment)
    ((run, _),) = run_sweep(
        [configuration], datasets, store=tmp_path, save=[configuration]
    )
    data = datasets[0]
    model = create_model("convnet", 3, **configuration.options)
    train = data.batches("train", batch_size=BATCH, seed=0, train=True, augment=augment)
    tx = make_optimizer(optim, steps_per_epoch=train.steps_per_epoch, epochs=4)
    variables = init_variables(model, 0, (SIZE, SIZE, 3))
    result = fit(
        model,
        tx,
        make_cross_entropy(),
        create_state(variables, tx, seed=0),
        train,
        normalize=data.preprocessing.normalize,
        epochs=4,
        val=data.batches("val", batch_size=BATCH, train=False),
        runner=Runner(tuple(Runner.all_devices().devices[:1])),
    )
    for row, same in zip(run.rows, result.history, strict=True):
        for name, value in row.items():
            if name != "learning_rate":
                assert value == pytest.approx(same[name], abs=1e-4), name
    if result.best_epoch == 4:
        for name, values in flatten(result.state.variables).items():
            np.testing.assert_allclose(values, final(run.folder)[name], atol=1e-4)


def test_batch_norm_in_a_sweep(datasets, tmp_path):
    configuration = dataclasses.replace(
        network(epochs=2),
        options={"blocks": 1, "filters": 4, "norm": "batch", "dense_width": 8},
    )
    runs = [
        run_sweep(
            [configuration],
            datasets,
            store=tmp_path / str(models),
            save=[configuration],
            models_at_once=models,
        )
        for models in (2, 1)
    ]
    assert_same(*runs)


def test_finished_runs_are_not_trained_again(datasets, tmp_path, monkeypatch):
    first = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    again = run_sweep([quick(), quick()], datasets, store=tmp_path)
    assert again[0][0].reused
    assert again[0][0].rows == first[0][0].rows
    assert not again[0][1].reused
    assert again[1][1] == again[0][1]
    monkeypatch.setattr(sweep, "_Program", None)
    run_sweep([quick()], datasets, store=tmp_path)


def test_half_a_sweep_is_completed(datasets, tmp_path, monkeypatch):
    """A run that is killed leaves what was finished, and that is what is reused."""
    configurations = [quick(epochs=1), quick(epochs=2)]
    written = sweep._Job.write

    def killed(job, run, variables):
        if job.configuration.epochs == 2:
            raise KeyboardInterrupt
        return written(job, run, variables)

    monkeypatch.setattr(sweep._Job, "write", killed)
    monkeypatch.setattr(sweep, "_cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(configurations, datasets, store=tmp_path)
    monkeypatch.undo()
    runs = run_sweep(configurations, datasets, store=tmp_path)
    assert [[run.reused for run in several] for several in runs] == [
        [True, True],
        [False, False],
    ]
    assert runs[1][0].rows == run_sweep([configurations[1]], datasets)[0][0].rows


def test_damaged_or_foreign_results_are_replaced(datasets, tmp_path):
    (first,) = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    result = first[0].folder / "result.json"
    result.write_text("{", encoding="utf-8")
    (second,) = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    assert not second[0].reused
    assert second[0].rows == first[0].rows
    # Another split for the same seed is another run.
    (third,) = run_sweep([quick()], {0: datasets[3]}, store=tmp_path)
    assert not third[0].reused
    # A network that is wanted now and was not kept then is trained again.
    (fourth,) = run_sweep([quick()], {0: datasets[3]}, store=tmp_path, save=[quick()])
    assert not fourth[0].reused
    assert final(fourth[0].folder)


def test_progress_counts_all_epochs(datasets):
    told = []
    run_sweep(
        [quick(epochs=2), quick(epochs=6, patience=1)],
        datasets,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (16, 16)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_diverged_run_says_so(datasets):
    # Weights grow until the loss overflows float32.
    optim = OptimConfig("sgd", 1e30, momentum=0.0)
    ((run, _),) = run_sweep([quick(optim=optim)], datasets)
    assert run.reason == "the loss was not finite"
    assert len(run.rows) < 4 or not math.isfinite(run.rows[-1]["train_loss"])


def test_curves_hold_every_epoch(datasets):
    (runs,) = run_sweep([quick(epochs=2)], datasets)
    header, rows = curves({"a": list(zip(datasets, runs, strict=True))})
    assert header[:3] == ["configuration", "seed", "epoch"]
    assert [row[:3] for row in rows] == [
        ["a", 0, 1], ["a", 0, 2], ["a", 3, 1], ["a", 3, 2],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (Configuration("nonet"), "nonet"),
        (Configuration("convnet", {"blocks": 4, "kernel_size": 7}), "conv"),
        (Configuration("mlp", {"dropout_rate": 1.5}), "dropout_rate"),
        (Configuration("mlp", {"size": 3}), "size"),
        (Configuration("mlp", epochs=0), "epochs"),
        (Configuration("mlp", batch_size=0), "batch_size"),
        (Configuration("mlp", patience=0), "patience"),
        (Configuration("mlp", label_smoothing=1.0), "label_smoothing"),
        (Configuration("mlp", optim=OptimConfig("adam", -1.0)), "learning_rate"),
        (Configuration("mlp", optim=OptimConfig("adam", math.nan)), "learning_rate"),
        (Configuration("mlp", optim=OptimConfig(weight_decay=-1.0)), "weight_decay"),
    ],
)
def test_bad_configurations_are_refused_in_one_line(datasets, configuration, message):
    with pytest.raises(InputError, match=message) as error:
        run_sweep([configuration], datasets)
    assert "\n" not in str(error.value)


def test_other_bad_input_is_refused(datasets, dataset, tmp_path):
    with pytest.raises(InputError, match="seeds"):
        run_sweep([quick()], {})
    with pytest.raises(InputError, match="models at once"):
        run_sweep([quick()], datasets, models_at_once=0)
    with pytest.raises(InputError, match="seed -1"):
        run_sweep([quick()], {-1: dataset})
    unsplit = dataset.resplit(SplitConfig(train=1.0, val=0.0, test=0.0))
    with pytest.raises(InputError, match="val split"):
        run_sweep([quick()], {0: unsplit})
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="can't write"):
        run_sweep([quick(epochs=1)], datasets, store=tmp_path / "file")
