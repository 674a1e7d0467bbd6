"""Sweeps: many models at once end as each of them alone, and as `train` has it."""

import collections
import math
from itertools import chain

import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.classifier import load_classifier, load_training_data
from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.optim import OptimConfig, ScheduleConfig
from jaxvision.recipe import Recipe, make_start, train
from jaxvision.training import sweep
from jaxvision.training.checkpoint import CheckpointFolder, flatten
from jaxvision.training.parallel import Runner
from jaxvision.training.sweep import run_sweep

SIZE = 12

RECIPE = Recipe(
    "mlp",
    {"hidden": 4},
    method="scratch",
    image_size=SIZE,
    augment=AugmentConfig(),
    optim=OptimConfig("adam", 3e-3),
    schedule=ScheduleConfig(),
    epochs=4,
    batch_size=8,
    select="last",
)


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
    split = SplitConfig(train=0.7, val=0.3, test=0.0)
    dataset = load_dataset(DataConfig(root=root, split=split))
    return dataset.decode(make_start(RECIPE).preprocessing)


@pytest.fixture
def one_device(monkeypatch):
    """`train` on one device, as a sweep does: several draw their own dropout."""
    runner = Runner(tuple(jax.local_devices()[:1]))
    monkeypatch.setattr(Runner, "all_devices", lambda: runner)


@pytest.fixture
def datasets(dataset):
    """Seed -> the images in its own split."""
    return {seed: dataset.with_seed(seed) for seed in (0, 3)}


def quick(**changes):
    """For what does not depend on the network."""
    return make_start(RECIPE.replace(**changes))


def network(rate=0.0, **changes):
    return quick(options={"hidden": 4, "dropout_rate": rate}, **changes)


VARIED = [
    network(0.0),
    network(0.3),
    network(0.5, optim=OptimConfig("adam", 1e-3, weight_decay=0.05)),
    network(0.3, schedule=ScheduleConfig("cosine"), epochs=3),
    network(0.1, optim=OptimConfig("adam", 1e-2), patience=1, epochs=6),
    network(0.1, select="best", class_weights=True, output_biases=True),
]


def final(folder):
    return flatten(CheckpointFolder(folder).load("best").arrays)


def assert_same(runs, others):
    pairs = zip(chain(*runs), chain(*others), strict=True)
    for run, other in pairs:
        assert len(run.history) == len(other.history)
        assert run.reason == other.reason
        for row, same in zip(run.history, other.history, strict=True):
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
    assert any(len(run.history) < 6 for run in stopped)
    assert together[0][0].history != together[0][1].history


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": AugmentConfig(rotation=10.0)},
        {"select": "best", "patience": 2, "epochs": 8, "mixup": 0.4, "cutmix": 1.0},
        {
            "schedule": ScheduleConfig("step", step_epochs=2),
            "dtype": "bfloat16",
            "ema_decay": 0.7,
        },
    ],
)
def test_a_sweep_ends_as_train_does(dataset, tmp_path, one_device, changes):
    """Not to the bit: there the schedule is part of the optimizer."""
    start = network(0.3, **changes)
    ((run,),) = run_sweep(
        [start], {0: dataset.with_seed(0)}, store=tmp_path, save=[start]
    )
    classifier = train(dataset, start.recipe, progress=False)
    for row, same in zip(run.history, classifier.history, strict=True):
        for name, value in row.items():
            assert value == pytest.approx(same[name], abs=1e-4), name
    for name, values in flatten(classifier.variables).items():
        np.testing.assert_allclose(values, final(run.folder)[name], atol=1e-4)


def test_saved_networks_are_classifiers(datasets, tmp_path):
    start = quick()
    ((run, _),) = run_sweep([start], datasets, store=tmp_path, save=[start])
    classifier = load_classifier(run.folder)
    assert classifier.card.recipe["network"] == "mlp"
    assert classifier.card.recorded.keys() == {"train", "val"}
    val = classifier.card.recorded["val"]["accuracy"]
    assert val == run.history[-1]["val_accuracy"]
    dataset = load_training_data(classifier)
    assert classifier.evaluate(dataset, "val").accuracy == val


@pytest.mark.parametrize("models_at_once", [1, 8])
def test_numbers_share_one_program(datasets, monkeypatch, models_at_once):
    """Compiled once, in whichever thread comes first."""
    made = collections.Counter()
    make = sweep.make_train_step

    def counted(*args, **options):
        made["train"] += 1
        return make(*args, **options)

    monkeypatch.setattr(sweep, "make_train_step", counted)
    starts = [
        network(0.2, mixup=0.1),
        network(0.3, optim=OptimConfig("adam", 1e-2, weight_decay=0.1), mixup=0.2),
        network(0.4, schedule=ScheduleConfig("cosine", warmup_epochs=1), mixup=0.4),
    ]
    run_sweep(starts, datasets, models_at_once=models_at_once)
    assert made["train"] == 1


