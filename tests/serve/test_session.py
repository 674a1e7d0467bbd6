"""What the page is told of an image."""

import threading

import numpy as np
import pytest
from served_pages import HOSTILE, image_file

from jaxvision.explain.images import overlay
from jaxvision.explain.methods import METHODS, TrainedNetwork, explain_batches
from jaxvision.models.receptive_field import Box
from jaxvision.serve.session import KEPT, QUICK, effective_box


@pytest.fixture
def image(page) -> str:
    return page.ask("images", image_file("green"))["image"]


def test_about_says_what_there_is(page, classifier):
    about = page.ask("about")
    assert about["classes"] == list(classifier.classes)
    assert HOSTILE in about["classes"]
    assert {method["key"] for method in about["methods"]} == METHODS.keys()
    first = about["layers"][0]
    assert first["shape"] == [14, 14, 4]
    assert first["sees"] == [3, 3]
    assert about["layers"][-1]["sees"] is None


def test_classes_are_those_of_predict(page, image, classifier):
    answer = page.ask(f"images/{image}/classes")
    found = answer["classes"]
    pixels = page.ask(f"images/{image}/pixels.png")
    assert pixels.shape == (16, 16, 3)
    expected = classifier.predict(pixels)
    assert found[0]["label"] == expected.label
    assert answer["known"] == (expected.probability >= classifier.card.threshold)
    for one in found:
        assert one["probability"] == pytest.approx(
            expected.probabilities[one["label"]], rel=1e-6
        )


def test_an_image_is_shown_while_something_is_computed(page, image):
    computed = threading.Event()
    page.worker.submit(computed.wait)
    try:
        assert page.ask(f"images/{image}/pixels.png").shape == (16, 16, 3)
    finally:
        computed.set()


@pytest.mark.parametrize(
    ("place", "hidden"),
    [
        ((4, 8, 4), (slice(4, 8), slice(8, 12))),
        ((-2, 14, 4), (slice(0, 2), slice(14, 16))),
        ((-9, 0, 4), (slice(0, 0), slice(0, 4))),
    ],
)
def test_the_occluder_hides_a_square(page, image, classifier, place, hidden):
    top, left, side = place
    found = page.ask(f"images/{image}/classes", top=top, left=left, side=side)
    pixels = page.ask(f"images/{image}/pixels.png").copy()
    pixels[hidden] = 127
    expected = classifier.predict(pixels).probabilities
    for one in found["classes"]:
        assert one["probability"] == pytest.approx(expected[one["label"]], rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_evidence_laid_over_the_image_is_the_overlay_of_reports(
    page, image, classifier, method
):
    glow = page.ask(f"images/{image}/evidence.png", method=method, label=1)
    pixels = page.ask(f"images/{image}/pixels.png")
    network = TrainedNetwork.of(classifier)
    options = QUICK.get(method, {})
    maps = explain_batches(network, method, pixels[None], [1], batch_size=1, **options)
    opacity = glow[..., 3:] / 255
    under = 255 * (0.35 + 0.65 * pixels.mean(-1, keepdims=True) / 255)
    laid = opacity * glow[..., :3] + (1 - opacity) * under
    np.testing.assert_allclose(laid, overlay(maps, pixels[None])[0], atol=2)


def test_feature_maps_are_ordered_by_what_the_image_excites(page, image):
    layer = page.ask("about")["layers"][0]["name"]
    found = page.ask(f"images/{image}/units", layer=layer, start=0)
    means = [unit["mean"] for unit in found["units"]]
    assert sorted(unit["unit"] for unit in found["units"]) == [0, 1, 2, 3]
    assert means == sorted(means, reverse=True)
    sheet = page.ask(f"images/{image}/sheet.png", layer=layer, start=0)
    assert sheet.shape[:2] == (14, 14 * found["columns"])


def test_dense_layers_have_maps_of_one_place(page, image):
    layer = page.ask("about")["layers"][-1]
    found = page.ask(f"images/{image}/units", layer=layer["name"], start=0)
    assert len(found["units"]) == layer["shape"][-1]
    unit = found["units"][0]["unit"]
    field = page.ask(f"images/{image}/field", layer=layer["name"], unit=unit)
    assert field["theoretical"] is None
    assert field["value"] == pytest.approx(found["units"][0]["mean"])


def test_the_effective_field_lies_within_the_theoretical_one(page, image):
    for layer in page.ask("about")["layers"]:
        found = page.ask(f"images/{image}/units", layer=layer["name"], start=0)
        for unit in found["units"]:
            field = page.ask(
                f"images/{image}/field", layer=layer["name"], unit=unit["unit"]
            )
            can, does = field["theoretical"], field["effective"]
            if can is not None and does is not None:
                assert can["top"] <= does["top"] <= does["bottom"] <= can["bottom"]
                assert can["left"] <= does["left"] <= does["right"] <= can["right"]


def test_the_effective_box_holds_most_of_the_gradient():
    gradient = np.zeros((10, 10, 1), np.float32)
    assert effective_box(gradient) is None
    gradient[4, 6] = -2
    assert effective_box(gradient) == Box(4, 6, 4, 6)
    gradient[:, :] = 1
    assert effective_box(gradient) == Box(0, 0, 9, 9)
    gradient[2:8, 3:7] = 1000
    assert effective_box(gradient) == Box(2, 3, 7, 6)


def test_the_last_images_are_kept_alone(page, image):
    for _ in range(KEPT):
        page.ask("images", image_file())
    status, said = page.refusal(f"images/{image}/classes")
    assert (status, said) == (404, "this image is kept no longer; give it again")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("evidence.png?method=x&label=0", "no method 'x'"),
        ("evidence.png?method=gradient&label=3", "no class 3"),
        ("units?layer=x&start=0", "no layer 'x'"),
        ("units?layer=x&start=a", "start must be a whole number"),
        ("classes?side=1e9", "side must be a whole number"),
        ("classes?side=99999999999", "side must be a whole number"),
        ("field?layer=x&unit=0", "no layer 'x'"),
        ("units?layer=conv1&start=4", "has only 4 units"),
        ("sheet.png?layer=conv1&start=4", "has only 4 units"),
    ],
)
def test_what_there_is_not_is_one_line(page, image, path, said):
    status, found = page.refusal(f"images/{image}/{path}")
    assert status == 400
    assert said in found


def test_a_unit_that_there_is_not(page, image):
    layer = page.ask("about")["layers"][0]["name"]
    assert "no unit 9" in page.refusal(f"images/{image}/field?layer={layer}&unit=9")[1]
    assert page.refusal(f"images/{image}/units?layer={layer}&start=-1")[0] == 400


@pytest.mark.parametrize("content", [b"", b"<svg>", image_file()[:60]])
def test_a_file_that_is_no_image_is_one_line(page, content):
    status, said = page.refusal("images", content)
    assert status == 400
    assert said
    assert "\n" not in said
