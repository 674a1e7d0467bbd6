"""2.2 How well do a frozen network's features tell faces apart? FaceScrub, 40 people.

python -m experiments.part2_features                      # drawn faces
python -m experiments.part2_features --data.root DIR --layer features

On conv4 of AlexNet, as the assignment recommends, where its convolutions are installed
(extra `classics`) or the whole network is within reach; else on EfficientNet-Lite0. 2
cores: 1.5 min with 3 seeds. Test accuracy with EfficientNet-Lite0 .899 ± .031 on six
people of FaceScrub, .952 ± .024 on the twelve drawn ones; published for 40 people, with
AlexNet: .742 (`--layer features`) and .628 (`--layer conv4 --hidden 4096 4096`).
"""

from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, SearchRange
from jaxvision.settings import OptimConfig, Recipe, ScheduleConfig

HEAD = Recipe(
    "auto",
    method="features",
    options={"stop_at": None, "head_hidden": (300,), "head_dropout": 0.5},
    optim=OptimConfig("adam", 1e-3, weight_decay=1e-3),
    schedule=ScheduleConfig("cosine"),
    epochs=200,
)

EXPERIMENT = Experiment(
    name="part2_features",
    section="2.2",
    title="A fixed feature extractor",
    question="How well do a frozen network's features tell faces apart?",
    chapter="part-2",
    dataset="faces",
    recipe=HEAD,
    search_space={
        "optim.learning_rate": SearchRange(1e-5, 1e-2, log=True),
        "head_dropout": SearchRange(0.0, 0.8),
        "optim.weight_decay": SearchRange(1e-5, 1e-1, log=True),
    },
    aliases={
        "stop_at": "layer",
        "head_hidden": "hidden",
        "head_dropout": "dropout_rate",
    },
    variants=("network", "stop_at", "head_hidden"),
    published=published("2.2"),
    reference="AlexNet: the output of its convolutions into 300 units with batch norm "
    "and dropout (Niaz, test accuracy .742); conv4 into two layers of 4096 (Gözpınar, "
    ".628).",
    measure_train=True,
    published_rows=(
        ("features, 300 hidden", {"stop_at": None, "head_hidden": (300,)}),
        ("features, 300 hidden", {"stop_at": "features", "head_hidden": (300,)}),
        ("conv4, 4096-4096", {"stop_at": "conv4"}),
    ),
    laptop=("", "--backbone efficientnet_lite0"),
    full=(
        "",
        "--layer features",
        "--layer conv4 --hidden 4096 4096",
        "--backbone efficientnet_lite0",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
