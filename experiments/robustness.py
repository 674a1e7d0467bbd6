"""What does a trained network make of changed images?

python -m experiments.robustness --checkpoint checkpoints/part2_finetune/TIME
python -m experiments.robustness --checkpoint DIR --compare DIR_WITH_AUGMENTATION
"""

from pathlib import Path

from jaxvision.cli.experiment import main
from jaxvision.declaration import Analysis
from jaxvision.robustness.config import RobustnessConfig


def run(config: RobustnessConfig) -> Path:
    from jaxvision.robustness.report import robustness

    return robustness(config)


EXPERIMENT = Analysis(
    name="robustness",
    section="",
    order=1,
    title="Any network, changed images",
    question="What does a trained network make of changed images?",
    config=RobustnessConfig,
    run=run,
    variants=("checkpoint", "compare"),
    network_of="part2_finetune",
)

if __name__ == "__main__":
    main(EXPERIMENT)
