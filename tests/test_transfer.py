"""Features computed once train the head that the frozen network would have got."""

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import create_model, pool_features
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.training.loop import fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables
from jaxvision.transfer import (
    extract_features,
    fit_head,
    head_alone,
    head_logits,
    join,
    solve_head,
)

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


def test_the_cache_has_a_limit_and_may_be_full(
    dataset, network, tmp_path, monkeypatch, capsys
):
    model, variables = network
    options = {"batch_size": 4, "cache": tmp_path}
    features = extract_features(model, variables, dataset, **options)
    monkeypatch.setattr("jaxvision.transfer.MOST_KEPT", features.nbytes + 500)
    changed = jax.tree.map(lambda x: x + 1, variables)
    others = extract_features(model, changed, dataset, **options)
    (kept,) = tmp_path.glob("*.npy")
    np.testing.assert_array_equal(np.load(kept), others)

    def full(*_):
        raise InputError("no space left")

    monkeypatch.setattr("jaxvision.transfer.write_atomically", full)
    again = extract_features(model, variables, dataset, **options)
    np.testing.assert_array_equal(again, features)
    assert capsys.readouterr().err == (
        "warning: features are not kept: no space left\n"
    )


@pytest.mark.parametrize(("pooling", "width"), [("mean", 5), ("gram", 15)])
def test_pooled_features_forget_the_places(pooling, width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 6, 5), np.float32)
    features = pool_features(x, pooling)
    assert (features.shape, features.dtype) == ((3, width), np.float32)
    places = rng.permutation(24)
    shuffled = x.reshape(3, 24, 5)[:, places].reshape(x.shape)
    np.testing.assert_allclose(pool_features(shuffled, pooling), features, atol=1e-6)


def test_gram_matrix_is_rooted_and_of_length_one():
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)
    flat = x.reshape(2, 9, 4)
    gram = flat.transpose(0, 2, 1) @ flat / 9
    upper = gram[(slice(None), *np.triu_indices(4))]
    expected = np.sign(upper) * np.sqrt(np.abs(upper))
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(pool_features(x, "gram"), expected, atol=1e-4)


def test_gradient_of_a_gram_matrix_is_finite_where_a_channel_is_silent():
    x = np.zeros((1, 2, 2, 3), np.float32)
    x[..., 0] = 1.0
    gradient = jax.grad(lambda x: pool_features(x, "gram").sum())(x)
    assert np.isfinite(gradient).all()


def test_dense_layers_have_no_gram_matrix():
    with pytest.raises(InputError, match="height and width"):
        pool_features(np.zeros((2, 7), np.float32), "gram")
    with pytest.raises(InputError, match="mean, gram"):
        create_model("mlp", 2, pooling="median")


@pytest.fixture(scope="module")
def convolutions():
    model = create_model(
        "convnet", 2, blocks=1, filters=4, stop_at="conv1", pooling="gram"
    )
    return model, init_variables(model, 0, (8, 8, 3))


def test_gram_features_are_what_the_head_sees(dataset, convolutions):
    model, variables = convolutions
    features = extract_features(model, variables, dataset, batch_size=4)
    assert features.shape == (22, 10)
    images = np.stack([dataset.image(i) for i in range(22)])
    normalized = dataset.preprocessing.normalize(images)
    expected = model.apply(variables, normalized, train=False)
    logits = head_alone(model).apply(join({}, variables), features, train=False)
    chex.assert_trees_all_close(logits, expected, atol=1e-6)


def test_gram_features_are_the_same_on_one_device_and_on_several(dataset, convolutions):
    model, variables = convolutions
    one, several = (
        extract_features(
            model,
            variables,
            dataset,
            batch_size=4 * count,
            runner=Runner(tuple(jax.local_devices()[:count])),
        )
        for count in (1, 4)
    )
    np.testing.assert_array_equal(one, several)


def test_pooled_features_are_cached_apart(dataset, convolutions, tmp_path):
    model, variables = convolutions
    widths = [
        extract_features(
            model.clone(pooling=pooling), variables, dataset, batch_size=4,
            cache=tmp_path,
        ).shape[1]
        for pooling in (None, "gram", "mean", "gram")
    ]  # fmt: skip
    assert widths == [6 * 6 * 4, 10, 4, 10]
    assert len(list(tmp_path.glob("*.npy"))) == 3


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
@pytest.mark.parametrize("num_logits", [1, 2])
def test_a_solved_head_is_that_of_its_images(dataset, solver, num_logits):
    """Two views of every image: the second is the first, a little brighter."""
    model = create_model("mlp", num_logits, hidden=6)
    variables = init_variables(model, 0, (8, 8, 3))
    features = extract_features(model, variables, dataset, batch_size=12)
    views = np.stack([features, features + np.float32(0.01)])
    train = dataset.splits["train"]

    def solve(views):
        return solve_head(
            model, variables, views, dataset, train, solver=solver, seed=0
        )

    solved = solve(views)
    chex.assert_trees_all_equal_shapes_and_dtypes(solved, variables)
    chex.assert_trees_all_equal(
        solved["params"]["backbone"], variables["params"]["backbone"]
    )
    logits = head_logits(model, solved, views)
    assert logits.shape == (22, 2)
    assert np.mean(logits.argmax(-1) == dataset.labels) > 0.9
    # What it was not given plays no part.
    views[:, np.setdiff1d(np.arange(22), train)] = 9
    chex.assert_trees_all_equal(solve(views), solved)
