"""2.5 Which pixels of a face speak for its name? FaceScrub, 40 people.

python -m experiments.part2_saliency                      # newest of part2_finetune
python -m experiments.part2_saliency --checkpoint checkpoints/part2_finetune/TIME

Every method of explanation on faces of the test images. Guided backpropagation hardly
depends on the head (rank correlation with a random one .998), the others do (.15 to
.59).
"""

from pathlib import Path

from jaxvision.cli.experiment import main
from jaxvision.declaration import Analysis
from jaxvision.explain.config import SaliencyConfig


def run(config: SaliencyConfig) -> Path:
    from jaxvision.explain.saliency import saliency

    return saliency(config)


EXPERIMENT = Analysis(
    name="part2_saliency",
    section="2.5",
    title="Gradients as images",
    question="Which pixels of a face speak for its name?",
    chapter="part-2",
    config=SaliencyConfig,
    run=run,
    reference="Guided backpropagation for one face and its class: color, gray, "
    "positive and negative saliency.",
    network_of="part2_finetune",
)

if __name__ == "__main__":
    main(EXPERIMENT)
