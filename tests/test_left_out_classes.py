"""A head that does not know a class is the one that is trained without the class."""

import shutil

import numpy as np
import pytest
from drawn_images import write_images

import jaxvision as jv
from jaxvision.crossval import leave_classes_out
from jaxvision.data.dataset import DataConfig
from jaxvision.data.splits import SplitConfig
from jaxvision.errors import InputError
from jaxvision.models import create_model
from jaxvision.pretrained import SOURCES, Pretrained, Report
from jaxvision.recipe import make_start
from jaxvision.training.state import init_variables

SIZE = 16


@pytest.fixture
def weights(monkeypatch) -> Pretrained:
    """Of a few layers of a network, drawn."""
    model = create_model("efficientnet_lite0", 1000, stop_at="block1a")
    variables = init_variables(model, 0, (SIZE, SIZE, 3))
    found = Pretrained(variables, SOURCES["efficientnet_lite0"], Report(()))
    monkeypatch.setattr("jaxvision.recipe.load", lambda *_, **__: found)
    return found


def test_a_class_that_is_left_out_is_as_if_it_were_not_there(weights, tmp_path):
    recipe = jv.Recipe(
        "efficientnet_lite0",
        {"stop_at": "block1a"},
        method="features",
        solver="ridge",
        image_size=SIZE,
    )
    split = SplitConfig(0.5, 0.25, 0.25)
    root = write_images(tmp_path / "three", per_class=12)
    for path in root.glob("*/*"):  # of two classes, namesakes would be pairs
        path.rename(path.with_stem(f"{path.parent.name}-{path.stem}"))
    start = make_start(recipe)
    data = jv.load_dataset(DataConfig(root, split=split)).with_seed(3)
    dataset = data.decode(start.preprocessing)
    found = leave_classes_out(start, dataset, weights, seed=3, progress=False)
    assert [left.name for left in found] == ["blue", "green", "red"]
    for left in found:
        two = tmp_path / f"without {left.name}"
        shutil.copytree(root, two)
        shutil.rmtree(two / left.name)
        data = jv.load_dataset(DataConfig(two, split=split))
        alone = jv.train(data, recipe, seed=3, progress=False)
        expected = alone.evaluate(data.with_seed(3), "test")
        assert left.known.classes == expected.classes
        assert left.known.images == expected.images
        np.testing.assert_array_equal(left.known.labels, expected.labels)
        np.testing.assert_allclose(left.known.logits, expected.logits, atol=1e-4)
        assert left.known.temperature == pytest.approx(alone.card.temperature, 1e-3)
        assert left.known.threshold == pytest.approx(alone.card.threshold, 1e-4)
        paths = [root / i for i in dataset.images if i.startswith(left.name)]
        assert len(left.unknown) == len(paths) == 12
        said = [alone.predict(path).label for path in paths]
        assert [left.known.classes[k] for k in left.unknown.argmax(-1)] == said
    dataset = data.decode(start.preprocessing)
    with pytest.raises(InputError, match="2 classes; give three or more"):
        leave_classes_out(start, dataset, weights, seed=3)
