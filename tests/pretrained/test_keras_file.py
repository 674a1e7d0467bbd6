"""Keras's files: three layouts, old names, what a hostile or broken one may hold."""

import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from torch_writer import dictionary, write_legacy

from jaxvision.cli.main import main
from jaxvision.errors import InputError
from jaxvision.pretrained import SOURCES, load
from jaxvision.pretrained.convert import (
    abstract_variables,
    convert,
    read_variables,
)
from jaxvision.pretrained.entries import Entry, Table
from jaxvision.pretrained.fetch import download_path
from jaxvision.pretrained.keras_file import by_path, read_weights
from jaxvision.pretrained.tables import TABLES, as_is, depthwise_kernel

Layers = dict[str, dict[str, np.ndarray]]

LAYERS: Layers = {
    "conv1": {"kernel": np.arange(54.0).reshape(3, 3, 3, 2), "bias": np.arange(2.0)},
    "bn": {
        "gamma": np.full(2, 1.0),
        "beta": np.full(2, 2.0),
        "moving_mean": np.full(2, 3.0),
        "moving_variance": np.full(2, 4.0),
    },
    "depthwise": {"kernel": np.arange(18.0).reshape(3, 3, 2, 1)},
    "predictions": {"kernel": np.arange(8.0).reshape(2, 4), "bias": np.arange(4.0)},
}
TABLE = Table(
    (
        Entry("conv1/kernel", "params/backbone/conv1/kernel", as_is),
        Entry("conv1/bias", "params/backbone/conv1/bias", as_is),
        Entry("bn/gamma", "params/backbone/bn/scale", as_is),
        Entry("bn/beta", "params/backbone/bn/bias", as_is),
        Entry("bn/moving_mean", "batch_stats/backbone/bn/mean", as_is),
        Entry("bn/moving_variance", "batch_stats/backbone/bn/var", as_is),
        Entry("depthwise/kernel", "params/backbone/depthwise/kernel", depthwise_kernel),
        Entry("predictions/kernel", "params/head/logits/kernel", as_is),
        Entry("predictions/bias", "params/head/logits/bias", as_is),
    )
)
TEMPLATE = {
    "params": {
        "backbone": {
            "conv1": {"kernel": np.zeros((3, 3, 3, 2)), "bias": np.zeros(2)},
            "bn": {"scale": np.zeros(2), "bias": np.zeros(2)},
            "depthwise": {"kernel": np.zeros((3, 3, 1, 2))},
        },
        "head": {"logits": {"kernel": np.zeros((2, 4)), "bias": np.zeros(4)}},
    },
    "batch_stats": {"backbone": {"bn": {"mean": np.zeros(2), "var": np.zeros(2)}}},
}

# Keras's own names of today, and of the times of the published files.
OLD_LAYERS = {"depthwise": "mobl1_conv_1_depthwise", "predictions": "Logits"}
OLD_VARIABLES = {"bias": "b_1:0", "kernel": "W_1:0", "gamma": "gamma:0"}


def write_named(
    path: Path,
    layers: Layers,
    *,
    below: str = "/",
    old_layers: dict[str, str] | None = None,
    old_variables: dict[str, str] | None = None,
    parts: int = 1,
) -> None:
    """The published layout; layers without variables stand between the others."""
    with h5py.File(path, "w") as file:
        root = file.require_group(below)
        names = []
        for layer, variables in layers.items():
            layer = (old_layers or {}).get(layer, layer)
            group = root.create_group(layer)
            paths = [f"{layer}/{(old_variables or {}).get(v, v)}" for v in variables]
            group.attrs["weight_names"] = [p.encode() for p in paths]
            for name, array in zip(paths, variables.values(), strict=True):
                group[name] = array.astype(np.float32)
            root.create_group(f"{layer}_relu").attrs["weight_names"] = []
            names += [layer, f"{layer}_relu"]
        if parts == 1:
            root.attrs["layer_names"] = [name.encode() for name in names]
        for part, some in enumerate(np.array_split(names, parts) if parts > 1 else []):
            root.attrs[f"layer_names{part}"] = [name.encode() for name in some]


