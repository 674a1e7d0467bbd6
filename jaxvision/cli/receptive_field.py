"""`jaxvision receptive-field`: which part of an image each layer sees."""

from collections.abc import Sequence

from jaxvision.cli.flags import run
from jaxvision.explain.config import ReceptiveFieldConfig


def main(arguments: Sequence[str]) -> None:
    run(ReceptiveFieldConfig, _measure, arguments, "jaxvision receptive-field")


def _measure(config: ReceptiveFieldConfig) -> None:
    from jaxvision.explain.receptive_field import receptive_field

    receptive_field(config)
