"""Explanations as images: what each shade means."""

import numpy as np
import pytest

from jaxvision.explain.images import (
    VIEW_NAMES,
    all_views,
    color,
    gray,
    negative,
    overlay,
    positive,
)


def ramp(*shape: int) -> np.ndarray:
    """From -1 to 1 along the rows."""
    values = np.linspace(-1, 1, shape[1])
    return np.broadcast_to(
        values.reshape((1, -1) + (1,) * (len(shape) - 2)), shape
    ).copy()


@pytest.mark.parametrize("shape", [(2, 9, 7, 3), (2, 9, 7, 1), (2, 9, 7)])
def test_every_view_is_an_image_of_the_same_size(shape):
    images = np.full((2, 9, 7, 3), 100, np.uint8)
    views = all_views(ramp(*shape), images)
    assert tuple(views) == VIEW_NAMES
    for view in views.values():
        assert view.shape == (2, 9, 7, 3)
        assert view.dtype == np.uint8


def test_gray_is_zero_in_color():
    maps = np.zeros((1, 3, 3, 3))
    maps[0, 0, 0], maps[0, 2, 2] = [1, 0, 0], [0, 0, -1]
    view = color(maps)[0]
    assert view[1, 1].tolist() == [128, 128, 128]
    assert view[0, 0].tolist() == [255, 128, 128]
    assert view[2, 2].tolist() == [128, 128, 0]


def test_one_value_a_pixel_is_red_above_zero_and_blue_below():
    view = color(ramp(1, 9, 7))[0].astype(int)
    red, _, blue = view[-1, 0]
    assert red > blue
    red, _, blue = view[0, 0]
    assert blue > red
    assert view[4, 0].min() > 240


def test_signs_are_shown_apart():
    maps = ramp(1, 9, 7, 3)
    assert positive(maps)[0, :4].max() == 0
    assert positive(maps)[0, -1].min() == 255
    assert negative(maps)[0, 5:].max() == 0
    assert negative(maps)[0, 0].min() == 255
    strong = gray(maps)[0, :, 0, 0]
    assert strong[0] == strong[-1] == 255
    assert strong[4] == 0


def test_a_map_of_zeros_is_shown_as_such():
    maps = np.zeros((1, 4, 4, 3))
    assert gray(maps).max() == 0
    assert set(color(maps).ravel()) == {128}


def test_single_strong_values_do_not_hide_the_rest():
    maps = np.full((1, 100, 100), 0.5)
    maps[0, 0, 0] = 1000
    assert gray(maps)[0, 50, 50, 0] == 255


def test_maps_of_a_batch_have_scales_of_their_own():
    maps = ramp(2, 9, 7, 3)
    maps[1] *= 1e-6
    one, other = color(maps)
    np.testing.assert_array_equal(one, other)


def test_the_overlay_leaves_the_image_where_the_map_is_weak():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[:, :, 32:] = 255
    maps = np.zeros((1, 64, 64))
    maps[0, 8:16, 8:16], maps[0, 40:, 40:] = 1, -1
    view = overlay(maps, images)[0].astype(int)
    assert np.ptp(view[60, 2]) == 0
    assert view[60, 2, 0] < view[60, 50, 0]  # dark and light parts of the image
    assert np.ptp(view[60, 60]) == 0  # what speaks against the class does not glow
    assert view[12, 12, 0] - view[12, 12, 2] > 50