def write_numbered(path: Path, layers: Layers) -> None:
    """The layout of Keras 3's `save_weights`: places by kind, names as attributes."""
    with h5py.File(path, "w") as file:
        for place, (layer, variables) in enumerate(reversed(layers.items())):
            group = file.create_group(f"layers/kind_{place}/vars")
            group.attrs["name"] = layer
            for number, array in enumerate(variables.values()):
                group[str(number)] = array.astype(np.float32)
        file.create_group("layers/relu/vars").attrs["name"] = "relu"
        file["optimizer/vars/0"] = np.zeros(3)


WRITERS: dict[str, Callable[[Path, Layers], None]] = {
    "published": write_named,
    "whole model": lambda path, layers: write_named(
        path, layers, below="model_weights"
    ),
    "old names": lambda path, layers: write_named(
        path, layers, old_layers=OLD_LAYERS, old_variables=OLD_VARIABLES
    ),
    "names in parts": lambda path, layers: write_named(path, layers, parts=3),
    "numbered": write_numbered,
}

every_layout = pytest.mark.parametrize("layout", WRITERS)


def converted(path: Path) -> dict:
    tensors, table = by_path(read_weights(path), TABLE)
    return convert(tensors, table, TEMPLATE)[0]


def without(layers: Layers, layer: str, variable: str) -> Layers:
    kept = {k: v for k, v in layers[layer].items() if k != variable}
    return {**layers, layer: kept}


def with_(layers: Layers, layer: str, variable: str, array: np.ndarray) -> Layers:
    return {**layers, layer: {**layers.get(layer, {}), variable: array}}


@every_layout
def test_every_variable_finds_its_place(tmp_path, layout):
    WRITERS[layout](tmp_path / "a.h5", LAYERS)
    variables = converted(tmp_path / "a.h5")
    backbone = variables["params"]["backbone"]
    np.testing.assert_array_equal(
        backbone["conv1"]["kernel"], LAYERS["conv1"]["kernel"]
    )
    np.testing.assert_array_equal(
        backbone["depthwise"]["kernel"][..., 0, :],
        LAYERS["depthwise"]["kernel"][..., 0],
    )
    np.testing.assert_array_equal(backbone["bn"]["scale"], [1, 1])
    np.testing.assert_array_equal(backbone["bn"]["bias"], [2, 2])
    statistics = variables["batch_stats"]["backbone"]["bn"]
    np.testing.assert_array_equal(statistics["mean"], [3, 3])
    np.testing.assert_array_equal(statistics["var"], [4, 4])
    logits = variables["params"]["head"]["logits"]
    np.testing.assert_array_equal(logits["kernel"], LAYERS["predictions"]["kernel"])
    assert logits["bias"].dtype == np.float32


def test_known_names_are_stronger_than_the_order(tmp_path):
    """Layers of the same shape in another order are not mixed up."""
    twice = {"a": {"kernel": np.zeros(3)}, "b": {"kernel": np.ones(3)}}
    table = Table(tuple(Entry(f"{n}/kernel", f"params/{n}", as_is) for n in ("b", "a")))
    write_named(tmp_path / "a.h5", twice, old_variables={"kernel": "kernel:0"})
    _, named = by_path(read_weights(tmp_path / "a.h5"), table)
    assert [entry.source for entry in named.entries] == [
        "b/b/kernel:0",
        "a/a/kernel:0",
    ]


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        (without(LAYERS, "bn", "moving_mean"), "bn/moving_mean is missing"),
        (without(LAYERS, "depthwise", "kernel"), "depthwise/kernel is missing"),
        (with_(LAYERS, "bn", "more", np.ones(2)), "bn/bn/more is not expected"),
        (with_(LAYERS, "extra", "kernel", np.ones(2)), "extra/extra/kernel is not exp"),
        (
            with_(LAYERS, "predictions", "kernel", np.zeros((4, 2))),
            "predictions/predictions/kernel has the shape [4, 2]",
        ),
        (
            with_(LAYERS, "bn", "gamma", np.array([1, np.nan])),
            "bn/bn/gamma holds values that are not finite",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, layers, problem):
    write_named(tmp_path / "a.h5", layers)
    with pytest.raises(InputError) as caught:
        converted(tmp_path / "a.h5")
    assert problem in str(caught.value)
    assert str(caught.value).count(";") == 0


