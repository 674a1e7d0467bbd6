"""The exported folder: checked before it is written, and of use without JAX."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from drawn_images import write_images
from exported_networks import CLASSES, HOSTILE, load_script, make_classifier
from PIL import Image

from jaxvision.classifier import Classifier
from jaxvision.cli.main import main
from jaxvision.data.decode import decode_image
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.storage import find_damage
from jaxvision.training.state import init_variables

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from jaxvision.export import folder as export_folder  # noqa: E402


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    return write_images(folder, per_class=6, size=24)


@pytest.fixture(scope="module")
def classifier(photos: Path) -> Classifier:
    return make_classifier(photos)


def test_what_is_written(classifier: Classifier, tmp_path: Path) -> None:
    found = classifier.export(tmp_path / "new" / "out")
    assert found.folder == tmp_path / "new" / "out"
    assert found.images == 12  # those of the test
    assert found.difference < found.tolerance == 1e-4
    files = ["labels.json", "manifest.json", "model.onnx", "predict.py"]
    assert sorted(path.name for path in found.folder.iterdir()) == files
    assert find_damage(found.folder) is None
    assert found.size_bytes == (found.folder / "model.onnx").stat().st_size
    assert [path.name for path in found.folder.parent.iterdir()] == ["out"]
    session = onnxruntime.InferenceSession(found.folder / "model.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told.pop("labels")) == list(CLASSES)
    preprocessing = Preprocessing.from_dict(json.loads(told.pop("preprocessing")))
    assert preprocessing == classifier.card.preprocessing
    assert json.loads(told.pop("versions"))["jax"] == jax.__version__
    assert told == {"network": "mlp", "weights": "fresh"}
    labels = json.loads((found.folder / "labels.json").read_text("utf-8"))
    assert labels["threshold"] == classifier.card.threshold
    with pytest.raises(InputError, match="is there already; give a new folder"):
        classifier.export(found.folder)


def test_probabilities_have_the_temperature(photos: Path, tmp_path: Path) -> None:
    plain = make_classifier(photos)
    card = dataclasses.replace(plain.card, temperature=0.25)
    classifier = dataclasses.replace(plain, card=card)
    script = load_script(classifier.export(tmp_path / "out").folder)
    for path in sorted(photos.glob("*/00.png")):
        ours = list(classifier.predict(path).probabilities.values())
        np.testing.assert_allclose(script.predict(script.read(path)), ours, atol=1e-4)
        assert max(ours) > max(plain.predict(path).probabilities.values()) + 0.01


def test_the_script_needs_no_jax(photos: Path, tmp_path: Path) -> None:
    classifier = make_classifier(photos, classes=HOSTILE)
    paths = sorted(photos.glob("*/00.png"))
    answers = list(classifier.predict(paths))
    threshold = float(np.mean([answer.probability for answer in answers]))
    card = dataclasses.replace(classifier.card, threshold=threshold)
    classifier = dataclasses.replace(classifier, card=card)
    folder = classifier.export(tmp_path / "out", batch=3).folder
    (tmp_path / "jax.py").write_text("raise ImportError('no JAX here')")
    (tmp_path / "jaxvision.py").write_text("raise ImportError('nor this')")
    done = subprocess.run(
        [sys.executable, folder / "predict.py", "--unknown", *paths],
        env={"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8:backslashreplace"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    wanted = []
    for answer in answers:
        label = answer.label.encode("utf-8", "backslashreplace").decode()
        if answer.probability < threshold:
            label = f"unknown, nearest is {label}"
        wanted.append(f"{answer.path}: {label} {answer.probability:.3f}")
    assert any("unknown" in line for line in wanted)
    assert done.stdout.splitlines() == wanted


GEOMETRIES = [
    Preprocessing((20, 24), resize_mode="stretch", interpolation="bicubic"),
    Preprocessing((20, 34), resize_mode="pad"),
    Preprocessing((20, 21), resize_mode="crop", resize=26, interpolation="bicubic"),
    Preprocessing(
        (20, 20), resize_mode="crop", resize=27, gray=True, mean=(9.0,), std=(9.0,)
    ),
]


@pytest.mark.parametrize("preprocessing", GEOMETRIES, ids=str)
def test_the_script_reads_images_as_we_do(
    preprocessing: Preprocessing, photos: Path, tmp_path: Path
) -> None:
    classifier = make_classifier(photos, preprocessing)
    script = load_script(classifier.export(tmp_path / "out").folder)
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, (mode, shape) in enumerate(
        [
            ("RGB", (40, 31, 3)),
            ("L", (17, 30)),
            ("RGBA", (33, 33, 4)),
            ("RGB", (9, 5, 3)),
        ]
    ):
        path = tmp_path / f"{number}.png"
        # Within 64 and 192, for an image that lies on its side is resized first across
        # and then down here, and bytes are cut between the two.
        pixels = rng.integers(64, 192, shape, np.uint8)
        Image.fromarray(pixels, mode).save(path, exif=turned if number == 0 else None)
        read = script.read(str(path)).astype(int)
        off = np.abs(read - decode_image(path, preprocessing)).max()
        assert off <= (1 if number == 0 else 0)


def test_the_script_answers_as_we_do_on_real_images(
    shared_data: Path, photos: Path, tmp_path: Path
) -> None:
    preprocessing = Preprocessing((96, 96), resize_mode="crop", resize=110)
    classifier = make_classifier(photos, preprocessing, hidden=4)
    paths = sorted((shared_data / "imagenet_sample").glob("*.jpg"))[::5]
    script = load_script(classifier.export(tmp_path / "out", images=paths).folder)
    for path, answer in zip(paths, classifier.predict(paths), strict=True):
        probabilities = script.predict(script.read(str(path)))
        wanted = list(answer.probabilities.values())
        assert CLASSES[probabilities.argmax()] == answer.label
        # Large JPEGs are decoded at a reduced scale here.
        np.testing.assert_allclose(probabilities, wanted, atol=0.01)


def test_nothing_is_written_unless_it_agrees(
    classifier: Classifier,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model of other weights, and of NaN."""
    true_model = export_folder.onnx_model

    def other(network: Any, variables: Any, *args: Any, **options: Any) -> Any:
        variables = {**variables, "params": changed(variables["params"])}
        return true_model(network, variables, *args, **options)

    monkeypatch.setattr(export_folder, "onnx_model", other)
    for factor in (-1.0, 1.001, np.nan):

        def changed(params: Any, factor: float = factor) -> Any:
            return jax.tree.map(lambda leaf: leaf * factor, params)

        with pytest.raises(InputError, match="nothing was written, for ONNX Runtime"):
            classifier.export(tmp_path / "out")
    assert not list(tmp_path.iterdir())
    # Half precision may differ by more.
    monkeypatch.setattr(export_folder, "onnx_model", true_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(export_folder.TOLERANCE, "float16", 1e-9)
        with pytest.raises(InputError, match="take float32 for `dtype`"):
            classifier.export(tmp_path / "out", dtype="float16")
    assert classifier.export(tmp_path / "out", dtype="float16").images == 12


def test_a_network_trained_in_half_precision_and_one_of_one_logit(
    photos: Path, tmp_path: Path
) -> None:
    half = make_classifier(photos, dtype="bfloat16")
    assert half.export(tmp_path / "half").difference < 1e-5
    card = dataclasses.replace(half.card, classes=("a", "b"), binary=True, options={})
    model = card.create_model()
    binary = dataclasses.replace(
        half, card=card, model=model, variables=init_variables(model, 0, (12, 12, 3))
    )
    script = load_script(binary.export(tmp_path / "one", batch="dynamic").folder)
    path = photos / "red" / "00.png"
    np.testing.assert_allclose(
        script.predict(script.read(str(path))),
        list(binary.predict(path).probabilities.values()),
        atol=1e-5,
    )


def test_images_to_check_by(
    classifier: Classifier, photos: Path, tmp_path: Path
) -> None:
    gone = dataclasses.replace(
        classifier, card=dataclasses.replace(classifier.card, data={"root": "gone"})
    )
    with pytest.raises(InputError, match="`images`: the images of the network's"):
        gone.export(tmp_path / "out")
    with pytest.raises(InputError, match="`images`: give at least one"):
        gone.export(tmp_path / "out", images=[])
    assert gone.export(tmp_path / "out", images=[photos / "red/00.png"]).images == 1


def test_without_the_extra_one_line_names_it(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, export_folder.__name__)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'jaxvision-classics\[export\]'"):
        classifier.export(tmp_path / "out")


def test_the_same_network_gives_the_same_bytes(
    classifier: Classifier, tmp_path: Path
) -> None:
    a, b = (classifier.export(tmp_path / name).folder for name in "ab")
    assert (a / "manifest.json").read_bytes() == (b / "manifest.json").read_bytes()
    model = onnx.load(a / "model.onnx")
    # And in another process, whose sets are in another order.
    numbers = [int(t.name.rpartition("_")[2]) for t in model.graph.initializer]
    assert numbers == sorted(numbers)


def status(*arguments: object) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(["export", *map(str, arguments)])
    return caught.value.code


def test_the_command(
    classifier: Classifier,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = classifier.save(tmp_path / "checkpoint")
    out = tmp_path / "out"
    main(["export", str(checkpoint), "--out", str(out), "--batch", "dynamic"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "checked on 12 images: same classes, logits differ by at"
    )
    assert lines[-1] == str(out)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 12, 12, 3]
    assert status(checkpoint, "--out", out) == 2
    assert "is there already" in capsys.readouterr().err
    assert status(checkpoint, "--out", tmp_path / "b", "--batch", "0") == 2
    assert "--batch 0: must be at least 1" in capsys.readouterr().err
    assert status(checkpoint, "--out", tmp_path / "b", "--images", "no.jpg") == 2
    assert "error: no.jpg: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
