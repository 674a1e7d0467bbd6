"""`jaxvision explain`: what in an image speaks for its class."""

from collections.abc import Sequence
from typing import Any

from jaxvision.cli.flags import Checkpoint, Images, cast, run, variant
from jaxvision.cli.process import keep_compiled
from jaxvision.explain.config import ExplainConfig

_CONFIG = variant(ExplainConfig, {"checkpoint": Checkpoint, "images": Images})


def main(arguments: Sequence[str]) -> None:
    run(_CONFIG, _explain, arguments, "jaxvision explain", ExplainConfig.__doc__)


def _explain(config: Any) -> None:
    from jaxvision.explain.report import explain

    keep_compiled()
    explain(cast(ExplainConfig, config))
