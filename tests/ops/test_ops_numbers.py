"""Each operation beside `jax.lax`: values and gradients, over shapes and dtypes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvision import ops
from jaxvision.ops import lax as lax_ops
from jaxvision.ops import winograd

few_examples = settings(max_examples=6, deadline=None, derandomize=True, database=None)

DTYPES = st.sampled_from(["float32", "float32", "bfloat16"])
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""Of the largest number in an array. bfloat16 has 8 bits, and each is rounded twice."""


@st.composite
def windowed(draw: st.DrawFn, pool: bool = False) -> dict:
    """A window, stride and padding that fit a small image."""
    side = st.integers(1, 3 if pool else 5)
    pair = st.tuples(side, side)
    window = draw(pair)
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    most = [w - 1 if pool else w for w in window]
    padding = tuple(draw(st.tuples(st.integers(0, n), st.integers(0, n))) for n in most)
    size = tuple(draw(st.integers(max(2, w), 9)) for w in window)
    return {"size": size, "window": window, "stride": stride, "padding": padding}


def random(seed: int, shape: tuple[int, ...], dtype: str) -> jax.Array:
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, dtype)


def assert_same(
    ours: Callable, reference: Callable, *arrays: jax.Array, seed: int = 9
) -> None:
    """Both functions give the same results and the same gradients."""

    def results_and_gradients(
        function: Callable, *arrays: jax.Array
    ) -> list[jax.Array]:
        result, vjp = jax.vjp(function, *arrays)
        weights = jax.tree.map(
            lambda r: random(seed, r.shape, "float32").astype(r.dtype), result
        )
        return jax.tree.leaves((result, vjp(weights)))

    @jax.jit
    def both(*arrays: jax.Array) -> list[list[jax.Array]]:
        return [results_and_gradients(f, *arrays) for f in (ours, reference)]

    tolerance = TOLERANCE[arrays[0].dtype.name]
    for mine, theirs in zip(*both(*arrays), strict=True):
        assert mine.dtype == theirs.dtype
        mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
        largest = np.abs(theirs).max(initial=1e-30)
        np.testing.assert_allclose(mine / largest, theirs / largest, atol=tolerance)


@few_examples
@given(windowed(), st.integers(1, 3), st.integers(1, 5), DTYPES)
def test_depthwise_conv(where: dict, batch: int, channels: int, dtype: str) -> None:
    x = random(0, (batch, *where["size"], channels), dtype)
    kernel = random(1, (*where["window"], 1, channels), dtype)
    how = {"stride": where["stride"], "padding": where["padding"]}
    assert_same(
        lambda x, kernel: ops.depthwise_conv(x, kernel, **how),
        lambda x, kernel: lax_ops.depthwise_conv(x, kernel, **how),
        x,
        kernel,
    )


