"""Occlusion: the fall of the logit, averaged over the squares that hide a pixel."""

import numpy as np
import pytest

from jaxvision.errors import InputError
from jaxvision.explain.methods import occlusion
from jaxvision.explain.occlusion import _starts


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (12, 4, 4, [0, 4, 8]),
        (12, 5, 4, [0, 4, 7]),
        (12, 12, 1, [0]),
        (3, 1, 1, [0, 1, 2]),
    ],
)
def test_squares_reach_the_border(length, window, stride, starts):
    assert _starts(length, window, stride) == starts


def test_the_fall_of_the_logit_where_a_square_hides_the_image(
    make_network, make_images
):
    network, images = make_network("mlp", hidden=8), make_images(2)
    maps = np.asarray(occlusion(network, images, [0, 2], window=5, stride=4, fill=9))
    whole = np.asarray(network.scores(images, [0, 2]))
    fall, times = np.zeros((2, 12, 12)), np.zeros((12, 12))
    for top in (0, 4, 7):
        for left in (0, 4, 7):
            square = slice(top, top + 5), slice(left, left + 5)
            hidden = images.copy()
            hidden[:, *square] = 9
            seen = np.asarray(network.scores(hidden, [0, 2]))
            fall[:, *square] += (whole - seen)[:, None, None]
            times[square] += 1
    np.testing.assert_allclose(maps, fall / times, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"window": 13}, {"window": 0}, {"stride": 0}])
def test_a_window_that_does_not_fit_is_refused(make_network, make_images, options):
    network = make_network("mlp", hidden=2)
    with pytest.raises(InputError, match="do not fit images of 12×12"):
        occlusion(network, make_images(1), 0, **options)
