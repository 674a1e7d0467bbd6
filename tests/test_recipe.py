"""A recipe decides a classifier to the bit; training stops and goes on exactly."""

import dataclasses
import signal

import chex
import jax
import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision.config import from_plain, to_plain
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.linear_heads import fit_ridge
from jaxvision.recipe import Recipe, doubts, extract_views, make_card, make_start
from jaxvision.report.progress import Progress
from jaxvision.settings import AugmentConfig, OptimConfig, ScheduleConfig
from jaxvision.training.loop import Callbacks, Interrupted
from jaxvision.training.state import init_variables
from jaxvision.transfer import extract_features

MLP = Recipe(
    "mlp",
    {"hidden": 8, "dropout_rate": 0.2},
    method="scratch",
    image_size=12,
    epochs=3,
    batch_size=8,
    optim=OptimConfig("adam", 1e-2),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_images(tmp_path_factory.mktemp("data") / "images")
    return jv.load_dataset(DataConfig(root, split=SplitConfig(0.5, 0.25, 0.25)))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A checkpoint folder and the classifier in it."""
    folder = tmp_path_factory.mktemp("trained") / "seed-0"
    options = {"folder": folder, "measure_train": True, "progress": False}
    return folder, jv.train(data, MLP, **options)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)


def test_equal_recipes_give_the_same_bits_and_other_seeds_do_not(data, trained):
    _, classifier = trained
    assert_same(jv.train(data, MLP, progress=False), classifier)
    other = jv.train(data, MLP, seed=1, progress=False)
    with pytest.raises(AssertionError):
        assert_same(other, classifier)


def test_every_split_is_recorded_and_the_history_kept(data, trained):
    _, classifier = trained
    assert set(classifier.card.recorded) == {"train", "val", "test"}
    assert [row["epoch"] for row in classifier.history] == [1, 2, 3]
    found = classifier.evaluate(data)
    assert found.split == "test"
    assert found.row == classifier.card.recorded["test"]
    assert len(found.labels) == 9


def test_training_images_are_measured_where_asked_or_where_there_are_no_others(
    data, trained, tmp_path
):
    recorded = trained[1].card.recorded
    held_out = jv.train(data, MLP, progress=False).card.recorded
    assert held_out == {split: recorded[split] for split in ("val", "test")}
    config = dataclasses.replace(data.config, split=SplitConfig(1.0, 0.0, 0.0))
    alone = jv.train(jv.load_dataset(config), MLP, progress=False)
    assert set(alone.card.recorded) == {"train"}


def test_a_finished_training_is_read_and_not_done_again(data, trained):
    folder, classifier = trained
    before = {path: path.read_bytes() for path in folder.glob("*.*")}

    class Never(Callbacks):
        def on_step(self, *_):
            raise AssertionError("trained again")

    again = jv.train(data, MLP, folder=folder, callbacks=[Never()], progress=False)
    assert_same(again, classifier)
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_a_stopped_training_goes_on_to_the_same_bits(data, trained, tmp_path):
    stop = {"folder": tmp_path / "run", "progress": False}

    class StopAt(Callbacks):
        def on_step(self, step, images, metrics):
            if step == 4:
                with pytest.raises(InputError, match="another process is training"):
                    jv.train(data, MLP, **stop)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        jv.train(data, MLP, callbacks=[StopAt()], **stop)
    assert_same(jv.train(data, MLP, **stop), trained[1])


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_a_finished_training_goes_on_to_more_epochs(data, tmp_path, kind):
    recipe = MLP.replace(epochs=2, schedule=ScheduleConfig(kind))
    options = {"folder": tmp_path / "run", "progress": False}
    short = jv.train(data, recipe, **options)
    longer = jv.train(data, recipe.replace(epochs=4), **options)
    at_once = jv.train(data, recipe.replace(epochs=4), progress=False)
    assert [row["epoch"] for row in longer.history] == [1, 2, 3, 4]
    assert [row["train_loss"] for row in longer.history[:2]] == [
        row["train_loss"] for row in short.history
    ]
    assert longer.card.recipe["epochs"] == 4
    assert longer.evaluate(data, "test").row == longer.card.recorded["test"]
    if kind == "constant":
        assert_same(longer, at_once)
        assert longer.card.recorded == at_once.card.recorded
    else:
        assert (
            longer.history[2]["learning_rate"] == (at_once.history[2]["learning_rate"])
        )
    with pytest.raises(InputError, match=r"`epochs` 3: .*trained for 4"):
        jv.train(data, recipe.replace(epochs=3), **options)


def test_what_is_resumed_is_what_was_begun(data, trained, tmp_path):
    """Images that changed since are named before anything is trained or overwritten."""
    root = write_images(tmp_path / "images")
    config = dataclasses.replace(data.config, root=root)
    folder = tmp_path / "run"
    jv.train(jv.load_dataset(config), MLP, folder=folder, progress=False)
    card = (folder / "card.json").read_bytes()
    (root / "red" / "00.png").write_bytes((root / "blue" / "00.png").read_bytes())
    with pytest.raises(InputError, match=r"red/00\.png"):
        jv.train(jv.load_dataset(config), MLP, folder=folder, progress=False)
    assert (folder / "card.json").read_bytes() == card


def test_what_is_doubtful_is_said(data):
    def said(dataset, **changes):
        start = make_start(MLP.replace(**changes))
        return " ".join(doubts(start, dataset.decode(start.preprocessing)))

    assert "each is 11 points" in said(data)
    enough = dataclasses.replace(
        data,
        config=dataclasses.replace(data.config, split=SplitConfig(0.5, 0.5, 0.0)),
    )
    assert said(enough) == ""
    assert "a batch of 19 is larger than the 18 training" in said(enough, batch_size=19)
    assert said(enough, batch_size=1) == ""
    convnet = {"network": "convnet", "options": {}, "batch_size": 1, "image_size": 32}
    assert said(enough, **convnet) == ""
    assert "batch norm" in said(enough, **convnet, norm="batch")
    none = dataclasses.replace(
        data,
        config=dataclasses.replace(data.config, split=SplitConfig(1.0, 0.0, 0.0)),
    )
    assert "no validation images" in said(none)


def test_classes_without_images_in_a_split_are_said(data, tmp_path):
    rows = ["path,label,split"]
    for path in sorted(data.root.glob("*/*.png")):
        split = "val" if path.stem == "01" and path.parent.name == "red" else "train"
        rows.append(f"{path.parent.name}/{path.name},{path.parent.name},{split}")
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    config = DataConfig(data.root, splits=tmp_path / "splits.csv")
    start = make_start(MLP)
    found = doubts(start, jv.load_dataset(config).decode(start.preprocessing))
    assert any(text.startswith("no val image of blue, green:") for text in found)


def test_a_batch_of_a_million_is_refused(data):
    with pytest.raises(InputError, match="`batch_size` 1000000: must be at most 1024"):
        jv.train(data, MLP.replace(batch_size=1_000_000), progress=False)


def test_finetune_is_train_with_keywords(data, trained):
    classifier = jv.finetune(
        data,
        "mlp",
        method="scratch",
        image_size=12,
        epochs=3,
        batch_size=8,
        optim=OptimConfig("adam", 1e-2),
        hidden=8,
        dropout_rate=0.2,
        progress=False,
    )
    assert_same(classifier, trained[1])


@pytest.mark.parametrize(
    "network", [("patches", {"filters": 5}), ("mlp", {"hidden": 9})]
)
def test_a_head_is_solved_on_features_of_a_fresh_network(data, network):
    recipe = Recipe(
        *network, method="scratch", solver="ridge", image_size=12, batch_size=8
    )
    classifier = jv.train(data, recipe, progress=False)
    assert classifier.evaluate(data).row == classifier.card.recorded["test"]
    decoded = data.decode(classifier.card.preprocessing)
    train = decoded.splits["train"]
    images = [decoded.preprocessing.normalize(decoded.image(i)) for i in train]
    fresh = init_variables(classifier.model, 0, (12, 12, 3))
    # Of the training images alone.
    fitted = classifier.model.backbone.fit(images, len(train), 0)
    chex.assert_trees_all_equal(
        classifier.variables["params"]["backbone"],
        fitted or fresh["params"]["backbone"],
    )
    features = extract_features(classifier.model, classifier.variables, decoded)
    head = fit_ridge(features[train], decoded.labels[train], len(decoded.classes))
    np.testing.assert_allclose(
        classifier.variables["params"]["head"]["logits"]["kernel"],
        head.kernel,
        rtol=1e-3,
        atol=1e-5,
    )


def test_progress_counts_the_images_of_all_views(data, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path))
    told = []
    monkeypatch.setattr(Progress, "__call__", lambda _, *counts: told.append(counts))
    recipe = MLP.replace(
        solver="ridge", views=3, augment=AugmentConfig(horizontal_flip=0.5)
    )
    start = make_start(recipe)
    decoded = data.decode(start.preprocessing)
    model = make_card(start, decoded.classes).create_model()
    variables = init_variables(model, 0, (12, 12, 3))
    features = extract_views(recipe, model, variables, decoded, progress=False)
    count = len(decoded.images)
    assert features.shape[:2] == (3, count)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {3 * count}
    assert told[-1] == (3 * count, 3 * count)


def test_a_recipe_survives_json():
    assert from_plain(Recipe, to_plain(MLP)) == MLP
    assert from_plain(Recipe, to_plain(Recipe())) == Recipe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"`epochs` 0: must be at least 1"),
        ({"image_size": -5}, r"`image_size` -5: must be at least 1"),
        ({"label_smoothing": 1.5}, r"`label_smoothing` 1.5: .*below 1"),
        ({"optim": OptimConfig("adam", -1.0)}, r"`optim.learning_rate` -1.0"),
        (
            {"schedule": ScheduleConfig("cosine", warmup_epochs=float("nan"))},
            r"`schedule.warmup_epochs` nan",
        ),
        (
            {"method": "features", "solver": "ridge", "head_hidden": (8,)},
            r"`solver` ridge: solves one dense layer: drop `head_hidden`",
        ),
        ({"network": "no_such"}, r"no_such"),
        ({"no_such_option": 1}, r"no_such_option"),
        ({"method": "full", "network": "no_such"}, r"no_such"),
        (
            {"network": "alexnet", "image_size": 20, "options": {}},
            r"20x20 are too small",
        ),
    ],
)
def test_bad_settings_are_named_before_any_image_is_read(change, message):
    with pytest.raises(InputError, match=message):
        make_start(MLP.replace(**change))


def test_one_logit_needs_two_classes(data):
    with pytest.raises(InputError, match=r"3 classes.*exactly two"):
        jv.train(data, MLP.replace(binary=True), progress=False)
