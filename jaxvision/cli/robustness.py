"""`jaxvision robustness`: a trained network on changed images."""

from collections.abc import Sequence
from typing import Any

from jaxvision.cli.flags import Checkpoint, Root, cast, run, variant
from jaxvision.cli.process import keep_compiled
from jaxvision.robustness.config import RobustnessConfig

_CONFIG = variant(RobustnessConfig, {"checkpoint": Checkpoint, "root": Root})


def main(arguments: Sequence[str]) -> None:
    run(_CONFIG, _measure, arguments, "jaxvision robustness", RobustnessConfig.__doc__)


def _measure(config: Any) -> None:
    from jaxvision.robustness.report import robustness

    keep_compiled()
    robustness(cast(RobustnessConfig, config))