def test_convolutions_and_batch_norm_in_a_sweep(datasets, tmp_path):
    options = {"blocks": 1, "filters": 4, "norm": "batch", "conv_dropout_rate": 0.3}
    options |= {"dense_width": 8}
    start = quick(network="convnet", options=options, epochs=2, ema_decay=0.7)
    runs = [
        run_sweep(
            [start],
            datasets,
            store=tmp_path / str(models),
            save=[start],
            models_at_once=models,
        )
        for models in (2, 1)
    ]
    assert_same(*runs)


def test_finished_runs_are_not_trained_again(datasets, tmp_path, monkeypatch):
    first = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    again = run_sweep([quick(), quick()], datasets, store=tmp_path)
    assert again[0][0].reused
    assert again[0][0].history == first[0][0].history
    assert not again[0][1].reused
    assert again[1][1] == again[0][1]
    monkeypatch.setattr(sweep, "_Program", None)
    options = {**quick().recipe.options, "dropout_rate": 0.0}
    assert options != quick().recipe.options
    run_sweep([quick(), quick(options=options)], datasets, store=tmp_path)


def test_half_a_sweep_is_completed(datasets, tmp_path, monkeypatch):
    """A run that is killed leaves what was finished, and that is what is reused."""
    starts = [quick(epochs=1), quick(epochs=2)]
    written = sweep._Trial.write

    def killed(trial, *what):
        if trial.recipe.epochs == 2:
            raise KeyboardInterrupt
        return written(trial, *what)

    monkeypatch.setattr(sweep._Trial, "write", killed)
    monkeypatch.setattr(sweep, "_cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(starts, datasets, store=tmp_path)
    monkeypatch.undo()
    runs = run_sweep(starts, datasets, store=tmp_path)
    assert [[run.reused for run in several] for several in runs] == [
        [True, True],
        [False, False],
    ]
    assert runs[1][0].history == run_sweep([starts[1]], datasets)[0][0].history


def test_damaged_or_foreign_results_are_replaced(datasets, tmp_path):
    (first,) = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    result = first[0].folder / "result.json"
    result.write_text("{", encoding="utf-8")
    (second,) = run_sweep([quick()], {0: datasets[0]}, store=tmp_path)
    assert not second[0].reused
    assert second[0].history == first[0].history
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


@pytest.mark.parametrize("models_at_once", [1, 2])
def test_a_diverged_run_says_so_and_the_others_go_on(datasets, models_at_once):
    # Weights grow until the loss overflows float32.
    optim = OptimConfig("sgd", 1e30, momentum=0.0)
    starts = [quick(optim=optim), quick(optim=OptimConfig("sgd", 0.1, momentum=0.0))]
    (run, _), (other, _) = run_sweep(starts, datasets, models_at_once=models_at_once)
    assert run.reason == "the loss is not finite"
    assert len(run.history) < 4
    assert not math.isfinite(run.history[-1]["train_loss"])
    assert math.isfinite(run.history[-1]["val_accuracy"])
    assert other.reason == "4 epochs"


def test_ctrl_c_ends_all_threads(datasets):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep([quick(epochs=50), quick(epochs=60)], datasets, progress=stop)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "head"}, "`method` head"),
        ({"solver": "ridge"}, "`solver` ridge: a sweep trains by gradient"),
        ({"gray": True}, "same images"),
        ({"augment": AugmentConfig(pca_color=0.1)}, "images of a sweep"),
        ({"binary": True}, "exactly two"),
    ],
)
def test_recipes_that_no_sweep_can_follow(datasets, changes, message):
    start = quick()
    recipe = start.recipe.replace(**changes)
    if "gray" in changes:
        start = make_start(recipe)
    else:
        start = type(start)(recipe, start.preprocessing)
    with pytest.raises(InputError, match=message) as error:
        run_sweep([start], datasets)
    assert "\n" not in str(error.value)


def test_other_bad_input_is_refused(datasets, dataset, tmp_path):
    with pytest.raises(InputError, match="`seeds`: give"):
        run_sweep([quick()], {})
    with pytest.raises(InputError, match="`seeds` -1"):
        run_sweep([quick()], {-1: dataset})
    root = dataset.root
    split = SplitConfig(train=1.0, val=0.0, test=0.0)
    unsplit = load_dataset(DataConfig(root=root, split=split))
    with pytest.raises(InputError, match=r"`data\.split\.val`"):
        run_sweep([quick()], {0: unsplit.decode(dataset.preprocessing)})
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="can't write"):
        run_sweep([quick(epochs=1)], datasets, store=tmp_path / "file")
