"""Progressive resizing: the smaller images, the steps on them, and exact resume."""

import signal
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_images import write_images
from random_runs import NORMALIZE, NUM_CLASSES, SHAPE, RandomBatches
from test_loop import LOSS, ONE_DEVICE, StopAt, same

import jaxvision as jv
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError
from jaxvision.models import create_model
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.recipe import doubts, make_start
from jaxvision.settings import ScheduleConfig, idle_settings
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.loop import Interrupted, fit
from jaxvision.training.parallel import Runner
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import Smaller, make_train_step
from jaxvision.training.sweep import run_sweep

OPTIONS = {
    "blocks": 1, "filters": 4, "kernel_size": 3, "stride": 1, "norm": "batch",
    "stop_at": "conv1", "pooling": "mean",
}  # fmt: skip
MODEL = create_model("simple_cnn", NUM_CLASSES, **OPTIONS)
TX = make_optimizer(OptimConfig("sgd", 0.05), steps_per_epoch=3, epochs=4)
TRAIN = RandomBatches(num_examples=22, batch_size=8, train=True)
VAL = RandomBatches(num_examples=13, batch_size=8, train=False)
STAGES = [(1, Smaller((3, 3), NORMALIZE)), (3, Smaller((4, 4), NORMALIZE))]


def setup():
    return create_state(init_variables(MODEL, 0, SHAPE), TX, seed=0)


def weights(before: int, after: int) -> np.ndarray:
    """`[after, before]`: triangles as wide as two of the pixels that come out."""
    scale = before / after
    centers = (np.arange(after) + 0.5) * scale
    places = np.arange(before) + 0.5
    found = np.maximum(0, 1 - np.abs(places - centers[:, None]) / scale)
    return found / found.sum(1, keepdims=True)