@few_examples
@given(windowed(), st.integers(1, 3), st.sampled_from([(3, 4, 1), (4, 6, 2)]), DTYPES)
def test_conv(
    where: dict, batch: int, channels: tuple[int, int, int], dtype: str
) -> None:
    inputs, outputs, groups = channels
    x = random(0, (batch, *where["size"], inputs), dtype)
    kernel = random(1, (*where["window"], inputs // groups, outputs), dtype)
    how = {"stride": where["stride"], "padding": where["padding"], "groups": groups}
    assert_same(
        lambda x, kernel: ops.conv(x, kernel, **how),
        lambda x, kernel: lax_ops.conv(x, kernel, **how),
        x,
        kernel,
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_conv(stride: int) -> None:
    x, kernel = random(0, (2, 5, 4, 3), "float32"), random(1, (1, 1, 3, 7), "float32")
    none = ((0, 0), (0, 0))
    assert_same(
        lambda x, kernel: ops.conv(x, kernel, stride=stride, padding=none),
        lambda x, kernel: lax_ops.conv(
            x, kernel, stride=(stride, stride), padding=none, groups=1
        ),
        x,
        kernel,
    )


@pytest.mark.parametrize(
    ("window", "channels", "features"),
    [((3, 3), 3, 17), ((5, 4), 5, 6), ((1, 1), 4, 2)],
    ids=["first layer of many features", "by rows", "by one row, padded"],
)
def test_strided_conv(window: tuple[int, int], channels: int, features: int) -> None:
    x = random(0, (2, 9, 8, channels), "float32")
    kernel = random(1, (*window, channels, features), "float32")
    padding = ((0, 1), (1, 1))
    assert_same(
        lambda x, kernel: ops.conv(x, kernel, stride=2, padding=padding),
        lambda x, kernel: lax_ops.conv(
            x, kernel, stride=(2, 2), padding=padding, groups=1
        ),
        x,
        kernel,
    )


@settings(few_examples, max_examples=3)
@given(
    st.tuples(st.integers(5, 11), st.integers(5, 11)),
    st.sampled_from([3, 5]),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    st.integers(1, 4),
    st.sampled_from([(16, 16), (24, 17)]),
    st.booleans(),
)
def test_conv_by_winograd(
    size: tuple[int, int],
    kernel_size: int,
    padding: tuple,
    batch: int,
    channels: tuple[int, int],
    grouped: bool,
) -> None:
    x = random(0, (batch, *size, channels[0]), "float32")
    kernel = random(1, (kernel_size, kernel_size, *channels), "float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_LEAST_CHANNELS", 16)
        patch.setattr(winograd, "_LEAST_TILES", 1)
        if grouped:
            patch.setattr(winograd, "_GROUP_BYTES", 1)
        assert winograd.pays(x, kernel, padding)
        assert_same(
            lambda x, kernel: ops.conv(x, kernel, padding=padding),
            lambda x, kernel: lax_ops.conv(
                x, kernel, stride=(1, 1), padding=padding, groups=1
            ),
            x,
            kernel,
        )


def test_winograd_of_many_channels_keeps_its_accuracy() -> None:
    x = random(0, (4, 14, 14, 256), "float32")
    kernel, padding = random(1, (3, 3, 256, 256), "float32"), ((1, 1), (1, 1))
    assert winograd.pays(x, kernel, padding)
    assert_same(
        lambda x, kernel: ops.conv(x, kernel, padding=padding),
        lambda x, kernel: lax_ops.conv(
            x, kernel, stride=(1, 1), padding=padding, groups=1
        ),
        x,
        kernel,
    )


def test_where_winograd_does_not_pay() -> None:
    none = ((0, 0), (0, 0))
    shapes = {"x": (4, 30, 30, 32), "kernel": (3, 3, 32, 32)}

    def pays(padding=none, dtype="float32", **changes) -> bool:
        arrays = [random(0, shape, dtype) for shape in ({**shapes, **changes}).values()]
        return winograd.pays(*arrays, padding)

    assert pays()
    assert not pays(dtype="bfloat16")
    assert not pays(padding=((3, 0), (0, 0)))
    assert not pays(x=(4, 9, 9, 32))
    assert not pays(x=(4, 30, 30, 3), kernel=(3, 3, 3, 32))
    assert pays(kernel=(5, 5, 32, 32))
    assert not pays(kernel=(7, 7, 32, 32))
    assert not pays(kernel=(3, 5, 32, 32))


@few_examples
@given(windowed(pool=True), st.integers(1, 3), st.booleans(), DTYPES)
def test_max_pool(where: dict, channels: int, ties: bool, dtype: str) -> None:
    x = random(0, (2, *where["size"], channels), dtype)
    if ties:
        x = jnp.round(x)
    how = {name: where[name] for name in ("window", "stride", "padding")}
    assert_same(
        lambda x: ops.max_pool(x, **how), lambda x: lax_ops.max_pool(x, **how), x
    )


@few_examples
@given(windowed(pool=True), st.integers(1, 3), st.booleans(), DTYPES)
def test_avg_pool(
    where: dict, channels: int, count_include_pad: bool, dtype: str
) -> None:
    x = random(0, (2, *where["size"], channels), dtype)
    how = {name: where[name] for name in ("window", "stride", "padding")}

    def reference(x: jax.Array) -> jax.Array:
        total = lax_ops.sum_pool(x, **how)
        if count_include_pad:
            return total / np.prod(how["window"]).item()
        return total / lax_ops.sum_pool(jnp.ones_like(x), **how)

    assert_same(
        lambda x: ops.avg_pool(x, count_include_pad=count_include_pad, **how),
        reference,
        x,
    )


@few_examples
@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(1, 5), DTYPES)
def test_batch_norm_train(shape: list[int], channels: int, dtype: str) -> None:
    x = random(0, (*shape, channels), dtype) * 2 + 1
    scale, bias = random(1, (channels,), "float32"), random(2, (channels,), "float32")
    assert_same(
        lambda *arrays: ops.batch_norm_train(*arrays, epsilon=1e-3),
        lambda *arrays: lax_ops.batch_norm_train(*arrays, epsilon=1e-3, axis_name=None),
        x,
        scale,
        bias,
    )


@few_examples
@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(1, 5), DTYPES)
def test_batch_norm_frozen(shape: list[int], channels: int, dtype: str) -> None:
    x = random(0, (*shape, channels), dtype) * 2 + 1
    scale, bias, mean, root = (random(i, (channels,), "float32") for i in range(1, 5))
    assert_same(
        lambda *arrays: ops.batch_norm_frozen(*arrays, epsilon=1e-3),
        lambda *arrays: lax_ops.batch_norm_frozen(*arrays, epsilon=1e-3),
        x,
        scale,
        bias,
        mean,
        root**2 + 0.5,
    )


@few_examples
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([0.5, 0.75, 1.0]),
    DTYPES,
)
def test_local_response_norm(
    shape: list[int], channels: int, size: int, beta: float, dtype: str
) -> None:
    x = random(0, (*shape, channels), dtype)
    how = {"size": size, "alpha": 0.5, "beta": beta, "k": 2.0}
    assert_same(
        lambda x: ops.local_response_norm(x, **how),
        lambda x: lax_ops.local_response_norm(x, **how),
        x,
    )


