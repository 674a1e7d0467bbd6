"""Every operation under every transformation of JAX that training uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxvision import ops
from jaxvision.ops import convolution, depthwise, dispatch, winograd
from jaxvision.ops import lax as lax_ops

SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))
Params = dict[str, jax.Array]


def network(params: Params, x: jax.Array, axis_name: str | None = None) -> jax.Array:
    """A small network of all operations."""
    x = ops.conv(x, params["conv"], stride=2, padding=SAME)
    x, _, _ = ops.batch_norm_train(
        x, params["scale"], params["bias"], epsilon=1e-3, axis_name=axis_name
    )
    x = ops.local_response_norm(x, size=3, alpha=0.5, beta=0.75, k=1.0)
    x = ops.max_pool(x, 3, 2, SAME)
    x = ops.depthwise_conv(x, params["depthwise"], stride=2, padding=SAME)
    x = ops.batch_norm_frozen(
        x,
        params["bias"],
        params["scale"],
        0.1 * params["bias"],
        1 + jnp.square(params["scale"]),
        epsilon=1e-3,
    )
    x = ops.avg_pool(x, 2, 1, NONE)
    x = ops.conv(x, params["dense"], padding=SAME)
    return ops.conv(x, params["pointwise"], padding=NONE)


def loss(params: Params, x: jax.Array, axis_name: str | None = None) -> jax.Array:
    return jnp.square(network(params, x, axis_name)).mean()


gradient = jax.jit(jax.grad(loss))


def make_params(seed: int) -> Params:
    keys = jax.random.split(jax.random.key(seed), 6)
    shapes = {
        "conv": (3, 3, 3, 4),
        "scale": (4,),
        "bias": (4,),
        "depthwise": (3, 3, 1, 4),
        "dense": (3, 3, 4, 4),
        "pointwise": (1, 1, 4, 2),
    }
    return {
        name: jax.random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


@pytest.fixture(scope="module", autouse=True)
def winograd_of_small_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_LEAST_CHANNELS", 4)
        patch.setattr(winograd, "_LEAST_TILES", 1)
        patch.setattr(winograd, "_GROUP_BYTES", 2**11)
        yield


@pytest.fixture(scope="module")
def params() -> Params:
    return make_params(0)


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(9), (8, 16, 16, 3))


@pytest.fixture(scope="module")
def gradients(params: Params, images: jax.Array) -> Params:
    return gradient(params, images)


def assert_close(ours: Params, expected: Params, tolerance: float = 1e-5) -> None:
    for name, value in expected.items():
        value = np.asarray(value)
        largest = np.abs(value).max()
        np.testing.assert_allclose(
            np.asarray(ours[name]) / largest,
            value / largest,
            atol=tolerance,
            err_msg=name,
        )


def test_vmap_over_parameters_and_images(images: jax.Array) -> None:
    several = jax.device_get([make_params(seed) for seed in range(2)])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    batches = np.stack([images, images[::-1] ** 2])
    found = jax.device_get(jax.jit(jax.vmap(jax.grad(loss)))(stacked, batches))
    for index, params in enumerate(several):
        expected = gradient(params, batches[index])
        assert_close({n: v[index] for n, v in found.items()}, expected)


def test_vmap_over_parameters_alone(images: jax.Array) -> None:
    several = jax.device_get([make_params(seed) for seed in range(2)])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *several)
    found = jax.device_get(
        jax.jit(jax.vmap(jax.grad(loss), (0, None)))(stacked, images)
    )
    expected = gradient(several[1], images)
    assert_close({n: v[1] for n, v in found.items()}, expected)


def test_scan(params: Params, images: jax.Array, gradients: Params) -> None:
    @jax.jit
    def scanned(params: Params) -> Params:
        def step(carry: None, x: jax.Array) -> tuple[None, Params]:
            return carry, jax.grad(loss)(params, x)

        return jax.lax.scan(step, None, jnp.stack([images, images]))[1]

    assert_close({n: v[1] for n, v in scanned(params).items()}, gradients)


def test_pmap_of_shards_is_the_whole_batch(
    params: Params, images: jax.Array, gradients: Params
) -> None:
    shards = images.reshape(4, 2, 16, 16, 3)

    def shard_gradients(params: Params, x: jax.Array) -> Params:
        return jax.lax.pmean(jax.grad(loss)(params, x, "device"), "device")

    found = jax.pmap(shard_gradients, "device", in_axes=(None, 0))(params, shards)
    assert_close({n: v[3] for n, v in found.items()}, gradients)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_of_replicated_parameters(
    params: Params, images: jax.Array, gradients: Params, check_vma: bool
) -> None:
    mesh = jax.make_mesh((4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, sharded = PartitionSpec(), PartitionSpec("device")

    def shard_gradients(params: Params, x: jax.Array) -> Params:
        def mean_loss(params: Params) -> jax.Array:
            return jax.lax.pmean(loss(params, x, "device"), "device")

        found = jax.grad(mean_loss)(params)
        # Without types that say what is replicated, gradients stay the shard's own.
        return found if check_vma else jax.lax.pmean(found, "device")

    mapped = jax.shard_map(
        shard_gradients,
        mesh=mesh,
        in_specs=(replicated, sharded),
        out_specs=replicated,
        check_vma=check_vma,
    )
    assert_close(jax.jit(mapped)(params, images), gradients)


def test_gradients_through_replicated_images_and_bfloat16(
    params: Params, images: jax.Array, gradients: Params
) -> None:
    half = {
        name: value if name in ("scale", "bias") else value.astype(jnp.bfloat16)
        for name, value in params.items()
    }
    found = jax.jit(jax.grad(loss))(half, images.astype(jnp.bfloat16))
    assert found["depthwise"].dtype == jnp.bfloat16
    assert found["scale"].dtype == jnp.float32
    as_float = {name: value.astype(jnp.float32) for name, value in found.items()}
    assert_close(as_float, gradients, tolerance=0.1)


def test_the_platform_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch._formulation("conv") is convolution.conv
    assert dispatch._formulation("depthwise_conv") is depthwise.depthwise_conv
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for name in dispatch._FORMULATIONS["cpu"]:
        assert dispatch._formulation(name) is getattr(lax_ops, name)


def test_lax_only_gives_forward_mode(params: Params) -> None:
    x = jnp.ones((1, 5, 5, 4))

    def conv(kernel: jax.Array) -> jax.Array:
        return ops.depthwise_conv(x, kernel, padding=SAME)

    along = (params["depthwise"],), (params["depthwise"],)
    with pytest.raises(TypeError):
        jax.jvp(conv, *along)
    with ops.lax_only():
        y, derivative = jax.jvp(conv, *along)
    np.testing.assert_allclose(derivative, y, atol=1e-5)
