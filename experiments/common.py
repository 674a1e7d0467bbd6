"""What every experiment does around its training: seeds, folders, report, resume."""

import atexit
import contextlib
import dataclasses
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from jaxvision.config import from_plain, to_plain
from jaxvision.data.dataset import DataConfig, Dataset, load_dataset
from jaxvision.data.transforms import AugmentConfig
from jaxvision.errors import InputError, exit_on_input_error
from jaxvision.optim import OptimConfig
from jaxvision.preprocessing import Preprocessing, ResizeMode
from jaxvision.storage import write_json, writing
from jaxvision.training.distributed import (
    DistributedConfig,
    broadcast,
    check_same,
    distributed_session,
    is_main_process,
    main_process_first,
)

if typing.TYPE_CHECKING:
    import numpy as np

    from experiments.run_report import Outcome
    from jaxvision.classifier import Classifier
    from jaxvision.report.run_folder import RunFolder
    from jaxvision.training.checkpoint import CheckpointFolder
    from jaxvision.training.loop import Callback

CONFIG = "config.json"
"""Settings of a run, in its checkpoint folder."""

FEATURES = Path("data/features")
"""Where features of frozen backbones are cached."""

BackboneName = Literal[
    "auto",
    "alexnet",
    "efficientnet_lite0",
    "vgg19",
    "vgg19_torchvision",
    "resnet50_v2",
    "mobilenet_v2",
    "efficientnet_v2_b3",
]
"""Weights that a network can begin with: `jaxvision.pretrained.SOURCES`, or the best
of the first two that is within reach."""

AnyConfig = TypeVar("AnyConfig", bound="RunConfig")


@dataclasses.dataclass(frozen=True)
class Range:
    """Values that tuning may give a setting: whole numbers, if both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether it is the ratio of two values that counts, not their difference."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Settings that all training experiments share."""

    DEMO_KIND: ClassVar[str] = "faces"
    """The built-in set that stands in where no folder is given."""
    TUNABLE: ClassVar[Mapping[str, Range]] = {}
    """What `experiments.tune` may vary: settings, named with dots as on the command
    line, and their ranges."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    distributed: DistributedConfig = dataclasses.field(
        default_factory=DistributedConfig
    )
    epochs: int = 10
    """Epochs at most."""
    batch_size: int = 32
    """Images a step, over all devices."""
    patience: int | None = None
    """Stop after this many epochs without a better one on the validation images."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    class_weights: bool = False
    """Weigh each class in the loss by the inverse of its frequency."""
    output_biases: bool = False
    """Start with the last layer expecting each class as often as it is there."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; parameters are float32 always."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run each: seed of the split, the initialization, the order and dropout."""
    runs: Path = Path("runs")
    """Reports go to a new folder in here."""
    checkpoints: Path = Path("checkpoints")
    """Networks go to a new folder in here."""
    save_seconds: float = 30.0
    """Time between two saves while training."""
    resume: Path | None = None
    """Checkpoint folder of a run that was stopped: continues it with its own settings;
    give no others but --distributed."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs the extra `tensorboard`)."""


@dataclasses.dataclass(frozen=True)
class TransferConfig(RunConfig):
    """Settings of experiments that begin with a pretrained network."""

    backbone: BackboneName = "auto"
    """Pretrained network; auto: AlexNet if its weights are here or can be downloaded,
    else EfficientNet-Lite0, whose weights come with the package."""
    weights: Path | None = None
    """File with the backbone's weights, in place of a download."""
    image_size: int = 224
    """Height and width of the network's input, in pixels."""
    resize_mode: ResizeMode = "stretch"
    """How an image becomes square: cut, squeezed, or with black bars."""


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """What the training of one seed is given.

    dataset: in the split of this seed.
    folder: checkpoint folder of this seed.
    """

    config: Any
    seed: int
    dataset: Dataset
    folder: Path
    callback: "Callback"

    def checkpoints(self) -> "CheckpointFolder":
        """Opens the folder for `fit`."""
        from jaxvision.training.checkpoint import CheckpointFolder

        return CheckpointFolder(self.folder)


