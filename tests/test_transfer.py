"""Features computed once train the head that the frozen network would have got."""

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import create_model
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.loop import fit
from jaxvision.training.state import create_state, init_variables
from jaxvision.transfer import extract_features, fit_head, head_alone, join

LOSS = make_cross_entropy()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate("ab"):
        (root / name).mkdir()
        for i in range(11):
            pixels = rng.integers(0, 100, (8, 8, 3)) + 80 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    split = SplitConfig(train=0.6, val=0.2, test=0.2)
    dataset = load_dataset(DataConfig(root=root, split=split))
    return dataset.decode(Preprocessing((8, 8), resize_mode="stretch"))


@pytest.fixture(scope="module")
def network():
    model = create_model("mlp", 2, hidden=6, batch_norm=True, head_hidden=(5,))
    return model, init_variables(model, 0, (8, 8, 3))


def test_features_are_what_the_head_sees(dataset, network):
    model, variables = network
    features = extract_features(model, variables, dataset, batch_size=4)
    assert features.shape == (22, 6)
    images = np.stack([dataset.image(i) for i in range(22)])
    expected = model.apply(
        variables, dataset.preprocessing.normalize(images), train=False
    )
    head = join({}, variables)
    logits = head_alone(model).apply(head, features, train=False)
    chex.assert_trees_all_close(logits, expected, atol=1e-6)


def test_head_on_features_is_the_frozen_network(dataset, network):
    """Same seed, same order of the same batches, no augmentation."""
    model, variables = network
    settings = {"epochs": 3, "batch_size": 4, "seed": 1}
    optim = OptimConfig("sgd", 0.05)
    features = extract_features(model, variables, dataset, batch_size=4)
    data = (features, dataset.labels, dataset.splits)
    joined, result = fit_head(
        model, variables, *data, optim=optim, loss=LOSS, **settings
    )
    train = dataset.batches("train", batch_size=4, seed=1, train=True)
    tx = make_optimizer(optim, steps_per_epoch=train.steps_per_epoch, epochs=3)
    whole = fit(
        model,
        tx,
        LOSS,
        create_state(variables, tx, seed=1, frozen=("backbone",)),
        train,
        normalize=dataset.preprocessing.normalize,
        epochs=3,
        val=dataset.batches("val", batch_size=4, train=False),
    )
    assert result.best_epoch == whole.best_epoch
    chex.assert_trees_all_close(joined, whole.state.variables, atol=1e-5)
    chex.assert_trees_all_equal(
        joined["params"]["backbone"], variables["params"]["backbone"]
    )


def test_features_are_cached_under_all_they_depend_on(
    dataset, network, tmp_path, monkeypatch
):
    model, variables = network
    cache = tmp_path / "features"
    first = extract_features(model, variables, dataset, batch_size=4, cache=cache)
    changed = jax.tree.map(lambda x: x + 1, variables)
    extract_features(model, changed, dataset, batch_size=4, cache=cache)
    (path, _) = sorted(cache.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)

    monkeypatch.setattr("jaxvision.transfer.make_feature_step", None)
    again = extract_features(model, variables, dataset, batch_size=4, cache=cache)
    np.testing.assert_array_equal(again, first)

    monkeypatch.undo()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    fixed = extract_features(model, variables, dataset, batch_size=4, cache=cache)
    np.testing.assert_array_equal(fixed, first)
