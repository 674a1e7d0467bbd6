"""`jaxvision finetune` and `jaxvision train`: a recipe on a folder of images."""

from collections.abc import Sequence

from jaxvision.cli.experiment import run
from jaxvision.cli.flags import ExperimentFlags
from jaxvision.cli.process import command
from jaxvision.data.transforms import AugmentConfig
from jaxvision.declaration import Experiment, SearchRange, default_config
from jaxvision.settings import OptimConfig, Recipe, ScheduleConfig

FINETUNE = Experiment(
    name="finetune",
    section="",
    title="Fine-tuning",
    question="How well does a pretrained network learn to classify these images?",
    dataset="faces",
    recipe=Recipe(),
    seeds=(0,),
    search_space={
        "optim.learning_rate": SearchRange(1e-5, 1e-2, log=True),
        "optim.backbone_lr_multiplier": SearchRange(0.01, 1.0, log=True),
        "optim.weight_decay": SearchRange(1e-5, 1e-1, log=True),
    },
)

TRAIN = Experiment(
    name="train",
    section="",
    title="Training",
    question="How well does a network learn to classify these images?",
    dataset="faces",
    recipe=Recipe(
        "convnet",
        method="scratch",
        image_size=64,
        epochs=30,
        optim=OptimConfig("adam", 1e-3),
        schedule=ScheduleConfig("cosine"),
        augment=AugmentConfig(horizontal_flip=0.5, translation=0.05),
    ),
    seeds=(0,),
)


def finetune(arguments: Sequence[str]) -> None:
    """Fine-tunes a pretrained network on labeled images.

    jaxvision finetune                       # drawn faces, a try-out
    jaxvision finetune PHOTOS                # one subfolder per class, or a CSV
    jaxvision finetune PHOTOS --image-size 160 --epochs 8 --seeds 0 1 2
    """
    _run(FINETUNE, arguments, finetune.__doc__ or "")


def train(arguments: Sequence[str]) -> None:
    """Trains any network by any recipe: from scratch, if nothing else is given.

    jaxvision train PHOTOS --network convnet --image-size 64
    jaxvision train PHOTOS --network mlp --image-size 28 --option hidden=100
    """
    _run(TRAIN, arguments, train.__doc__ or "")


def _run(experiment: Experiment, arguments: Sequence[str], about: str) -> None:
    flags = ExperimentFlags.of(experiment, default_config(experiment), photos=True)
    prog = f"jaxvision {experiment.name}"
    with command(flags.name_of):
        settings = flags.parse(arguments, prog=prog, description=about)
        run(experiment, settings, prog, flags.name_of)
