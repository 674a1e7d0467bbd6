"""2.4 How well does a network that knows ImageNet learn faces? FaceScrub, 40 people.

python -m experiments.part2_finetune                      # drawn faces
python -m experiments.part2_finetune --data.root DIR      # one subfolder per person
python -m experiments.part2_finetune --data.root DIR --image-size 160 --epochs 8
python -m experiments.part2_finetune --data.root DIR --backbone alexnet_features

2 cores: the third command takes 6 min with 3 seeds, test accuracy .965 ± .000 on six
people of FaceScrub. 128 pixels and 4 epochs, one seed: .988 on the twelve drawn ones.
Published for 40 people, AlexNet's last layer alone: .699; that takes the whole network,
`--backbone alexnet --weights FILE --method features`. The last command fine-tunes its
convolutions under fresh fc6 and fc7: .948 ± .012 on the six people with
`--image-size 224 --epochs 8 --head-epochs 100`, 12 min with 3 seeds.
"""

from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, SearchRange
from jaxvision.settings import Recipe

EXPERIMENT = Experiment(
    name="part2_finetune",
    section="2.4",
    title="Fine-tuning",
    question="How well does a network that knows ImageNet learn to classify faces?",
    chapter="part-2",
    dataset="faces",
    recipe=Recipe("auto"),
    search_space={
        "optim.learning_rate": SearchRange(1e-5, 1e-2, log=True),
        "optim.backbone_lr_multiplier": SearchRange(0.01, 1.0, log=True),
        "optim.weight_decay": SearchRange(1e-5, 1e-1, log=True),
    },
    variants=("network", "method"),
    published=published("2.4"),
    reference="AlexNet, of which only a new last layer is trained.",
    published_rows=(
        ("last layer only", {"method": "head"}),
        ("last layer only", {"method": "features"}),
    ),
    laptop=(
        "--backbone efficientnet_lite0 --method features --epochs 100",
        "--backbone efficientnet_lite0 --image-size 128 --epochs 4 --seeds 0",
    ),
    full=("--method features --epochs 100 --measure-train", ""),
)

if __name__ == "__main__":
    main(EXPERIMENT)