Evaluate = Callable[["Classifier", Dataset, str], tuple[dict[str, float], "np.ndarray"]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What an experiment makes of its config.

    preprocessing: of the network.
    train: trains one seed; its best epoch stands in the seed's folder afterwards.
    notes: for the report, in Markdown: how the network is made.
    evaluate: figures and logits of a trained network on a split; None: the network's
        own `evaluate`.
    """

    preprocessing: Preprocessing
    train: Callable[[SeedRun], "Classifier"]
    notes: str
    evaluate: Evaluate | None = None


def run_cli(main: Callable[[Any], None], config_type: type, description: str) -> None:
    """Parses the command line into the config and runs `main`.

    What is compiled is kept for the next run. Bad input ends with one line and
    status 2, an interruption with how to continue and the status that shells expect
    (128 + signal).
    """
    import tyro

    from jaxvision.compilation_cache import use_compilation_cache

    # tyro joins lines that no blank one parts; the examples are to stay apart.
    description = description.replace("\npython ", "\n\npython ")
    prog = f"python -m experiments.{Path(sys.argv[0]).stem}"
    with exit_on_input_error():
        try:
            config = tyro.cli(config_type, description=description, prog=prog)
            if (problem := use_compilation_cache()) is not None:
                print(f"compiled programs are not kept: {problem}", file=sys.stderr)
            with distributed_session(
                getattr(config, "distributed", DistributedConfig())
            ):
                main(config)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None


def run_experiment(
    experiment: str,
    config: AnyConfig,
    *,
    title: str,
    question: str,
    prepare: Callable[[AnyConfig], "Task"],
    published: tuple[str, str] | None = None,
) -> Path:
    """Trains every seed, measures it, and writes run folder and report.

    Args:
      experiment: names the folders.
      config: what to do, or what to resume.
      title, question: of the report.
      prepare: the task that a config describes.
      published: section and row of `published.json` to stand beside the results.

    Returns:
      The run folder, whose path is also the last line on standard output.
    """
    from experiments.run_report import write_run

    began = time.monotonic()
    config = resumed(config)
    with main_process_first():
        task = prepare(config)
        if config.data.root is None:
            draw_demo(config.DEMO_KIND)
    dataset = read_images(config, task.preprocessing)
    # Not before all that was given is known to be usable.
    run, folder = open_folders(experiment, config)
    resume = f"python -m experiments.{experiment} --resume {shlex.quote(str(folder))}"
    with resumable(resume, config):
        outcomes = [
            run_seed(config, task, run, folder, dataset, seed) for seed in config.seeds
        ]
    if is_main_process():
        write_run(
            run,
            folder,
            outcomes,
            title=title,
            question=question,
            notes=task.notes,
            resume=resume,
            seconds=time.monotonic() - began,
            published=published,
        )
        _say_results(run, folder)
    return run.path


def read_images(config: RunConfig, preprocessing: Preprocessing) -> Dataset:
    """The images of a config, and says which they are."""
    from jaxvision.report.progress import Progress

    with Progress("reading images", unit="images") as progress:
        dataset = load_dataset(
            config.data,
            preprocessing,
            demo_kind=config.DEMO_KIND,
            progress=progress,
        )
    announce_data(dataset)
    check_same("images", dataset.fingerprint)
    return dataset


@contextlib.contextmanager
def resumable(resume: str, config: RunConfig) -> Iterator[None]:
    """Ends the process, once what is in it is interrupted, with how to continue."""
    from jaxvision.training.loop import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        several = " and the same --distributed" if config.distributed.wanted else ""
        print(f"interrupted; continue with: {resume}{several}", file=sys.stderr)
        number = getattr(stop, "signal_number", signal.SIGINT)
        raise SystemExit(128 + number) from None


def open_folders(experiment: str, config: RunConfig) -> tuple["RunFolder", Path]:
    """A run's folders for its report and its networks: new, or those it had."""
    from jaxvision.report.run_folder import RunFolder

    if not is_main_process():
        # What the other processes write is what the first one writes too.
        scratch = Path(tempfile.mkdtemp(prefix="jaxvision-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        config = dataclasses.replace(
            config, runs=scratch / "runs", checkpoints=scratch, resume=None
        )
    name = None if config.resume is None else config.resume.name
    if name is not None and (path := config.runs / experiment / name).is_dir():
        return RunFolder.open(path, tensorboard=config.tensorboard), config.resume
    run = RunFolder.create(
        experiment, root=config.runs, name=name, tensorboard=config.tensorboard
    )
    run.write_config(config)
    folder = config.resume or config.checkpoints / experiment / run.path.name
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Which processes trained it does not matter to those that continue it.
    alone = dataclasses.replace(config, distributed=DistributedConfig())
    write_json(folder / CONFIG, to_plain(alone))
    return run, folder


def resumed(config: AnyConfig) -> AnyConfig:
    """The settings of the run that `--resume` names; else the config itself."""
    folder = config.resume
    if folder is None:
        return config
    kept = {"resume": folder, "distributed": config.distributed}
    if config != dataclasses.replace(type(config)(), **kept):
        raise InputError(
            "--resume continues with the settings of that run; drop the other flags"
        )
    values = broadcast(
        _read_settings(folder, type(config)) if is_main_process() else None
    )
    return dataclasses.replace(from_plain(type(config), values), **kept)


def _read_settings(folder: Path, config_type: type) -> Any:
    """The settings of a run as plain values, known to be whole."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"--resume {folder}: no run to continue there (no {CONFIG}); give the "
            "folder that training named, checkpoints/<experiment>/<time>"
        )
    try:
        values = json.loads(path.read_text("utf-8"))
        from_plain(config_type, values)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); start a new run") from error
    return values


def run_seed(
    config: RunConfig,
    task: "Task",
    run: "RunFolder",
    folder: Path,
    dataset: Dataset,
    seed: int,
) -> "Outcome":
    """Trains and measures one seed, or reads it if that has been done."""
    from experiments.run_report import Outcome
    from jaxvision.classifier import load_classifier
    from jaxvision.report.progress import TrainingProgress
    from jaxvision.report.run_folder import HistoryCallback
    from jaxvision.training.loop import Callbacks

    folder = folder / f"seed-{seed}"
    if config.data.splits is None:
        dataset = dataset.resplit(dataclasses.replace(config.data.split, seed=seed))
    if _is_done(folder):
        classifier = load_classifier(folder)
    else:
        history = run.read_history(seed=seed)
        with TrainingProgress(title=f"seed {seed}", history=history) as progress:
            callback = Callbacks(progress, HistoryCallback(run, seed=seed))
            classifier = task.train(SeedRun(config, seed, dataset, folder, callback))
        dataset.write_splits(folder / "splits.csv")
    figures = {}
    for split in ("train", "val", "test"):
        if len(dataset.splits[split]):
            measure = task.evaluate or type(classifier).evaluate
            figures[split], logits = measure(classifier, dataset, split)
            held_out = split
    classifier = classifier.record(figures, folder)
    print(
        f"seed {seed}: "
        + ", ".join(f"{name} {row['accuracy']:.3f}" for name, row in figures.items())
    )
    return Outcome(seed, dataset, classifier, figures, held_out, logits)


def _is_done(folder: Path) -> bool:
    """Whether a seed has been trained and measured; its card is there then."""
    from jaxvision.classifier import CARD, ModelCard

    path, card = folder / CARD, None
    if is_main_process() and path.is_file() and ModelCard.read(folder).recorded:
        card = path.read_text("utf-8")
    card = broadcast(card)
    if card is not None and not is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(card, "utf-8")
    return card is not None


def draw_demo(kind: str) -> None:
    """Draws the built-in set, unless it is there already."""
    from jaxvision.data.dataset import DEMO_FOLDER
    from jaxvision.data.demo import write_demo
    from jaxvision.report.progress import Progress

    with Progress("drawing demo images", unit="images") as progress:
        write_demo(kind, DEMO_FOLDER / kind, progress=progress)


def announce_data(dataset: Dataset) -> None:
    """Says which images are used, which are drawn by code, and which are left out."""
    print(
        f"{dataset.name}: {len(dataset.images)} images of "
        f"{len(dataset.classes)} classes in {dataset.root}"
        + (" — demo data, drawn by code" if dataset.is_demo else "")
    )
    for path, reason in dataset.bad:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if dataset.pairs_note:
        print(dataset.pairs_note)
    if dataset.duplicates:
        print(
            f"{len(dataset.duplicates)} groups of identical images, each kept in "
            f"one split; {len(dataset.conflicts)} of them in several classes",
            file=sys.stderr,
        )


def _say_results(run: "RunFolder", folder: Path) -> None:
    from jaxvision.report.formats import format_mean_sd

    results = run.read_results()
    demo = " (demo data)" if results["data"]["is_demo"] else ""
    for split in ("test", "val"):
        if (figure := results["figures"].get(f"{split}_accuracy")) is None:
            continue
        spread = format_mean_sd(figure["mean"], figure["sd"])
        print(f"{split} accuracy {spread}, {figure['n']} seed(s){demo}")
    print(f"checkpoint: {folder}")
    print(f"report: {run.path / 'report.md'}")
    print(run.path)
