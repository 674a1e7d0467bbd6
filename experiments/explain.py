"""What in an image speaks for the class that a network predicts?

python -m experiments.explain --checkpoint checkpoints/part2_finetune/TIME a.jpg
python -m experiments.explain --checkpoint DIR --method guided_backprop image.jpg
"""

import dataclasses
from pathlib import Path

from jaxvision.cli.experiment import main
from jaxvision.cli.flags import Images
from jaxvision.declaration import Analysis
from jaxvision.explain.config import ExplainConfig


@dataclasses.dataclass(frozen=True)
class Config(ExplainConfig):
    """Explains what a trained network predicts for images."""

    images: Images
    """Image files."""


def run(config: ExplainConfig) -> Path:
    from jaxvision.explain.report import explain

    return explain(config)


EXPERIMENT = Analysis(
    name="explain",
    section="",
    order=2,
    title="Any network, explained",
    question="What in an image speaks for the class that a network predicts?",
    config=Config,
    run=run,
    variants=("checkpoint", "method"),
    network_of="part2_finetune",
    takes_image=True,
    laptop=("--method all",),
    full=("--method all",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
