"""Our networks beside Keras's own, each with the same drawn weights, through a file.

Logits and the output of every stage, in float32 on CPU; what batch norm keeps after a
step of training; images as Keras prepares them.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxvision.data.decode import decode_image
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import Network, create_model
from jaxvision.models.layers import BatchNorm
from jaxvision.pretrained import SOURCES
from jaxvision.pretrained.convert import convert, read_variables
from jaxvision.pretrained.entries import Table
from jaxvision.pretrained.golden import drawn_image
from jaxvision.pretrained.keras_file import by_path, read_weights
from jaxvision.pretrained.tables import TABLES
from jaxvision.training.state import create_state
from jaxvision.training.step import make_train_step

pytest.importorskip("keras")
import keras_references as references

# Odd and even sizes, after every stride of some of them: SAME padding differs.
SIZES = {
    "vgg19": (224, 224),  # Keras's dense layers take no other
    "resnet50_v2": (75, 64),
    "mobilenet_v2": (75, 64),
    "efficientnet_v2_b3": (75, 64),
}
KERAS = tuple(SIZES)

pytestmark = pytest.mark.usefixtures("full_precision", "keras_promotes_ranks")


@pytest.fixture
def keras_promotes_ranks() -> Iterator[None]:
    """Keras adds biases to matrices, which our own code must not."""
    with jax.numpy_rank_promotion("allow"):
        yield


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Greatest difference, by the greatest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", KERAS)
def test_logits_and_every_stage_agree_with_keras(name, tmp_path):
    size = SIZES[name]
    image = drawn_image(max(size))[None, : size[0], : size[1]]
    images = SOURCES[name].preprocessing.normalize(image)
    model = references.build(name, size)
    stages = references.stages(name, model)
    references.save_as_published(model, tmp_path / "published.h5")
    norms = {
        (layer.momentum, layer.epsilon)
        for layer in model.layers
        if isinstance(layer, references.keras.layers.BatchNormalization)
    }
    *expected, expected_logits = references.answers(
        model, list(stages.values()), images
    )
    del model
    variables, report = read_variables(tmp_path / "published.h5", SOURCES[name])
    (tmp_path / "published.h5").unlink()
    assert len(report.kept) == len(TABLES[name]().entries)
    assert report.ignored == ()
    ours = create_model(name, 1000)
    assert set(ours.backbone.layer_names()) == set(stages)
    assert batch_norms(ours, images) == norms
    run = jax.jit(lambda v, x: ours.apply(v, x, train=False, mutable=["activations"]))
    logits, state = run(variables, images)
    off = {
        stage: relative(np.asarray(state["activations"]["backbone"][stage]), theirs)
        for stage, theirs in zip(stages, expected, strict=True)
    }
    off["logits"] = relative(np.asarray(logits), expected_logits)
    print(name, {stage: f"{value:.1e}" for stage, value in off.items()})
    assert max(off.values()) <= 1e-4, off


def batch_norms(model: Network, images: np.ndarray) -> set[tuple[float, float]]:
    """Momentum and epsilon of every batch norm."""
    found = set()

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, BatchNorm):
            found.add((context.module.momentum, context.module.epsilon))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return found


# -- Files that Keras writes ----------------------------------------------------------


def table_of(base: Any, *more: str) -> Table:
    """The rows of the table for those layers, and for some more."""
    wanted = {layer.name for layer in base.layers} | set(more)
    rows = TABLES["resnet50_v2"]().entries
    return Table(tuple(row for row in rows if row.source.rpartition("/")[0] in wanted))


def test_every_file_that_keras_writes_is_read(tmp_path):
    base = references.beginning((32, 32))
    table = table_of(base)
    base.save_weights(tmp_path / "numbered.weights.h5")
    base.save(tmp_path / "whole.h5")
    references.save_as_published(base, tmp_path / "published.h5")
    expected = {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in base.layers
        for variable in layer.variables
    }
    for file in ("numbered.weights.h5", "whole.h5", "published.h5"):
        tensors, named = by_path(read_weights(tmp_path / file), table)
        assert len(tensors) == len(expected)
        for row, ours in zip(table.entries, named.entries, strict=True):
            np.testing.assert_array_equal(tensors[ours.source], expected[row.source])


# -- Training -------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["training", "frozen", "fine-tuned"])
def test_batch_norm_keeps_after_a_step_what_keras_keeps(regime):
    """One step of gradient descent on the same batch, from the same weights.

    Keras's way to fine-tune is to call the base with `training=False`: batch norm uses
    its moving statistics, which stand still, and its scales are trained.
    """
    keras = references.keras
    base = references.beginning((32, 32))
    base.trainable = regime != "frozen"
    head = keras.layers.Dense(5, name="predictions")

    class Whole(keras.Model):
        # Functional models of Keras 3 overrule `training=False` when they are trained:
        # https://github.com/keras-team/keras/issues/20285
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = base, head

        def call(self, images: Any, training: bool | None = None) -> Any:
            training = training and regime != "fine-tuned"
            features = self.base(images, training=training)
            return self.head(keras.ops.reshape(features, (8, -1)))

    whole = Whole()
    whole(np.zeros((8, 32, 32, 3), np.float32))
    whole.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def values() -> dict[str, np.ndarray]:
        return {
            f"{layer.name}/{variable.name}": np.array(variable)
            for layer in [*base.layers, head]
            for variable in layer.variables
        }

    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 32, 32, 3)).astype(np.float32)
    labels = np.arange(8) % 5
    model = create_model(
        "resnet50_v2", 5, stop_at="conv2_block1", freeze_bn=regime == "fine-tuned"
    )
    template = jax.eval_shape(
        lambda: model.init(jax.random.key(0), images, train=False)
    )
    table = table_of(base, "predictions")
    before, _ = convert(values(), table, template)
    whole.train_on_batch(images, labels)
    expected, _ = convert(values(), table, template)

    tx = optax.sgd(0.01)
    step = make_train_step(
        model, tx, make_cross_entropy(), normalize=lambda images: images
    )
    frozen = ("backbone",) if regime == "frozen" else ()
    state = create_state(before, tx, seed=0, frozen=frozen)
    batch = {"image": images, "label": labels, "mask": np.ones(8, bool)}
    state, _ = jax.jit(step)(state, batch)

    def close(path: Any, ours: jax.Array, theirs: np.ndarray, old: np.ndarray) -> None:
        assert relative(np.asarray(ours), theirs) <= 1e-5, path
        moved = not np.array_equal(theirs, old)
        is_statistic = path[0].key == "batch_stats"
        if path[1].key == "head":
            assert moved
        elif regime == "frozen" or (is_statistic and regime == "fine-tuned"):
            np.testing.assert_array_equal(ours, old)
            assert not moved
        else:
            assert moved, path

    jax.tree_util.tree_map_with_path(close, state.variables, expected, before)


# -- Images -------------------------------------------------------------------------


def check_preprocessing(name: str, images: np.ndarray) -> None:
    expected = references.PREPROCESS[name](images.astype(np.float32))
    ours = SOURCES[name].preprocessing.normalize(images)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", KERAS)
def test_images_are_prepared_as_keras_prepares_them(name):
    check_preprocessing(name, drawn_image(64)[None])


@pytest.mark.parametrize("name", KERAS)
def test_real_images_are_prepared_as_keras_prepares_them(name, shared_data):
    paths = sorted((shared_data / "imagenet_sample").glob("*.jpg"))[:4]
    preprocessing = SOURCES[name].preprocessing
    images = np.stack([decode_image(path, preprocessing) for path in paths])
    assert images.shape == (4, *preprocessing.size, 3)
    check_preprocessing(name, images)
