"""What experiments begin with."""

from typing import get_args

from experiments.common import BackboneName
from jaxvision.pretrained import SOURCES


def test_every_source_can_be_asked_for():
    assert set(get_args(BackboneName)) == {"auto", *SOURCES}
