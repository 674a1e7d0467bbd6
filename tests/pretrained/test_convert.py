"""Conversion by table, checked both ways; fitting into a network with a new head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.errors import InputError
from jaxvision.models import create_model
from jaxvision.pretrained import SOURCES, fit_into, load
from jaxvision.pretrained.convert import (
    abstract_variables,
    convert,
    fresh_layers,
    read_variables,
)
from jaxvision.pretrained.entries import Entry, Table
from jaxvision.pretrained.fetch import fetch
from jaxvision.pretrained.tables import (
    TABLES,
    as_is,
    conv_kernel,
    dense_kernel,
    flattened_kernel,
)
from jaxvision.pretrained.torch_file import read_state_dict

TABLE = Table(
    (
        Entry("conv.weight", "params/backbone/conv/kernel", conv_kernel),
        Entry("bn.running_mean", "batch_stats/backbone/bn/mean", as_is),
        Entry("fc.weight", "params/head/logits/kernel", dense_kernel),
    ),
    ignored=(".num_batches_tracked",),
)
TEMPLATE = {
    "params": {
        "backbone": {"conv": {"kernel": jax.ShapeDtypeStruct((3, 5, 2, 4), "float32")}},
        "head": {"logits": {"kernel": jax.ShapeDtypeStruct((4, 6), "float32")}},
    },
    "batch_stats": {
        "backbone": {"bn": {"mean": jax.ShapeDtypeStruct((4,), "float32")}}
    },
}


def tensors() -> dict[str, np.ndarray]:
    return {
        "conv.weight": np.random.default_rng(0).normal(size=(4, 2, 3, 5)),
        "bn.running_mean": np.arange(4, dtype=np.float16),
        "bn.num_batches_tracked": np.array(0),
        "fc.weight": np.arange(24, dtype=np.float32).reshape(6, 4),
    }


def test_converts_by_the_table():
    variables, report = convert(tensors(), TABLE, TEMPLATE)
    kernel = variables["params"]["backbone"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    weight = tensors()["conv.weight"].astype(np.float32)
    assert kernel[2, 4, 1, 3] == weight[3, 1, 2, 4]
    logits = variables["params"]["head"]["logits"]["kernel"]
    np.testing.assert_array_equal(logits, tensors()["fc.weight"].T)
    assert report.ignored == ("bn.num_batches_tracked",)
    assert len(report.kept) == 3


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("fc.weight", None, "fc.weight is missing"),
        ("fc.bias", np.zeros(6), "fc.bias is not expected"),
        ("fc.weight", np.zeros((5, 4)), "fc.weight has the shape [5, 4]"),
        ("fc.weight", np.zeros(24), "fc.weight has the shape [24]"),
        ("conv.weight", np.zeros((4, 2)), "conv.weight has the shape [4, 2]"),
        ("bn.running_mean", np.zeros((4, 1)), "bn.running_mean has the shape"),
        ("fc.weight", np.full((6, 4), np.nan), "not finite"),
        ("fc.weight", np.full((6, 4), 1e300), "not finite"),
        ("fc.weight", np.zeros((6, 4), np.int64), "int64"),
    ],
)
def test_what_does_not_fit_is_named(name, value, problem):
    wrong = tensors()
    wrong.pop(name, None)
    if value is not None:
        wrong[name] = value
    with pytest.raises(InputError) as caught:
        convert(wrong, TABLE, TEMPLATE)
    assert problem in str(caught.value)


def test_all_problems_are_in_one_message():
    with pytest.raises(InputError) as caught:
        convert({"other": np.zeros(3)}, TABLE, TEMPLATE)
    for name in ("conv.weight", "bn.running_mean", "fc.weight", "other"):
        assert name in str(caught.value)


def test_a_table_that_misses_or_repeats_a_parameter_is_found():
    missing = Table(TABLE.entries[:2], ignored=("fc.weight", ".num_batches_tracked"))
    with pytest.raises(InputError, match="params/head/logits/kernel is not filled"):
        convert(tensors(), missing, TEMPLATE)
    with pytest.raises(InputError, match="filled twice"):
        convert(tensors(), Table(TABLE.entries * 2, ignored=TABLE.ignored), TEMPLATE)
    stray = Entry("fc.weight", "params/head/other", as_is)
    with pytest.raises(InputError, match="has no place params/head/other"):
        convert(tensors(), Table((*TABLE.entries, stray), TABLE.ignored), TEMPLATE)


def test_flattened_kernel_follows_the_channels():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 3, 4))  # height, width, channels
    weight = rng.normal(size=(7, 4 * 2 * 3))
    ours = flattened_kernel(weight, channels=4, height=2, width=3)
    theirs = weight @ image.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(image.reshape(-1) @ ours, theirs)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_a_table_that_fills_its_network(name):
    from flax.traverse_util import flatten_dict

    targets = [entry.target for entry in TABLES[name]().entries]
    assert sorted(targets) == sorted(
        flatten_dict(abstract_variables(SOURCES[name]), sep="/")
    )


def test_the_file_of_another_network_is_named(tmp_path):
    from torch_writer import dictionary, tensor, write_zip

    path = tmp_path / "a.pth"
    write_zip(path, dictionary({"w": tensor("0", (3,))}), {"0": bytes(12)})
    with pytest.raises(InputError) as caught:
        read_variables(path, SOURCES["alexnet"])
    message = str(caught.value)
    assert str(path) in message
    assert "features.0.weight is missing" in message
    assert "w is not expected" in message


def small(num_classes: int, **options) -> dict:
    model = create_model("mlp", num_classes, hidden=8, **options)
    image = jnp.zeros((1, 2, 2, 3))
    return model.init(jax.random.key(num_classes), image, train=False)


def test_fit_replaces_the_head():
    pretrained, template = small(5, batch_norm=True), small(3, batch_norm=True)
    variables, report = fit_into(pretrained, template)
    chosen = variables["params"]
    assert chosen["backbone"]["fc1"] is not template["params"]["backbone"]["fc1"]
    np.testing.assert_array_equal(
        chosen["backbone"]["fc1"]["kernel"],
        pretrained["params"]["backbone"]["fc1"]["kernel"],
    )
    np.testing.assert_array_equal(
        chosen["head"]["logits"]["kernel"],
        template["params"]["head"]["logits"]["kernel"],
    )
    assert "batch_stats/backbone/bn1/mean" in report.kept
    assert set(report.replaced) == {
        "params/head/logits/kernel",
        "params/head/logits/bias",
    }
    assert report.ignored == ()
    assert jax.tree.structure(variables) == jax.tree.structure(template)


def test_fit_keeps_the_head_when_asked():
    pretrained = small(5)
    variables, report = fit_into(pretrained, small(5), replace_head=False)
    jax.tree.map(
        np.testing.assert_array_equal, variables["params"], pretrained["params"]
    )
    assert report.replaced == ()
    with pytest.raises(InputError, match="replace_head"):
        fit_into(pretrained, small(3), replace_head=False)


def alexnet_template(**options) -> dict:
    model = create_model("alexnet", 7, **options)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
    )


def test_fit_ignores_layers_beyond_stop_at_and_lists_them():
    template = alexnet_template(stop_at="conv4", head_hidden=(16,))
    variables, report = fit_into(abstract_variables(SOURCES["alexnet"]), template)
    assert set(variables["params"]["backbone"]) == {f"conv{i}" for i in range(1, 5)}
    assert "params/backbone/fc7/bias" in report.ignored
    assert "params/head/bn1/scale" in report.replaced
    assert "batch_stats/head/bn1/mean" in report.replaced
    assert "kept" in report.summary()


@pytest.mark.parametrize(
    ("name", "last", "missing"),
    [
        ("alexnet_features", "features", ("fc6", "fc7")),
        ("vgg16_features", "pool5", ("fc6", "fc7")),
    ],
)
def test_a_source_without_dense_layers_fills_the_convolutions(name, last, missing):
    source = SOURCES[name]
    variables = abstract_variables(source)
    assert set(variables["params"]) == {"backbone"}
    assert not set(variables["params"]["backbone"]) & {"fc6", "fc7"}
    assert source.last_layer == last
    assert fresh_layers(source) == missing
    assert fresh_layers(source, "fc6") == ("fc6",)
    assert fresh_layers(source, last) == ()
    assert fresh_layers(SOURCES[source.whole]) == ()


@pytest.mark.parametrize(
    "options",
    [{"stop_at": "conv4"}, {"stop_at": "features", "head_hidden": (16,)}],
    ids=["conv4", "features"],
)
def test_convolutions_alone_fit_a_network_that_ends_with_them(options):
    pretrained = abstract_variables(SOURCES["alexnet_features"])
    template = alexnet_template(**options)
    variables, report = fit_into(pretrained, template)
    assert jax.tree.structure(variables) == jax.tree.structure(template)
    assert "params/backbone/conv4/kernel" in report.kept
    assert all(name.startswith("params/backbone/conv5") for name in report.ignored)
    assert report.fresh == ()


def test_layers_that_the_weights_lack_are_new_where_that_is_asked_for():
    pretrained = abstract_variables(SOURCES["alexnet_features"])
    template = alexnet_template()
    with pytest.raises(InputError, match=r"fc6/kernel is not among.*fresh"):
        fit_into(pretrained, template)
    fresh = fresh_layers(SOURCES["alexnet_features"])
    variables, report = fit_into(pretrained, template, fresh=fresh)
    ours, new = variables["params"]["backbone"], template["params"]["backbone"]
    assert ours["fc6"]["kernel"] is new["fc6"]["kernel"]
    assert (
        ours["conv5"]["kernel"] is pretrained["params"]["backbone"]["conv5"]["kernel"]
    )
    assert report.fresh == ("fc6", "fc7")
    assert "params/backbone/fc7/bias" in report.replaced
    assert report.summary().endswith("; fresh: fc6, fc7")


def test_fit_refuses_another_backbone():
    with pytest.raises(InputError, match="fc1/kernel"):
        fit_into(
            small(5),
            create_model("mlp", 5, hidden=9).init(
                jax.random.key(0), jnp.zeros((1, 2, 2, 3)), train=False
            ),
        )
    with pytest.raises(InputError, match="bn1/scale is not among"):
        fit_into(small(5), small(5, batch_norm=True))
    with pytest.raises(InputError, match="not among"):
        fit_into({"params": {}}, small(5))


@pytest.mark.usefixtures("converted_once")
@pytest.mark.parametrize("before", ["module.", "model._orig_mod.", "state_dict."])
def test_names_of_wrappers_are_passed_over(before, tmp_path, capsys):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    source = SOURCES["efficientnet_lite0"]
    path = tmp_path / "wrapped.safetensors"
    published = read_state_dict(fetch(source))
    save_file({f"{before}{name}": array for name, array in published.items()}, path)
    found = load(source.name, weights=path)
    variables, report = read_variables(fetch(source), source)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables)
    assert found.report.kept == report.kept
    assert found.report.prefix == before
    said = f"{path}: {before!r} before the names of all arrays is passed over\n"
    assert capsys.readouterr().err == said
    # Likewise from the cache.
    assert load(source.name, weights=path).report == found.report
    assert capsys.readouterr().err == said
