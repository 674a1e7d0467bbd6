"""Shapes, identities and known answers of every transform, alone and together."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from jaxvision.config import check
from jaxvision.data import transforms
from jaxvision.data.decode import center_crop
from jaxvision.data.transforms import (
    ON_DEVICE,
    TRANSFORMS,
    AugmentConfig,
    Transform,
    augment,
    check_on_host,
)
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing

STRETCH = Preprocessing(size=(40, 48), resize_mode="stretch")
CROP = Preprocessing(size=(40, 40), resize_mode="crop", resize=48)
EVERYTHING = AugmentConfig(
    resized_crop=0.5,
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=30,
    translation=0.1,
    scale=0.2,
    shear=10,
    perspective=0.3,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    sharpness=0.5,
    blur=1.0,
    invert=0.3,
    gray=0.3,
    trivial=0.5,
    erasing=0.3,
)


def random_image(height: int = 40, width: int = 48, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    return coarse.repeat(-(-height // 5), 0).repeat(-(-width // 6), 1)[:height, :width]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_row_of_the_table(name: str, channels: int) -> None:
    transform, image = TRANSFORMS[name], random_image(channels=channels)
    before = image.copy()
    same = transform.function(image, transform.identity, generator())
    np.testing.assert_array_equal(same, image)
    assert len(transform.strengths) in (1, 5)
    assert list(transform.strengths) == sorted(set(transform.strengths))
    for strength in transform.strengths:
        changed = transform.function(image, strength, generator(1))
        again = transform.function(image, strength, generator(1))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        np.testing.assert_array_equal(changed, again)
        np.testing.assert_array_equal(image, before)
        if channels == 3:
            assert (changed != image).any()


@pytest.mark.parametrize(
    "name", [n for n, t in TRANSFORMS.items() if len(t.strengths) > 1]
)
def test_stronger_is_further_from_the_image(name: str) -> None:
    function = TRANSFORMS[name].function
    weak, *_, strong = TRANSFORMS[name].strengths
    image = random_image().astype(int)

    def distance(strength: float) -> float:
        return np.mean(
            [
                np.abs(
                    function(random_image(), strength, generator(seed)) - image
                ).mean()
                for seed in range(5)
            ]
        )

    assert distance(weak) < distance(strong)


def apply(name: str, strength: float, image: np.ndarray, seed: int = 0) -> np.ndarray:
    return TRANSFORMS[name].function(image, strength, generator(seed))


def test_known_answers() -> None:
    image = random_image(40, 40)
    np.testing.assert_array_equal(apply("horizontal_flip", 1, image), image[:, ::-1])
    np.testing.assert_array_equal(apply("vertical_flip", 1, image), image[::-1])
    np.testing.assert_array_equal(apply("invert", 1, image), 255 - image)
    quarter_turns = [np.rot90(image), np.rot90(image, -1)]
    turned = apply("rotation", 90, image).astype(int)
    assert any(np.abs(turned - turn).max() <= 1 for turn in quarter_turns)
    moved = apply("translation", 0.25, image)
    inner = [image[a : a + 30, b : b + 30] for a in (0, 10) for b in (0, 10)]
    found = [moved[a : a + 30, b : b + 30] for a in (10, 0) for b in (10, 0)]
    assert any((a == b).all() for a, b in zip(inner, found, strict=True))
    ramp = np.broadcast_to(6 * np.arange(40, dtype=np.uint8)[:, None], (40, 40, 1))
    doubled = apply("zoom_in", 1.0, ramp)[0, :, 0].astype(float)
    np.testing.assert_allclose(doubled, 58.5 + 3 * np.arange(40), atol=1)
    assert (apply("zoom_out", 1.0, image)[:9] == 0).all()
    assert abs(apply("darken", 0.5, image).mean() - image.mean() / 2) < 1
    assert apply("brighten", 2.0, image).mean() > image.mean()
    flat = apply("less_contrast", 0.85, image)
    assert abs(flat.std() - 0.15 * image.std()) < 3
    gray = apply("gray", 1, image)
    assert (gray == gray[..., :1]).all()
    half = apply("hue", 0.5, np.full((4, 4, 3), (255, 0, 0), np.uint8))
    # Pillow's hue has 256 steps.
    np.testing.assert_allclose(half[0, 0], [0, 255, 255], atol=4)
    erased = (apply("erasing", 0.2, image) != image).any(-1).mean()
    assert 0.15 < erased <= 0.21


def test_a_crop_has_the_area_that_was_asked_for() -> None:
    ramp = np.arange(200, dtype=np.uint8)
    across = np.broadcast_to(ramp[None, :, None], (200, 200, 3))
    down = across.swapaxes(0, 1)
    for seed in range(20):
        width = np.ptp(apply("resized_crop", 0.75, across, seed).astype(float))
        height = np.ptp(apply("resized_crop", 0.75, down, seed).astype(float))
        assert abs(width * height / 200**2 - 0.25) < 0.02
        assert 0.7 < width / height < 1.4


@pytest.mark.parametrize("preprocessing", [STRETCH, CROP])
def test_everything_off_is_evaluation(preprocessing: Preprocessing) -> None:
    stored = random_image(40, 48) if preprocessing is STRETCH else random_image(48, 70)
    np.testing.assert_array_equal(
        augment(stored, AugmentConfig(), generator(), preprocessing),
        center_crop(stored, preprocessing),
    )


@pytest.mark.parametrize(
    "field",
    [f.name for f in dataclasses.fields(AugmentConfig) if f.name not in ON_DEVICE],
)
def test_every_field_changes_images(field: str) -> None:
    config = AugmentConfig(**{field: getattr(EVERYTHING, field)})
    changed = [
        (
            augment(random_image(), config, generator(seed), STRETCH) != random_image()
        ).any()
        for seed in range(10)
    ]
    assert any(changed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(48, 48), (48, 96), (70, 48)])
def test_augment_is_a_function_of_its_generator(
    shape: tuple[int, int], channels: int
) -> None:
    stored = random_image(*shape, channels)
    stored.flags.writeable = False
    results = []
    for seed in range(30):
        one = augment(stored, EVERYTHING, generator(seed), CROP)
        two = augment(stored, EVERYTHING, generator(seed), CROP)
        np.testing.assert_array_equal(one, two)
        assert one.shape == (40, 40, channels)
        assert one.dtype == np.uint8
        assert one.flags.c_contiguous
        results.append(one.tobytes())
    assert len(set(results)) == 30


def test_random_crops_reach_the_whole_stored_image() -> None:
    stored = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None], (48, 96, 3))
    config = AugmentConfig(resized_crop=0.3)
    seen = [augment(stored, config, generator(seed), CROP) for seed in range(40)]
    assert min(crop.min() for crop in seen) < 5
    assert max(crop.max() for crop in seen) > 90


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("horizontal_flip", 1.5, "`augment.horizontal_flip` 1.5.* at most 1$"),
        ("resized_crop", 1.0, "at least 0 and at most 0.99"),
        ("rotation", -5.0, "`augment.rotation` -5.0: must be at least 0$"),
        ("scale", float("nan"), "`augment.scale` nan"),
    ],
)
def test_strengths_that_mean_nothing(field: str, value: float, message: str) -> None:
    check(EVERYTHING, "augment.")
    with pytest.raises(InputError, match=message):
        check(AugmentConfig(**{field: value}), "augment.")


@pytest.mark.parametrize("most", [0.3, 1.0])
def test_trivial_augment_draws_one_row_and_one_strength(
    most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, list[float]] = {name: [] for name in TRANSFORMS}
    rows = dict(TRANSFORMS)

    def noted(name: str) -> Transform:
        def function(
            image: np.ndarray, strength: float, generator: np.random.Generator
        ) -> np.ndarray:
            found[name].append(strength)
            return rows[name].function(image, strength, generator)

        return dataclasses.replace(rows[name], function=function)

    monkeypatch.setattr(transforms, "TRANSFORMS", {name: noted(name) for name in rows})
    config, count = AugmentConfig(trivial=most), 60 * len(rows)
    own = Preprocessing(size=(6, 6), resize_mode="stretch")
    for seed in range(count):
        augment(random_image(6, 6), config, generator(seed), own)
    assert sum(map(len, found.values())) == count
    for name, strengths in found.items():
        assert 30 < len(strengths) < 90, name
        highest = rows[name].strengths[-1]
        if len(rows[name].strengths) == 1:
            assert set(strengths) == {highest}
        else:
            uniform = stats.uniform(0, most * highest)
            assert stats.kstest(strengths, uniform.cdf).pvalue > 1e-3, name


def test_what_is_left_to_the_device() -> None:
    config = AugmentConfig(pca_color=0.1, pca_per_pixel=True)
    assert (
        augment(random_image(), config, generator(), STRETCH) == random_image()
    ).all()
    check_on_host(AugmentConfig(blur=1.0), "features")
    with pytest.raises(InputError, match=r"features cannot be .*`augment.pca_color`"):
        check_on_host(config, "features")


def test_extreme_strengths_stay_images() -> None:
    config = AugmentConfig(
        resized_crop=0.99, brightness=1, perspective=0.9, erasing=0.99
    )
    for seed in range(20):
        assert augment(random_image(), config, generator(seed), STRETCH).shape == (
            40,
            48,
            3,
        )
