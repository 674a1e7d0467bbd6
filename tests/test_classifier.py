"""A trained classifier: labels by name, saved and read back, bad files named."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision.classifier import CARD, SPLITS, _hashes, load_training_data, softmax
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.explain.methods import TrainedNetwork, explain_batches
from jaxvision.metrics import fit_temperature, fit_threshold
from jaxvision.prediction import UNKNOWN
from jaxvision.settings import OptimConfig

MLP = jv.Recipe(
    "mlp",
    {"hidden": 16},
    method="scratch",
    image_size=12,
    epochs=12,
    batch_size=8,
    optim=OptimConfig("adam", 1e-2),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def data(root):
    return jv.load_dataset(DataConfig(root, split=SplitConfig(0.5, 0.25, 0.25)))


@pytest.fixture(scope="module")
def classifier(data):
    return jv.train(data, MLP, progress=False, measure_train=True)


def test_labels_are_matched_by_name(classifier, root, tmp_path):
    """A folder with two of the three classes: their labels are other numbers there."""
    for name in ("green", "red"):
        shutil.copytree(root / name, tmp_path / "new" / name)
        for path in (tmp_path / "new" / name).iterdir():
            path.write_bytes(path.read_bytes() + b"\0")  # other files, same pixels
    found = classifier.evaluate(jv.load_dataset(tmp_path / "new"))
    assert found.split == "all"
    assert len(found.labels) == 24
    assert set(found.labels) == {1, 2}
    assert found.accuracy == pytest.approx(
        np.mean(
            [
                classifier.predict(root / i).label == i.split("/")[0]
                for i in found.images
            ]
        )
    )
    assert found.accuracy > 0.9
    assert found.confusion_matrix[0].sum() == 0


def test_a_class_that_the_network_does_not_know_is_refused(classifier, root, tmp_path):
    shutil.copytree(root / "red", tmp_path / "new" / "red")
    shutil.copytree(root / "blue", tmp_path / "new" / "violet")
    with pytest.raises(InputError, match="does not know the class 'violet'"):
        classifier.evaluate(jv.load_dataset(tmp_path / "new"))


def test_splits_are_those_of_the_training(classifier, root, data):
    moved = jv.load_dataset(DataConfig(root, split=SplitConfig(0.2, 0.4, 0.4, seed=9)))
    for split in ("train", "val", "test"):
        assert classifier.evaluate(moved, split).row == classifier.card.recorded[split]
    everything = classifier.evaluate(moved, "all")
    assert len(everything.labels) == 36


def test_images_are_known_by_content_where_they_were_renamed(
    classifier, root, tmp_path
):
    for path in root.glob("*/*.png"):
        target = tmp_path / "new" / path.parent.name / f"renamed-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    found = classifier.evaluate(jv.load_dataset(tmp_path / "new"))
    assert (found.split, len(found.labels)) == ("test", 9)
    # A copy of a test image that has no part in the splits has none here either.
    shutil.copytree(root, tmp_path / "copied")
    for path in sorted((tmp_path / "copied").glob("*/*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    found = classifier.evaluate(jv.load_dataset(tmp_path / "copied"))
    assert (found.split, len(found.labels)) == ("test", 9)


def test_predictions_name_classes(classifier, root):
    one = classifier.predict(root / "red" / "00.png")
    assert one.label == "red"
    assert one.probabilities["red"] == one.probability == one.top(1)[0][1]
    assert sum(one.probabilities.values()) == pytest.approx(1)
    paths = sorted(root.glob("*/0*.png"))
    many = list(classifier.predict(paths, batch_size=4))
    assert [p.label for p in many] == [path.parent.name for path in paths]
    with pytest.raises(InputError, match=r"no\.png"):
        list(classifier.predict([root / "no.png"]))


def test_the_temperature_of_the_card_is_that_of_all_probabilities(
    classifier, data, tmp_path
):
    val = classifier.evaluate(data, "val")
    assert classifier.card.temperature == fit_temperature(val.logits, val.labels) != 1
    warm = dataclasses.replace(
        classifier, card=dataclasses.replace(classifier.card, temperature=3.0)
    )
    warm = jv.load_classifier(warm.save(tmp_path / "warm"))
    found = warm.evaluate(data, "val")
    np.testing.assert_array_equal(found.logits, val.logits)
    np.testing.assert_allclose(found.probabilities, softmax(val.logits / 3), rtol=1e-6)
    one = warm.predict(data.root / found.images[0])
    assert one.probability == pytest.approx(found.probabilities[0].max(), abs=1e-6)
    plain = found.with_temperature(1)
    np.testing.assert_allclose(plain.probabilities, softmax(val.logits), rtol=1e-6)


def test_what_is_less_probable_than_the_threshold_is_unknown(
    classifier, data, tmp_path
):
    val = classifier.evaluate(data, "val")
    assert 0 < classifier.card.threshold == fit_threshold(val.probabilities)
    assert not val.turned_away.any()  # of so few images, 95 % are all
    # At so high a temperature no two images are equally sure.
    sure = np.sort(val.with_temperature(50.0).probabilities.max(-1))
    threshold = float(sure[3:5].mean())
    card = dataclasses.replace(classifier.card, temperature=50.0, threshold=threshold)
    strict = dataclasses.replace(classifier, card=card)
    strict = jv.load_classifier(strict.save(tmp_path / "strict"))
    found = strict.evaluate(data, "val")
    assert found.turned_away.sum() == 4
    paths = [data.root / image for image in found.images]
    plain = list(strict.predict(paths))
    assert all(one.known and one.label != UNKNOWN for one in plain)
    for one, old, away in zip(
        strict.predict(paths, unknown=True), plain, found.turned_away, strict=True
    ):
        assert one.label == (UNKNOWN if away else old.label)
        assert one.known != away
        assert one.probabilities == old.probabilities
        assert one.probability == old.probability == one.top(1)[0][1]
    with pytest.raises(InputError, match="`unknown`: its threshold was fitted without"):
        strict.predict(paths[0], unknown=True, tta="flip")
    assert strict.evaluate(data, "val", tta="flip").threshold == 0
    card = dataclasses.replace(card, threshold=0.0)
    with pytest.raises(InputError, match="no threshold"):
        dataclasses.replace(classifier, card=card).predict(paths[0], unknown=True)


def test_checkpoints_from_before_temperatures_have_none(classifier, tmp_path):
    folder = classifier.save(tmp_path / "saved")
    plain = json.loads((folder / CARD).read_text())
    del plain["temperature"], plain["threshold"]
    plain["sha256"] = _hashes({k: v for k, v in plain.items() if k != "sha256"}, folder)
    (folder / CARD).write_text(json.dumps(plain))
    card = jv.load_classifier(folder).card
    assert (card.temperature, card.threshold) == (1, 0)


def test_explains_the_predicted_class_or_the_one_that_is_named(classifier, root):
    path = root / "red" / "00.png"
    found = classifier.explain(path, method="gradient")
    assert found.label == classifier.predict(path).label
    assert found.image.tolist() == classifier.decode(path).tolist()
    assert found.map.shape == (12, 12, 3)
    assert found.overlay.shape == (12, 12, 3)
    assert found.overlay.dtype == np.uint8
    other = classifier.explain(path, method="gradient", label="blue")
    ours = explain_batches(
        TrainedNetwork.of(classifier),
        "gradient",
        other.image[None],
        [classifier.classes.index("blue")],
    )
    np.testing.assert_allclose(other.map, ours[0], rtol=1e-4, atol=1e-7)
    assert not np.allclose(other.map, found.map)


def test_what_cannot_be_explained_is_named(classifier, root):
    path = root / "red" / "00.png"
    with pytest.raises(InputError, match="has no convolution; choose another method"):
        classifier.explain(path)
    with pytest.raises(InputError, match="no method 'magic'"):
        classifier.explain(path, method="magic")
    with pytest.raises(InputError, match="`label` mauve: no such class; there are"):
        classifier.explain(path, method="gradient", label="mauve")
    with pytest.raises(InputError, match=r"no\.png"):
        classifier.explain(root / "no.png", method="gradient")


def test_saved_and_read_back(classifier, data, tmp_path):
    folder = classifier.save(tmp_path / "saved")
    again = jv.load_classifier(folder)
    assert again.card == classifier.card
    jax.tree.map(np.testing.assert_array_equal, again.variables, classifier.variables)
    assert again.evaluate(data).row == classifier.card.recorded["test"]
    assert load_training_data(again).splits["test"].tolist() == (
        data.with_seed(0).decode(again.card.preprocessing).splits["test"].tolist()
    )
    with pytest.raises(InputError, match="is there already"):
        classifier.save(folder)


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, "{}", '{"network": 3}', "null", '"card"']
)
def test_a_damaged_card_is_one_line(classifier, tmp_path, text):
    folder = classifier.save(tmp_path / "saved")
    (folder / CARD).write_text(text)
    with pytest.raises(InputError, match=r"card\.json: damaged"):
        jv.load_classifier(folder)


@pytest.mark.parametrize("name", [CARD, SPLITS])
def test_a_flipped_bit_in_card_or_splits_is_found(classifier, tmp_path, name):
    path = classifier.save(tmp_path / "saved") / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 60, replace=False):
        content = bytearray(whole)
        content[place] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        found = None
        with contextlib.suppress(InputError):
            found = jv.load_classifier(path.parent)
        # White space of JSON may change.
        assert found is None or (name, found.card) == (CARD, classifier.card)
    path.write_bytes(whole)
    assert jv.load_classifier(path.parent).card == classifier.card
    path.unlink()
    with pytest.raises(InputError):
        jv.load_classifier(path.parent)


def test_recorded_figures_leave_a_whole_checkpoint(classifier, tmp_path):
    folder = classifier.save(tmp_path / "saved")
    classifier.record({"val": {"accuracy": 0.5}}, folder)
    assert jv.load_classifier(folder).card.recorded == {"val": {"accuracy": 0.5}}


def test_a_card_that_cannot_be_read_is_one_line(classifier, tmp_path, monkeypatch):
    folder = classifier.save(tmp_path / "saved")
    read_text = Path.read_text

    def refuse(path, *arguments, **options):
        if path.name == CARD:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"card\.json: cannot be read \(Permission"):
        jv.load_classifier(folder)


def test_a_class_without_training_images_is_named(root, tmp_path):
    rows = ["path,label,split"]
    for path in sorted(root.glob("*/*.png")):
        name, number = path.parent.name, int(path.stem)
        split = ("train", "val", "test")[number % 3] if name != "red" else "test"
        rows.append(f"{name}/{path.name},{name},{split}")
    (tmp_path / "splits.csv").write_text("\n".join(rows) + "\n")
    data = jv.load_dataset(DataConfig(root, splits=tmp_path / "splits.csv"))
    with pytest.raises(InputError, match="no image of class 'red' is in the training"):
        jv.train(data, MLP, progress=False)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(InputError, match="no checkpoint there"):
        jv.load_classifier(tmp_path)