@pytest.mark.parametrize("standardize", [False, True])
def test_smaller_images_are_filtered_before_they_are_normalized(standardize):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), np.uint8)
    preprocessing = Preprocessing((9, 8), standardize=standardize)
    found = Smaller((5, 3), preprocessing)(jnp.asarray(images))
    smaller = np.einsum("yh,bhwc,xw->byxc", weights(9, 5), images, weights(8, 3))
    expected = preprocessing(smaller.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_step_is_that_of_smaller_images():
    batch = next(TRAIN.iterate())
    small = jax.image.resize(
        jnp.asarray(batch["image"], jnp.float32), (8, 3, 3, 3), "linear"
    )
    step = partial(make_train_step, MODEL, TX, LOSS)
    new, metrics = jax.jit(step(normalize=STAGES[0][1]))(setup(), batch)
    plain = jax.jit(step(normalize=NORMALIZE))
    expected, plain_metrics = plain(setup(), {**batch, "image": small})
    chex.assert_trees_all_close((new, metrics), (expected, plain_metrics), rtol=1e-5)
    large, _ = plain(setup(), batch)
    assert not np.allclose(*(jax.tree.leaves(s.params)[0] for s in (new, large)))


def run(**options):
    return fit(
        MODEL, TX, LOSS, setup(), TRAIN,
        **{"normalize": NORMALIZE, "epochs": 4, "val": VAL, "stages": STAGES,
           "learning_rate_at": float, "runner": ONE_DEVICE, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """A run that was never stopped."""
    return run()


@pytest.mark.parametrize("step", [2, 3, 7, 9])
def test_it_resumes_in_and_between_the_stages(step, whole, tmp_path):
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(Interrupted):
        run(checkpoints=folder, callback=StopAt(step, signal.SIGTERM))
    same(run(checkpoints=folder), whole)
    # The schedule knows nothing of sizes.
    assert [row["learning_rate"] for row in whole.history] == [2, 5, 8, 11]


def test_the_last_epochs_are_those_of_the_whole_images():
    """From the state after the stages on, a plain training gives the same bits."""
    first = run(epochs=3, select="last")
    rest = run(epochs=4, select="last")
    state = first.state
    step = jax.jit(make_train_step(MODEL, TX, LOSS, normalize=NORMALIZE))
    batches = TRAIN.iterate(start=9)
    for _ in range(3):
        state, _ = step(state, next(batches))
    chex.assert_trees_all_close(state.params, rest.state.params, rtol=1e-6)


def test_four_devices_equal_one(whole):
    spread = run(runner=Runner.all_devices())
    chex.assert_trees_all_close(spread.state.params, whole.state.params, atol=1e-5)


def test_each_size_is_compiled_once(whole):
    traced = []

    def counted(size, images):
        traced.append(size)
        return Smaller((size, size), NORMALIZE)(images)

    stages = [(1, partial(counted, 3)), (3, partial(counted, 4))]
    same(run(stages=stages), whole)
    assert traced == [3, 4]


SMALL = jv.Recipe(
    "simple_cnn",
    OPTIONS,
    method="scratch",
    image_size=12,
    progressive_sizes=(6, 8),
    epochs=6,
    batch_size=8,
    augment=AugmentConfig(),
    optim=OptimConfig("adam", 1e-2),
    schedule=ScheduleConfig("cosine"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """36 images of three classes."""
    folder = write_images(tmp_path_factory.mktemp("data") / "images")
    return jv.load_dataset(folder).decode(make_start(SMALL).preprocessing)


def test_the_stages_of_a_recipe():
    assert SMALL.stages == ((6, 1), (8, 3))
    assert SMALL.replace(progressive_share=0.67, epochs=100).stages == (
        (6, 33),
        (8, 67),
    )
    assert SMALL.replace(progressive_share=0.99, epochs=1).stages == ((6, 0), (8, 0))
    assert SMALL.replace(progressive_sizes=()).stages == ()
    # Half of .6 of 10 epochs is three, though not in binary.
    assert SMALL.replace(progressive_share=0.6, epochs=10).stages == ((6, 3), (8, 6))
    with pytest.raises(InputError, match=r"`progressive_share` 1: .* below 1"):
        make_start(SMALL.replace(progressive_share=1))
    with pytest.raises(InputError, match="`progressive_sizes` 12: must be below"):
        make_start(SMALL.replace(progressive_sizes=(12,)))
    unused = idle_settings(SMALL.replace(progressive_sizes=(), progressive_share=0.7))
    assert unused["progressive_share"] == "without `progressive_sizes`"


@pytest.mark.parametrize("network", ["mlp", "simple_cnn", "convnet", "vgg12"])
def test_networks_of_one_size_refuse(network):
    recipe = jv.Recipe(network, method="scratch", image_size=64)
    with pytest.raises(
        InputError, match=f"{network} takes images of one size"
    ) as found:
        make_start(recipe.replace(progressive_sizes=(48,)))
    assert "\n" not in str(found.value)


def test_networks_that_average_over_places_accept():
    recipe = jv.Recipe("alexnet", method="scratch", image_size=96)
    make_start(recipe.replace(progressive_sizes=(64,)))
    with pytest.raises(InputError, match=r"`progressive_sizes` 48: .* too small"):
        make_start(recipe.replace(progressive_sizes=(48,)))


def test_a_sweep_refuses(data):
    start = make_start(SMALL)
    with pytest.raises(InputError, match=r"`progressive_sizes` .* sweep trains at one"):
        run_sweep([start], {0: data})


def test_an_epoch_that_is_missing_is_told(data):
    start = make_start(SMALL.replace(epochs=2))
    found = doubts(start, data)
    assert found[0].startswith("no epoch is trained at the image size 6: 2 epochs")


def test_a_recipe_trains_through_its_stages(data, tmp_path):
    """Stopped in the first stage and continued, as a whole."""
    options = {"seed": 0, "progress": False}
    once = jv.train(data, SMALL, **options)
    other = jv.train(data, SMALL.replace(progressive_sizes=()), **options)
    stop = StopAt(4, signal.SIGTERM)
    with pytest.raises(Interrupted):
        jv.train(data, SMALL, folder=tmp_path, callbacks=[stop], **options)
    again = jv.train(data, SMALL, folder=tmp_path, **options)
    chex.assert_trees_all_equal(again.variables, once.variables)
    rates = [[row["learning_rate"] for row in c.history] for c in (once, other)]
    assert rates[0] == rates[1]
    assert once.history[0]["train_loss"] != other.history[0]["train_loss"]
