"""Published networks answer with the names of ImageNet's classes."""

import numpy as np
import pytest

from jaxvision.classifier import load_pretrained_classifier
from jaxvision.cli.main import main
from jaxvision.data.decode import decode_image
from jaxvision.errors import InputError
from jaxvision.pretrained import imagenet_classes


def test_classes_are_in_the_order_of_their_ids_and_differ():
    classes = imagenet_classes()
    assert len(classes) == len(set(classes.values())) == 1000
    assert list(classes) == sorted(classes)
    assert classes["n02012849"] == "crane bird"
    assert classes["n03126707"] == "crane"


@pytest.mark.usefixtures("converted_once")
def test_images_are_named(shared_data):
    classifier = load_pretrained_classifier("efficientnet_lite0")
    paths = sorted((shared_data / "imagenet_sample").glob("*.jpg"))[:20]
    assert len(paths) == 20
    found = list(classifier.predict(paths))
    # 0003_n01491361_tiger_shark.jpg
    names = [imagenet_classes()[path.name.split("_")[1]] for path in paths]
    right = [name == one.label for name, one in zip(names, found, strict=True)]
    listed = [
        name in [label for label, _ in one.top(5)]
        for name, one in zip(names, found, strict=True)
    ]
    assert sum(right) >= 15
    assert sum(listed) >= 18
    assert all(len(one.probabilities) == 1000 for one in found)
    pixels = decode_image(paths[0], classifier.card.preprocessing)
    assert classifier.predict(pixels).label == found[0].label
    np.testing.assert_allclose(sum(found[0].probabilities.values()), 1, atol=1e-5)


@pytest.mark.usefixtures("converted_once")
def test_a_published_network_is_saved_as_any_other(tmp_path):
    from jaxvision.classifier import load_classifier

    classifier = load_pretrained_classifier("efficientnet_lite0")
    again = load_classifier(classifier.save(tmp_path / "saved"))
    assert again.classes == classifier.classes
    assert again.card == classifier.card


def test_weights_without_a_classifier_are_named():
    with pytest.raises(InputError, match="alexnet_features end with the layer feat"):
        load_pretrained_classifier("alexnet_features")


@pytest.mark.usefixtures("converted_once")
def test_command_answers_without_a_checkpoint(shared_data, capsys):
    image = shared_data / "imagenet_sample/0003_n01491361_tiger_shark.jpg"
    main(["predict", "--pretrained", "efficientnet_lite0", str(image)])
    assert capsys.readouterr().out.startswith(f"{image}: tiger shark 0.9")
