"""The settings of a training and of a run, as plain values.

Importing them imports no JAX, so that a command can show its settings at once.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from jaxvision.config import Bounds, make_paths
from jaxvision.data.config import DataConfig
from jaxvision.data.transforms import AugmentConfig
from jaxvision.preprocessing import ResizeMode

Method = Literal["scratch", "features", "head", "full"]

Scaling = Literal["signed", "half", "unit", "standardize"]

Solver = Literal["gradient", "ridge", "logistic"]
"""How a head on features is fitted."""

Select = Literal["best", "last"]
"""Which epoch's parameters a training ends with."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Which optimizer, and how fast."""

    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """Update rule."""
    learning_rate: Annotated[float, Bounds(0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Bounds(0)] = 0.0
    """Decoupled in adamw; in the others an L2 term in the gradient, as in PyTorch.
    Kernels only: biases and normalization are left out."""
    decay_all: bool = False
    """Decay biases and normalization too."""
    momentum: Annotated[float, Bounds(0, 1, below=True)] = 0.9
    """Momentum of sgd; 0 is plain gradient descent."""
    nesterov: bool = False
    """Nesterov's momentum in sgd."""
    clip_norm: Annotated[float, Bounds(0, above=True)] | None = None
    """Longest allowed gradient, all parameters together; longer ones are scaled."""
    backbone_lr_multiplier: Annotated[float, Bounds(0)] = 1.0
    """Multiplies the learning rate of the backbone, where it is trained."""


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate falls from its peak."""

    kind: Literal["constant", "step", "exponential", "cosine"] = "constant"
    """Not at all, times `gamma` every `step_epochs`, times `gamma` every epoch after
    `hold_epochs`, or along half a cosine to zero."""
    gamma: Annotated[float, Bounds(0)] = 0.1
    """Factor of the step and exponential schedules."""
    step_epochs: Annotated[int, Bounds(1)] = 10
    """Epochs between two falls of the step schedule."""
    hold_epochs: Annotated[int, Bounds(1)] = 1
    """Epochs at the peak before the exponential schedule begins to fall."""
    warmup_epochs: Annotated[float, Bounds(0)] = 0.0
    """Epochs over which the rate first rises linearly from zero."""


SHORT_TRAINING, HEAD_EPOCHS = 50, 100
"""Steps below which the head is trained alone first, and for how long. Paintings and
faces at 96 px, 3 seeds: in 112 and 72 steps validation accuracies are .02 and .03
higher without, hardly more than two standard errors together; in 56 alike; in 16 .09
lower."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a classifier is made of labeled images: plain values, and all of them.

    The defaults fine-tune a network that knows ImageNet.
    """

    network: str = "efficientnet_lite0"
    """Network to train. With method scratch a name in `MODELS`; else pretrained weights
    in `SOURCES`, or auto: AlexNet if its weights are here or can be downloaded, with
    method features its convolutions alone too, else EfficientNet-Lite0, whose weights
    come with the package."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of `create_model`, such as `hidden` of the network mlp."""
    method: Method = "full"
    """scratch: fresh weights, everything is trained; with a `solver`, the head alone.
    features: a head on the features of the pretrained network, which are computed once.
    head: the head, on augmented images. full: everything, see `head_epochs`."""
    weights: Path | None = None
    """File with the pretrained weights, in place of a download."""
    image_size: Annotated[int, Bounds(1)] = 224
    """Height and width of the network's input, in pixels."""
    progressive_sizes: tuple[Annotated[int, Bounds(1)], ...] = ()
    """Image sizes to train at first, one after the other, such as 96 160; then comes
    `image_size`. Images are made smaller on the device. For networks that take any
    size; validated is at `image_size` always."""
    progressive_share: Annotated[float, Bounds(0, 1, below=True, above=True)] = 0.5
    """Share of the epochs for those sizes together, an equal part for each."""
    resize_mode: ResizeMode = "stretch"
    """How an image becomes square: stretched, cut, or with black bars."""
    gray: bool = False
    """One channel in place of three; with method scratch."""
    scaling: Scaling = "signed"
    """With method scratch, pixel values become -1 to 1 (signed), -0.5 to 0.5 (half), 0
    to 1 (unit), or are standardized image by image. Pretrained weights bring their
    own."""
    augment: AugmentConfig = AugmentConfig(
        resized_crop=0.3, horizontal_flip=0.5, brightness=0.2, contrast=0.2
    )
    mixup: Annotated[float, Bounds(0)] = 0.0
    """Blend each training image with another one of its batch: the share of it is drawn
    from a beta distribution with this for both parameters; 0: never."""
    cutmix: Annotated[float, Bounds(0)] = 0.0
    """Paste a box of another image of the batch into each one: the part of the area
    that is left is drawn likewise; 0: never. With `mixup` too, one of the two, at
    random."""
    label_smoothing: Annotated[float, Bounds(0, 1, below=True)] = 0.0
    """Share of the target that is spread over all classes."""
    class_weights: bool = False
    """Weigh each class in the loss by the inverse of its frequency."""
    output_biases: bool = False
    """Start with the last layer expecting each class as often as it occurs."""
    binary: bool = False
    """Tell two classes apart by one logit and binary cross-entropy."""
    optim: OptimConfig = OptimConfig(
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        clip_norm=1.0,
        backbone_lr_multiplier=0.3,
    )
    schedule: ScheduleConfig = ScheduleConfig("cosine", warmup_epochs=1.0)
    ema_decay: Annotated[float, Bounds(0, 1, below=True)] = 0.0
    """Share that stays, at each step, of a moving average of the weights and of batch
    norm's statistics, which is validated and kept in their place: 0.99 averages over
    about 100 steps; 0: the weights themselves. It rises to its value in the first
    steps."""
    epochs: Annotated[int, Bounds(1)] = 10
    """Epochs at most."""
    batch_size: Annotated[int, Bounds(1)] = 32
    """Images a step, over all devices."""
    patience: Annotated[int, Bounds(1)] | None = None
    """Stop after this many epochs without a better one on the validation images."""
    select: Select = "best"
    """Which epoch's parameters are the result: the best one on the validation images,
    or the last."""
    solver: Solver = "gradient"
    """With methods features and scratch: train over the epochs, or solve the head at
    once as a ridge or logistic regression on features, whose penalty is chosen on
    left-out training images. What is solved is one dense layer; the backbone stays as
    it begins."""
    views: Annotated[int, Bounds(1)] = 1
    """With method features or a `solver`: versions of each image to learn from, the
    image itself and random ones (`augment`), in as many fewer epochs."""
    head_epochs: Annotated[int, Bounds(0)] | None = None
    """With method full: epochs of the head alone, on features, before all is trained.
    None: 100 before a training of fewer than 50 steps, in which a fresh head learns too
    little, and none before a longer one, which ends better without."""
    head_learning_rate: Annotated[float, Bounds(0, above=True)] = 1e-3
    """Peak learning rate (Adam, cosine) of those epochs."""
    freeze_bn: bool = True
    """With methods head and full: batch norm keeps the pretrained statistics; its scale
    and bias are trained."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; parameters are float32 always."""

    def __post_init__(self) -> None:
        make_paths(self)

    def replace(self, **changes: Any) -> "Recipe":
        """The recipe with other values.

        Args:
          **changes: fields of the recipe; other names are options of the network.
        """
        names = {field.name for field in dataclasses.fields(self)}
        options = {k: v for k, v in changes.items() if k not in names}
        fields = {k: v for k, v in changes.items() if k in names}
        if options:
            given = fields.get("options", self.options)
            fields["options"] = {**given, **options}
        return dataclasses.replace(self, **fields)

    @property
    def pretrained(self) -> bool:
        """Whether it begins with published weights."""
        return self.method != "scratch"

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """(image size, epoch up to which it is trained at that size) of each smaller
        size, in order."""
        sizes = self.progressive_sizes
        part = self.progressive_share / max(len(sizes), 1)
        return tuple(
            # What is a whole number of epochs but for rounding counts as one.
            (size, int(part * number * self.epochs + 1e-9))
            for number, size in enumerate(sizes, start=1)
        )

    @property
    def solved(self) -> bool:
        """Whether the head is solved, not trained."""
        return self.method in ("features", "scratch") and self.solver != "gradient"

    @property
    def on_features(self) -> bool:
        """Whether the backbone stays as it begins: its features are computed once."""
        return self.method == "features" or self.solved

    def epochs_of_head(self, steps_per_epoch: int) -> int:
        """How many epochs the head is trained alone before all is.

        Args:
          steps_per_epoch: batches of training images.
        """
        if self.method != "full":
            return 0
        if self.head_epochs is not None:
            return self.head_epochs
        return HEAD_EPOCHS if self.epochs * steps_per_epoch < SHORT_TRAINING else 0


def idle_settings(recipe: Recipe) -> dict[str, str]:
    """The settings that play no part in a recipe.

    Returns:
      Setting -> why, in words that follow "plays no part".
    """
    method, optim, schedule = recipe.method, recipe.optim, recipe.schedule
    idle: dict[str, str] = {}

    def note(why: str, *settings: str) -> None:
        idle.update(dict.fromkeys(settings, why))

    if recipe.pretrained:
        note("with pretrained weights, which bring their own", "gray", "scaling")
    else:
        note("with `method` scratch", "weights", "freeze_bn")
    if recipe.on_features:
        by = "`method` features" if recipe.pretrained else f"`solver` {recipe.solver}"
        note(
            f"with {by}", "freeze_bn", "mixup", "cutmix", "progressive_sizes",
            "progressive_share",
        )  # fmt: skip
        if recipe.views == 1:
            augment = dataclasses.fields(AugmentConfig)
            changes = (f"augment.{field.name}" for field in augment)
            note(f"with {by} and one view", *changes)
    else:
        note(f"with `method` {method}", "views")
        if method != "scratch":
            note(f"with `method` {method}", "solver")
        if not recipe.progressive_sizes:
            note("without `progressive_sizes`", "progressive_share")
    if recipe.solved:
        fields = {"optim": OptimConfig, "schedule": ScheduleConfig}
        of_training = (
            f"{name}.{field.name}"
            for name, group in fields.items()
            for field in dataclasses.fields(group)
        )
        note(
            f"with `solver` {recipe.solver}", *of_training, "epochs", "patience",
            "select", "label_smoothing", "class_weights", "output_biases", "ema_decay",
        )  # fmt: skip
    if recipe.on_features or method == "head":
        note("where the backbone is not trained", "optim.backbone_lr_multiplier")
    if method != "full":
        note(f"with `method` {method}", "head_epochs", "head_learning_rate")
    elif recipe.head_epochs == 0:
        note("with `head_epochs` 0", "head_learning_rate")
    if not recipe.augment.pca_color:
        idle.setdefault("augment.pca_per_pixel", "with `augment.pca_color` 0")
    if optim.optimizer != "sgd":
        name = f"with `optim.optimizer` {optim.optimizer}"
        note(name, "optim.momentum", "optim.nesterov")
    elif not optim.momentum:
        note("with `optim.momentum` 0", "optim.nesterov")
    if not optim.weight_decay:
        note("with `optim.weight_decay` 0", "optim.decay_all")
    kinds = {
        "schedule.gamma": ("step", "exponential"),
        "schedule.step_epochs": ("step",),
        "schedule.hold_epochs": ("exponential",),
    }
    for setting, of_kinds in kinds.items():
        if schedule.kind not in of_kinds:
            note(f"with `schedule.kind` {schedule.kind}", setting)
    return idle


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Several processes that train as one: start the same command on each host, with
    the first three settings or with `detect`."""

    coordinator: str | None = None
    """HOST:PORT of process 0, as the others reach it; any free port."""
    num_processes: Annotated[int, Bounds(1)] | None = None
    """How many processes there are."""
    process_id: Annotated[int, Bounds(0)] | None = None
    """Which of them this is, from 0."""
    detect: bool = False
    """Have JAX find the three out: on SLURM, Cloud TPU, Kubernetes, under Open MPI."""
    connect_seconds: Annotated[int, Bounds(1)] = 300
    """How long a process waits at the start for all the others."""
    heartbeat_seconds: Annotated[int, Bounds(1)] = 30
    """A process that was silent for so long counts as dead, and the others end."""

    @property
    def wanted(self) -> bool:
        """Whether this process is one of several."""
        named = (self.coordinator, self.num_processes, self.process_id)
        return self.detect or named != (None, None, None)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings that all experiments share: where, how often, on what."""

    data: DataConfig = DataConfig()
    distributed: DistributedConfig = DistributedConfig()
    seeds: tuple[Annotated[int, Bounds(0, 2**32 - 1)], ...] = (0, 1, 2)
    """One training each: seed of the split, the initialization, the order of the images
    and dropout."""
    rows: tuple[str, ...] = ()
    """Only these rows of the tables, by name; none: all."""
    max_epochs: Annotated[int, Bounds(1)] | None = None
    """At most this many epochs in every row, for trials; none: each row's own."""
    runs: Path = Path("runs")
    """Reports go to a new folder in here."""
    checkpoints: Path = Path("checkpoints")
    """Networks go to a new folder in here."""
    save_seconds: Annotated[float, Bounds(0)] = 30.0
    """Time between two saves while training."""
    measure_train: bool = False
    """Measure the finished network on the training images too, as they are. The
    learning curve shows them anyway, while it learns, with dropout and augmentation."""
    resume: Path | None = None
    """Checkpoint folder of a run: continues it with its own settings; give no others
    but those of where the images and the processes are, and more epochs, to train for
    longer: that gives the bits of as many at once, unless the schedule is a cosine,
    which is then that of the new number from there on."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs the extra `tensorboard`)."""


@dataclasses.dataclass(frozen=True)
class RateConfig:
    """Which learning rates are tried, a step each."""

    lowest: Annotated[float, Bounds(0, above=True)] = 1e-6
    """Learning rate of the first step."""
    highest: Annotated[float, Bounds(0, above=True)] = 10.0
    """Learning rate of the last one; a loss that explodes ends it before."""
    steps: Annotated[int, Bounds(20)] = 140
    """Steps in all; the rate rises by the same factor at each."""
    parallel: Annotated[int, Bounds(20)] | None = None
    """Try this many rates in trainings of their own, all at once, each for that many
    steps at one rate: for an accelerator, which has to hold as many networks. None: one
    training, whose rate rises."""


@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """How the settings of a recipe are searched."""

    trials: Annotated[int, Bounds(1)] = 30
    """Finished trials in the study when it is done; those of earlier and of other
    processes count."""
    sampler: Literal["tpe", "gp"] = "tpe"
    """Tree-structured Parzen estimator, or Gaussian process (needs the extra `gp`)."""
    startup_trials: Annotated[int, Bounds(1)] = 8
    """Trials drawn at random before the sampler learns from them; the first of all has
    the recipe's own settings."""
    pruner: Literal["median", "none"] = "median"
    """Whether a trial is pruned that is worse than half of the others were at the same
    epoch."""
    pruning_epochs: Annotated[int, Bounds(0)] = 2
    """Epochs that every trial is given first; and no trial is pruned before
    `startup_trials` are complete."""
    metric: Literal["val_loss", "val_accuracy"] = "val_loss"
    """What is optimized, at a trial's best epoch. The loss still tells networks apart
    that classify every validation image correctly."""
    parameters: tuple[str, ...] = ()
    """Which settings of the search space to vary; none named: all."""
    seed: Annotated[int, Bounds(0)] = 0
    """Of the sampler: the same seed draws the same trials, stopped or not, as long as
    one process works on the study."""
    storage: str | None = None
    """URL of the study's database (see Optuna), which processes on several machines can
    share; none: an SQLite file among the checkpoints."""
    grace_seconds: Annotated[int, Bounds(2)] = 60
    """A trial without a heartbeat for this long counts as dead, and is retried."""

    @property
    def minimize(self) -> bool:
        """Whether lower is better."""
        return self.metric == "val_loss"