@every_layout
def test_a_layer_too_many_or_too_few_is_never_taken_by_order(tmp_path, layout):
    for layers in (
        {k: v for k, v in LAYERS.items() if k != "predictions"},
        with_(LAYERS, "other", "kernel", np.zeros((2, 4))),
    ):
        WRITERS[layout](tmp_path / "a.h5", layers)
        with pytest.raises(InputError, match=r"is missing|is not expected"):
            converted(tmp_path / "a.h5")


def drawn_file(name: str, path: Path) -> None:
    """Weights of a whole network, in the published layout."""
    shapes = flatten_dict(abstract_variables(SOURCES[name]), sep="/")
    rng = np.random.default_rng(0)
    layers: Layers = {}
    for entry in TABLES[name]().entries:
        layer, _, variable = entry.source.rpartition("/")
        shape = shapes[entry.target].shape
        if entry.transform is depthwise_kernel:
            shape = (*shape[:2], shape[3], shape[2])
        layers.setdefault(layer, {})[variable] = rng.random(shape, np.float32) / 8
    write_named(path, layers)


def test_the_command_line_converts_and_verifies(
    tmp_path, own_cache, capsys, monkeypatch
):
    file = tmp_path / "mine.h5"
    drawn_file("mobilenet_v2", file)
    main(["weights", "convert", "mobilenet_v2", str(file)])
    printed = capsys.readouterr().out
    assert "262 arrays kept, 0 replaced, 0 ignored" in printed
    assert "is not the published file (its SHA256 is" in printed
    assert len(load("mobilenet_v2", weights=file).report.kept) == 262

    # As if it were the published one, of which an MD5 sum is known and nothing else.
    source = dataclasses.replace(
        SOURCES["mobilenet_v2"],
        sha256=None,
        md5=hashlib.md5(file.read_bytes()).hexdigest(),
        size_bytes=None,
    )
    monkeypatch.setitem(SOURCES, "mobilenet_v2", source)
    main(["weights", "convert", "mobilenet_v2", str(file)])
    assert "is not the published file" not in capsys.readouterr().out
    main(["weights", "list"])
    assert "mobilenet_v2" in capsys.readouterr().out
    assert len(load("mobilenet_v2", download=False).report.kept) == 262
    download_path(source).parent.mkdir(parents=True)
    file.rename(download_path(source))
    main(["weights", "verify", "mobilenet_v2"])
    printed = capsys.readouterr().out
    assert printed.count("ok  ") == 2
    assert "its MD5 is the published one" in printed
    assert "skip  no reference answers" in printed


# -- Files that are refused -----------------------------------------------------------


def edited(path: Path, edit: Callable[[h5py.File], None]) -> Path:
    write_named(path, LAYERS)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replace_bias(file: h5py.File, **options: object) -> None:
    del file["conv1/conv1/bias"]
    file["conv1/conv1"].create_dataset("bias", **options)


def soft_link(file: h5py.File) -> None:
    del file["conv1/conv1/bias"]
    file["conv1/conv1/bias"] = h5py.SoftLink("/bn/bn/beta")


def external_link(file: h5py.File) -> None:
    del file["conv1"]
    file["conv1"] = h5py.ExternalLink("other.h5", "/conv1")


def virtual(file: h5py.File) -> None:
    del file["conv1/conv1/bias"]
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (2,))
    file["conv1/conv1"].create_virtual_dataset("bias", layout)