def test_bfloat16_is_added_up_in_float32() -> None:
    x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
    kernel = jnp.full((5, 5, 1, 2), 1 / 128, jnp.bfloat16)
    conv = jax.jit(lambda *arrays: ops.depthwise_conv(*arrays, padding=((0, 0),) * 2))
    y = conv(x, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), 25 / 128)


def test_variance_far_from_zero_does_not_cancel() -> None:
    """E[x^2] - E[x]^2 would be off by a third here."""
    x = np.random.default_rng(0).normal(size=(8, 9, 9, 4)) + 1000
    x = x.astype(np.float32)
    one = jnp.ones(4)
    _, mean, variance = ops.batch_norm_train(jnp.asarray(x), one, one, epsilon=0.0)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)


def test_sums_of_many_rows_keep_their_accuracy() -> None:
    """One row added after another would be off by 1e-5 and more."""
    x = np.random.default_rng(0).normal(size=(4, 96, 96, 4)).astype(np.float32) + 1
    one = jnp.ones(4)

    @jax.jit
    def gradients(x: jax.Array) -> tuple[jax.Array, ...]:
        y, vjp, statistics = jax.vjp(
            lambda scale, bias: _split(ops.batch_norm_train(x, scale, bias, epsilon=0)),
            one,
            one,
            has_aux=True,
        )
        return *statistics, *vjp(x * y)

    mean, variance, d_scale, d_bias = gradients(jnp.asarray(x))
    exact = x.astype(np.float64)
    normal = (exact - exact.mean((0, 1, 2))) / exact.std((0, 1, 2))
    g = exact * (normal + 1)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(d_bias, g.sum((0, 1, 2)), rtol=2e-6)
    np.testing.assert_allclose(d_scale, (g * normal).sum((0, 1, 2)), rtol=2e-6)


def _split(results: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return results[0], results[1:]


def test_max_pool_keeps_nan() -> None:
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 0, 0].set(jnp.nan).at[0, 1, 1, 0].set(5.0)
    how = {"window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    y, vjp = jax.vjp(lambda x: ops.max_pool(x, **how), x)
    np.testing.assert_array_equal(y, lax_ops.max_pool(x, **how))
    dx = vjp(jnp.ones_like(y))[0][0, :, :, 0]
    # The NaN has its window's gradient; the first zero has it in the other windows.
    np.testing.assert_array_equal(jnp.argwhere(dx), [[0, 2], [1, 0], [2, 0], [2, 2]])


def test_padding_is_narrower_than_the_window() -> None:
    x = jnp.zeros((1, 4, 4, 1))
    for pool in (ops.max_pool, ops.avg_pool):
        with pytest.raises(ValueError, match="not narrower than window"):
            pool(x, 2, 2, ((0, 2), (0, 0)))
