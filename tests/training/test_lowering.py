"""Every step becomes a program for GPUs and TPUs too; shown on a CPU, without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from random_runs import SHAPE, small_model
from reduced_networks import every_kind, reduced

from jaxvision.data.dataset import DataConfig, load_dataset
from jaxvision.data.splits import SplitConfig
from jaxvision.metrics import make_cross_entropy
from jaxvision.models import create_model
from jaxvision.ops.dispatch import lax_only
from jaxvision.optim import OptimConfig, make_optimizer
from jaxvision.preprocessing import Preprocessing
from jaxvision.recipe import Recipe, make_start
from jaxvision.settings import AugmentConfig, ScheduleConfig
from jaxvision.training import sweep
from jaxvision.training.parallel import AXIS, pmap_step, synchronize
from jaxvision.training.state import create_state, init_variables
from jaxvision.training.step import make_eval_step, make_train_step
from jaxvision.transfer import make_feature_step

PLATFORMS = ("cuda", "tpu")
SIZE = 64  # enough for every network
NORMALIZE = Preprocessing(size=(SIZE, SIZE)).normalize
LOSS = make_cross_entropy()
TX = make_optimizer(
    OptimConfig("adamw", 1e-3, weight_decay=0.01), None, steps_per_epoch=1, epochs=1
)


@pytest.fixture(autouse=True)
def formulation_of_accelerators():
    with lax_only():
        yield


def lower(compiled, *args):
    """Lowers a transformed function for all platforms.

    Returns:
      The shapes of what it gives.
    """
    traced = jax.jit(compiled).trace(*args)
    traced.lower(lowering_platforms=PLATFORMS)
    return traced.out_info


def abstract_state(model, shape, tx=TX):
    return jax.eval_shape(
        lambda seed: create_state(init_variables(model, seed, shape), tx, seed=seed),
        jax.ShapeDtypeStruct((), jnp.uint32),
    )


def abstract_batch(shape, size=4):
    image = jax.ShapeDtypeStruct((size, *shape), jnp.uint8)
    label = jax.ShapeDtypeStruct((size,), jnp.int32)
    return {"image": image, "label": label, "mask": label.update(dtype=jnp.float32)}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
@every_kind
def test_networks_lower_for_accelerators(name, dtype):
    shape = (SIZE, SIZE, 3)
    model = reduced(name, dtype=dtype)
    state, batch = abstract_state(model, shape), abstract_batch(shape)
    step = make_train_step(model, TX, LOSS, normalize=NORMALIZE)
    new, _ = lower(step, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    step = make_eval_step(model, LOSS, normalize=NORMALIZE)
    _, logits = lower(step, state.variables, batch)
    assert (logits.shape, logits.dtype) == ((4, 5), jnp.float32)


def test_gram_matrices_lower_for_accelerators():
    shape = (SIZE, SIZE, 3)
    model = create_model("alexnet", 5, stop_at="conv2", pooling="gram")
    variables = abstract_state(model, shape).variables
    backbone = {name: tree.get("backbone", {}) for name, tree in variables.items()}
    step = make_feature_step(model, normalize=NORMALIZE)
    _, features = lower(step, backbone, abstract_batch(shape))
    assert features.shape == (4, 192 * 193 // 2)


def test_the_spread_step_lowers_for_accelerators():
    devices = jax.local_devices()
    model = synchronize(small_model(batch_norm=True, dropout_rate=0.3), AXIS)
    state, batch = abstract_state(model, SHAPE), abstract_batch(SHAPE)
    step = make_train_step(
        model, TX, LOSS, normalize=Preprocessing(SHAPE[:2]).normalize, axis_name=AXIS
    )
    state, batch = jax.tree.map(
        lambda x: x.update(shape=(len(devices), *x.shape)), (state, batch)
    )
    lower(pmap_step(step, devices), state, batch)


def test_the_sweep_lowers_for_accelerators(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    recipe = Recipe(
        "mlp", {"hidden": 4}, method="scratch", image_size=12, augment=AugmentConfig(),
        schedule=ScheduleConfig(), epochs=1, batch_size=4,
    )  # fmt: skip
    start = make_start(recipe)
    split = SplitConfig(train=0.5, val=0.5, test=0.0)
    dataset = load_dataset(DataConfig(root=tmp_path, split=split))
    dataset = dataset.decode(start.preprocessing)
    make, lowered = sweep.sweep_epoch, []

    def lowering(step):
        epoch = make(step)

        def call(*args):
            lowered.append(lower(epoch, *args))
            return epoch(*args)

        return call

    monkeypatch.setattr(sweep, "sweep_epoch", lowering)
    sweep.run_sweep([start], {0: dataset, 1: dataset}, models_at_once=2)
    assert len(lowered) == 2  # training and validation


def test_the_step_of_a_deep_network_is_a_short_program():
    shape = (SIZE, SIZE, 3)
    model = create_model("efficientnet_lite0", 5)
    config = OptimConfig("adamw", 1e-3, weight_decay=0.01, clip_norm=1.0)
    tx = make_optimizer(config, None, steps_per_epoch=1, epochs=1)
    step = make_train_step(model, tx, LOSS, normalize=NORMALIZE)
    state = abstract_state(model, shape, tx)
    lowered = jax.jit(step).lower(state, abstract_batch(shape))
    # 11,312 lines; with a choice for each array, and a norm, they were 14,908.
    assert lowered.as_text().count("\n") < 12_500
