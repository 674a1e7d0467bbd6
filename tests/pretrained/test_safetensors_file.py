"""Files of safetensors: torch's names and timm's, and wrong files refused in words."""

import json
import random
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_inputs import normalized_images
from flax.traverse_util import flatten_dict

from jaxvision.errors import InputError
from jaxvision.models import create_model
from jaxvision.pretrained import SOURCES, load
from jaxvision.pretrained.convert import abstract_variables, read_variables
from jaxvision.pretrained.safetensors_file import read_tensors
from jaxvision.pretrained.tables import TABLES, TIMM_TABLES
from jaxvision.pretrained.torch_file import read_state_dict

pytest.importorskip("safetensors")

VALUES = np.arange(12, dtype=np.float32)


def write(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def described(shape: tuple[int, ...], start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD = {"weight": described((3, 4), 0, 48), "bias": described((2,), 48, 56)}


def refused(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reads_every_kind_of_number(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    kinds = ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"]
    arrays = {kind: (rng.random((5, 7)) * 3).astype(kind) for kind in kinds}
    arrays["scalar"] = np.array(3.0)
    save_file(arrays, tmp_path / "a.safetensors")
    read = read_tensors(tmp_path / "a.safetensors")
    assert read.keys() == arrays.keys()
    for name, expected in arrays.items():
        np.testing.assert_array_equal(read[name], expected, strict=True)
    # 1.0, -2.0: the upper halves of float32.
    write(tmp_path / "b.safetensors", {"w": described((2,), 0, 4, "BF16")},
          struct.pack("<HH", 0x3F80, 0xC000))  # fmt: skip
    read = read_tensors(tmp_path / "b.safetensors")
    np.testing.assert_array_equal(read["w"], np.float32([1, -2]), strict=True)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"w": described((3, 4), 0, 48)}, 40),
        ({"w": described((3, 4), 0, 48)}, 52),
        ({"w": described((3, 5), 0, 48)}, 48),
        ({"w": described((3, 4), 0, 48, "F64")}, 48),
        ({"w": described((3, 4), 0, 48, "NO")}, 48),
        ({"w": described((3, 4), 48, 0)}, 48),
        ({"w": described((2**62, 2**62), 0, 48)}, 48),
        ({"w": described((3, 4), 0, 48), "v": described((3, 4), 0, 48)}, 48),
        ({"w": {"dtype": "F32"}}, 48),
        ({"w": [1]}, 0),
        ({}, 0),
    ],
)
def test_what_its_bytes_do_not_bear_out_is_refused(tmp_path, header, length):
    path = tmp_path / "a.safetensors"
    write(path, header, bytes(length))
    refused(path)


def test_truncated_and_mutated_files_never_crash(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, GOOD, VALUES.tobytes() + bytes(8))
    whole = path.read_bytes()
    assert read_tensors(path)["weight"].shape == (3, 4)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    rng = random.Random(0)
    for _ in range(1000):
        mutated = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            mutated[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(mutated)
        try:
            tensors = read_tensors(path)
        except InputError:
            continue
        assert all(isinstance(a, np.ndarray) for a in tensors.values())


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", TIMM_TABLES)
def test_every_table_of_timm_fills_its_network(name):
    table = TIMM_TABLES[name]()
    targets = [entry.target for entry in table.entries]
    shapes = flatten_dict(abstract_variables(SOURCES[name]), sep="/")
    assert sorted(targets) == sorted(shapes)
    assert len({entry.source for entry in table.entries}) == len(targets)


@pytest.mark.usefixtures("converted_once")
def test_published_weights_are_read_from_safetensors(tmp_path):
    from safetensors.numpy import save_file

    from jaxvision.pretrained.fetch import fetch

    source = SOURCES["efficientnet_lite0"]
    tensors = read_state_dict(fetch(source))
    save_file(tensors, tmp_path / "lite0.safetensors")
    pretrained = load("efficientnet_lite0", weights=tmp_path / "lite0.safetensors")
    expected = load("efficientnet_lite0")
    assert pretrained.report.kept == expected.report.kept
    assert sorted(pretrained.report.ignored) == sorted(expected.report.ignored)
    jax.tree.map(
        np.testing.assert_array_equal, pretrained.variables, expected.variables
    )

    # The same weights under timm's names, by way of their places in the network.
    timm = {entry.target: entry for entry in TIMM_TABLES[source.name]().entries}
    renamed = {
        timm[entry.target].source: tensors[entry.source]
        for entry in TABLES[source.name]().entries
    }
    save_file(renamed, tmp_path / "timm.safetensors")
    variables, report = read_variables(tmp_path / "timm.safetensors", source)
    assert len(report.kept) == len(renamed)
    jax.tree.map(np.testing.assert_array_equal, variables, expected.variables)

    renamed["other"] = renamed.pop("classifier.bias")
    save_file(renamed, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"classifier\.bias is missing.*other is not"):
        read_variables(tmp_path / "other.safetensors", source)
    with pytest.raises(InputError, match="is a file of safetensors, and the weights"):
        read_variables(tmp_path / "timm.safetensors", SOURCES["mobilenet_v2"])


# Random weights and statistics of timm's own networks.
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    ("name", "theirs", "size"),
    [
        ("vgg16", "vgg16", (224, 224)),
        ("efficientnet_lite0", "tf_efficientnet_lite0", (75, 64)),
        ("efficientnet_lite1", "tf_efficientnet_lite1", (75, 64)),
        ("efficientnet_lite2", "tf_efficientnet_lite2", (75, 64)),
        ("efficientnet_v2_b3", "tf_efficientnetv2_b3", (75, 64)),
    ],
)
def test_timms_networks_answer_alike(tmp_path, name, theirs, size):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file
    from torch_references import answer

    torch.manual_seed(0)
    reference = timm.create_model(theirs).eval()
    for key, value in reference.state_dict().items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    save_file(reference.state_dict(), tmp_path / "a.safetensors")
    source = SOURCES[name]
    variables, _ = read_variables(tmp_path / "a.safetensors", source)
    images = normalized_images(name)[:1, : size[0], : size[1]]
    model = create_model(source.model, 1000)
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    if name == "efficientnet_v2_b3":  # ours normalizes by itself
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        images = ((images / 255 - mean) / std).astype(np.float32)
    expected = answer(reference, images)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