def set_names(file: h5py.File, names: object) -> None:
    file.attrs["layer_names"] = names


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (soft_link, "is a link, which is not followed"),
        (external_link, "is a link, which is not followed"),
        (virtual, "lies in another file"),
        (
            lambda f: replace_bias(
                f, shape=(2,), dtype="f4", external=[("/etc/hostname", 0, 8)]
            ),
            "lies in another file",
        ),
        (
            lambda f: replace_bias(f, shape=(2**40,), dtype="f4", chunks=(2**10,)),
            "larger than the file",
        ),
        (
            lambda f: replace_bias(f, data=np.zeros(2), compression="gzip"),
            "compressed",
        ),
        (lambda f: replace_bias(f, data=[b"no", b"no"]), "not numbers"),
        (lambda f: replace_bias(f, data=["no", "no"]), "not numbers"),
        (lambda f: set_names(f, [b"conv1", b"gone"]), "'gone' is named, but missing"),
        (lambda f: set_names(f, [b"conv1", b"conv1"]), "named twice"),
        (lambda f: set_names(f, [b"/conv1"]), "missing"),
        (lambda f: set_names(f, [1, 2]), "other than names"),
        (lambda f: set_names(f, []), "no weights"),
        (lambda f: f.attrs.__delitem__("layer_names"), "names no layers"),
        (lambda f: f.__setitem__("model_weights", np.zeros(2)), "is no group"),
    ],
)
def test_what_a_file_must_not_hold_is_refused(tmp_path, edit, problem):
    path = edited(tmp_path / "a.h5", edit)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_cut_off_or_of_another_kind_are_named(tmp_path):
    write_named(tmp_path / "a.h5", LAYERS)
    whole = (tmp_path / "a.h5").read_bytes()
    for content in (
        b"",
        whole[:4],
        b"PK\x03\x04" + whole,
        *(whole[:n] for n in range(8, len(whole), len(whole) // 10)),
    ):
        (tmp_path / "b.h5").write_bytes(content)
        with pytest.raises(InputError, match=r"b\.h5"):
            read_weights(tmp_path / "b.h5")
    with pytest.raises(InputError, match=r"none\.h5"):
        read_weights(tmp_path / "none.h5")


def test_damage_never_shows_as_another_error(tmp_path):
    write_named(tmp_path / "a.h5", LAYERS)
    whole = (tmp_path / "a.h5").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    # Each is read in a process of its own; tests/fuzz has more of them on request.
    for _ in range(25):
        damaged = bytearray(whole)
        for place in rng.integers(8, len(whole), 3):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.h5").write_bytes(damaged)
        try:
            read_weights(tmp_path / "b.h5")
        except InputError:
            refused += 1
    assert refused > 4


def test_a_file_of_the_other_format_names_the_weights_that_it_may_be(tmp_path):
    write_named(tmp_path / "keras.h5", LAYERS)
    write_legacy(tmp_path / "torch.pth", dictionary({}), {})
    (tmp_path / "arrays.ckpt").write_bytes(pickle.dumps({}, 3))
    for name, file, hint in (
        ("vgg19", "torch.pth", "the weights vgg19_torchvision"),
        ("vgg19_torchvision", "keras.h5", "the weights vgg19"),
        ("alexnet", "keras.h5", "is a Keras file (HDF5), and the weights alexnet are"),
        ("mobilenet_v2", "torch.pth", "are a Keras file"),
        ("alexnet", "arrays.ckpt", "the weights alexnet_features"),
        ("alexnet_features", "torch.pth", "the weights alexnet"),
    ):
        with pytest.raises(InputError) as caught:
            read_variables(tmp_path / file, SOURCES[name])
        assert hint in str(caught.value)
        assert file in str(caught.value)


def test_many_names_of_one_long_text_are_refused(tmp_path):
    """1 MB of HDF5 that would be gigabytes of names."""
    path = tmp_path / "names.h5"
    with h5py.File(path, "w") as file:
        text = h5py.string_dtype()
        file.attrs.create("layer_names", ["x" * 60_000] * 400, dtype=text)
    with pytest.raises(InputError, match="larger than any list of names"):
        read_weights(path)


def test_a_library_that_never_ends_meets_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv1"]
    busy = tmp_path / "keras_child.py"
    busy.write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
        "while True: pass\n"
    )
    monkeypatch.setattr("jaxvision.pretrained.keras_file.__file__", str(busy))
    with pytest.raises(InputError, match="HDF5's library takes too long"):
        read_weights(path)
