"""Sweeps: configurations × seeds on one set of small images.

What differs in numbers only (seed, split, learning rate, schedule, weight decay,
dropout rates) shares one compiled program; what differs in shapes is another program.
On an accelerator many models train at once: the pure step under `vmap`, whole epochs
under `scan`, images resident on the device and shuffled by index there. On a CPU,
where that gains nothing, models train one after the other, one in each core, with the
same numbers.

    runs = run_sweep(configurations, {seed: dataset_of(seed) for seed in range(5)})
    runs[0][3].rows[-1]["val_accuracy"]  # first configuration, fourth seed
"""

import dataclasses
import hashlib
import json
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.config import to_plain
from jaxvision.data.dataset import Dataset
from jaxvision.data.order import epoch_places
from jaxvision.data.transforms import AugmentConfig, check_on_host
from jaxvision.errors import InputError
from jaxvision.metrics import make_cross_entropy, summarize
from jaxvision.models import Network, check_fits, create_model
from jaxvision.optim import OptimConfig, make_optimizer, schedule_factor
from jaxvision.storage import write_json, writing
from jaxvision.train.checkpoint import CheckpointFolder
from jaxvision.train.parallel import Epoch, SweepStep, loop_epoch, sweep_epoch
from jaxvision.train.state import TrainState, create_state, init_variables
from jaxvision.train.step import make_eval_step, make_train_step
from jaxvision.typing import PyTree

Row = dict[str, float]
"""One epoch of a run's curve, named as in the history of `fit`."""

EVALUATION_BATCH = 256
"""Validation images at once, at most."""

MEMORY_SHARE = 0.7
"""Of the device's free memory, what the models of a sweep may take together."""

_RESULT = "result.json"
_SUMS = ("loss", "correct", "count")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """How a network is made and trained; with a seed and images, one run."""

    model: str
    """Name in `jaxvision.models.MODELS`."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of `create_model`."""
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    epochs: int = 50
    """Epochs at most."""
    batch_size: int = 16
    """Images a step."""
    patience: int | None = None
    """Stop after this many epochs without a better one on the validation images."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    """Random changes of the training images."""

    def check(self) -> None:
        """Raises `InputError` if a number means nothing."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self.optim, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; it must be at least 0 and finite")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"label_smoothing is {self.label_smoothing}; it must be at least 0 and "
                "below 1"
            )
        check_on_host(self.augment, "images of a sweep")


@dataclasses.dataclass(frozen=True)
class Run:
    """One configuration trained with one seed.

    rows: one an epoch; the last is that of the network as it was left.
    reason: why it ended, in words.
    seconds: that its training took, shared evenly among models trained at once.
    folder: where the result was kept, and the network if that was asked for.
    reused: whether it was read from there.
    """

    rows: list[Row]
    reason: str
    seconds: float
    folder: Path | None = None
    reused: bool = False

    @property
    def best(self) -> Row:
        """The row of the highest validation accuracy; of equal ones, the lower loss."""
        return max(self.rows, key=_score)


def run_sweep(
    configurations: Sequence[Configuration],
    datasets: Mapping[int, Dataset],
    *,
    store: Path | None = None,
    save: Sequence[Configuration] = (),
    models_at_once: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Run]]:
    """Trains every configuration with every seed.

    A seed settles initialization, order of the images, augmentation and dropout as
    in `fit`, and `datasets` has the split for it.

    Args:
      configurations: equal ones are trained once.
      datasets: seed -> the same images, in the split of the seed.
      store: folder of finished runs, `<key of the configuration>/seed-<n>`; what is
        there is not trained again. None: nothing is kept.
      save: configurations whose networks are saved there too, as the `best` entry of
        a `CheckpointFolder`; it is the network of the last epoch.
      models_at_once: None: as many as the device's memory holds; on a CPU, one.
      progress: told (epochs done, epochs in all), from any thread.

    Returns:
      For each configuration the runs of the seeds, in the order of `datasets`.

    Raises:
      InputError: a configuration that makes no network or is too large for the
        images, a number that means nothing, a folder that can't be written.
    """
    if not datasets:
        raise InputError("--seeds: give at least one")
    if models_at_once is not None and models_at_once < 1:
        raise InputError(f"models at once is {models_at_once}; it must be at least 1")
    runs: dict[tuple[str, int], Run] = {}
    jobs: dict[tuple[str, int], _Job] = {}
    kept = {_key(configuration, datasets) for configuration in save}
    for configuration in configurations:
        configuration.check()
        key = _key(configuration, datasets)
        for seed, dataset in datasets.items():
            folder = None if store is None else store / key / f"seed-{seed}"
            job = _Job(configuration, seed, dataset, folder, key in kept)
            job.check()
            if (run := job.read()) is not None:
                runs[key, seed] = run
            elif (key, seed) not in jobs:
                jobs[key, seed] = job
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    cpu = jax.devices()[0].platform == "cpu"
    for place, job in jobs.items():
        groups[job.program_key(zero_apart=cpu)].append(place)
    count = _Count(sum(job.configuration.epochs for job in jobs.values()), progress)
    if jobs:
        shared = _resident(next(iter(datasets.values())))
        programs = [
            _Program([jobs[place] for place in places], shared, count)
            for places in groups.values()
        ]
        if cpu and models_at_once in (None, 1):
            finished = _one_by_one(programs, count)
        else:
            finished = [
                run for program in programs for run in program.at_once(models_at_once)
            ]
        places = [place for group in groups.values() for place in group]
        runs.update(zip(places, finished, strict=True))
    keys = [_key(configuration, datasets) for configuration in configurations]
    return [[runs[key, seed] for seed in datasets] for key in keys]


def curves(
    runs: Mapping[str, Sequence[tuple[int, Run]]],
) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of one table with every epoch of every run.

    Args:
      runs: name of a configuration -> (seed, run) of each.
    """
    columns = [
        "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
        "learning_rate",
    ]  # fmt: skip
    rows = [
        [name, seed, *(row[column] for column in columns)]
        for name, several in runs.items()
        for seed, run in several
        for row in run.rows
    ]
    return ["configuration", "seed", *columns], rows


@dataclasses.dataclass(frozen=True)
class _Job:
    """A run to be done: a configuration, a seed, and where its result goes."""

    configuration: Configuration
    seed: int
    dataset: Dataset
    folder: Path | None
    save: bool

    @property
    def rates(self) -> dict[str, float]:
        """The dropout rates among the options."""
        options = self.configuration.options
        return {k: float(v) for k, v in options.items() if _is_rate(k)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        preprocessing = self.dataset.preprocessing
        return (*preprocessing.size, 1 if preprocessing.gray else 3)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.dataset.splits["train"]) // self.configuration.batch_size)

    def check(self) -> None:
        check_fits(self.make_model({}), self.image_shape)
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: must be at least 0")
        for split in ("train", "val"):
            if not len(self.dataset.splits[split]):
                raise InputError(
                    f"the {split} split has no image: give --data.split.{split} a "
                    "fraction above 0"
                )

    def make_model(self, rates: Mapping[str, Any]) -> Network:
        """The network with other dropout rates, which may be traced."""
        options = {**self.configuration.options, **rates}
        return create_model(
            self.configuration.model, len(self.dataset.classes), **options
        )

    def program_key(self, *, zero_apart: bool) -> str:
        """Equal for runs that one program can do.

        Args:
          zero_apart: whether no dropout is another program than some: it draws no
            random numbers, which is a third of the time on a CPU.
        """
        configuration = self.configuration
        optim = dataclasses.replace(configuration.optim, learning_rate=0.0)
        facts = {
            "model": configuration.model,
            "options": {
                k: v for k, v in configuration.options.items() if not _is_rate(k)
            },
            "rates": {k: zero_apart and v == 0 for k, v in self.rates.items()},
            # The schedule is a row of numbers.
            "optim": dataclasses.replace(_unscheduled(optim), weight_decay=0.0),
            "batch_size": configuration.batch_size,
            "label_smoothing": configuration.label_smoothing,
            "augment": configuration.augment != AugmentConfig(),
            "train": self.steps_per_epoch,
            "val": len(self.dataset.splits["val"]),
        }
        return json.dumps(to_plain(facts), sort_keys=True)

    def val_rows(self) -> dict[str, np.ndarray]:
        """The validation images in order, the last batch filled up."""
        val = self.dataset.splits["val"]
        size = min(len(val), EVALUATION_BATCH)
        places = np.arange(-(-len(val) // size) * size)
        mask = (places < len(val)).astype(np.float32)
        index = val[np.minimum(places, len(val) - 1)].astype(np.int32)
        return {"index": index.reshape(-1, size), "mask": mask.reshape(-1, size)}

    def read(self) -> Run | None:
        """The run, if it is finished and was done with these very splits."""
        if self.folder is None or not (self.folder / _RESULT).is_file():
            return None
        try:
            result = json.loads((self.folder / _RESULT).read_text("utf-8"))
            rows = [
                {k: math.nan if v is None else v for k, v in row.items()}
                for row in result["rows"]
            ]
            run = Run(rows, result["reason"], result["seconds"], self.folder, True)
            if result["splits"] != self._splits() or not rows:
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # not a file of ours: it is done again and replaced
        if self.save and CheckpointFolder(self.folder).load("best") is None:
            return None
        return run

    def write(self, run: Run, variables: dict[str, PyTree]) -> Run:
        """Keeps the run; its result comes last: without it, a run is not finished."""
        if self.folder is None:
            return run
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.save:
            checkpoints = CheckpointFolder(self.folder)
            row = run.rows[-1]
            checkpoints.save("best", int(row["step"]), variables, row)
            checkpoints.wait()
        result = {
            "configuration": self.configuration,
            "seed": self.seed,
            "splits": self._splits(),
            "rows": run.rows,
            "reason": run.reason,
            "seconds": run.seconds,
        }
        write_json(self.folder / _RESULT, to_plain(result))
        return dataclasses.replace(run, folder=self.folder)

    def _splits(self) -> str:
        digest = hashlib.sha256()
        for name in ("train", "val"):
            digest.update(self.dataset.splits[name].astype("<i4").tobytes() + b"|")
        return digest.hexdigest()


class _Program:
    """What runs of one shape have in common: compiled once."""

    def __init__(self, jobs: Sequence[_Job], shared: PyTree, count: "_Count") -> None:
        self.jobs = jobs
        self._shared = shared
        self._count = count
        job = jobs[0]
        self._tx = make_optimizer(
            _unscheduled(job.configuration.optim), steps_per_epoch=1, epochs=1
        )
        # A rate that is zero everywhere draws nothing; others are data.
        self._varied = [n for n in job.rates if any(j.rates[n] for j in jobs)]
        self._still = {n: 0.0 for n in job.rates if n not in self._varied}
        self._state = jax.jit(self._make_state)
        loss = make_cross_entropy(label_smoothing=job.configuration.label_smoothing)
        self._train, self._eval = self._steps(loss)
        self._train_loop, self._eval_loop = map(loop_epoch, (self._train, self._eval))

    def alone(self, job: _Job) -> Run:
        """One run by itself."""
        began = time.monotonic()
        course = _Course(job)
        state = self._state(job.seed)
        own = jax.device_put(self._own(job))
        val = jax.device_put(job.val_rows())
        for epoch in range(job.configuration.epochs):
            rows = jax.device_put(course.train_rows())
            state, sums = self._train_loop((state, _no_sums()), self._shared, own, rows)
            state, val_sums = self._eval_loop(
                (state, _no_sums()), self._shared, own, val
            )
            course.end_epoch(*jax.device_get((sums, val_sums)))
            self._count.add(job.configuration.epochs - epoch if course.reason else 1)
            if course.reason:
                break
        run = course.finished(time.monotonic() - began)
        return job.write(run, jax.device_get(state.variables) if job.save else {})

    def at_once(self, models: int | None) -> list[Run]:
        """All runs, `models` at a time (None: as many as fit into the memory)."""
        most = models or self._models_that_fit()
        blocks = -(-len(self.jobs) // most)
        size = -(-len(self.jobs) // blocks)
        epochs = sweep_epoch(self._train), sweep_epoch(self._eval)
        runs: list[Run] = []
        for start in range(0, len(self.jobs), size):
            runs += self._block(self.jobs[start : start + size], size, *epochs)
        return runs

    def _block(
        self, jobs: Sequence[_Job], size: int, train: Epoch, evaluate: Epoch
    ) -> list[Run]:
        """Runs of one block; filled up to `size`, so that it has the same program."""
        began = time.monotonic()
        courses = [_Course(job) for job in jobs]
        spare = [0] * (size - len(jobs))
        filled = [*jobs, *(jobs[i] for i in spare)]
        state = jax.vmap(self._state)(jnp.asarray([job.seed for job in filled]))
        own = jax.device_put(_stack([self._own(job) for job in filled]))
        val = jax.device_put(_stack([job.val_rows() for job in filled]))
        zeros = jax.tree.map(lambda x: jnp.broadcast_to(x, (size,)), _no_sums())
        for epoch in range(max(job.configuration.epochs for job in jobs)):
            active = [course.reason == "" for course in courses]
            if not any(active):
                break
            # What fills up stands still.
            own["active"] = jnp.asarray(active + [False] * len(spare))
            rows = [course.train_rows() for course in courses]
            rows = jax.device_put(_stack([*rows, *(rows[i] for i in spare)]))
            state, sums = train((state, _copy(zeros)), self._shared, own, rows)
            state, val_sums = evaluate((state, _copy(zeros)), self._shared, own, val)
            sums, val_sums = jax.device_get((sums, val_sums))
            for m, course in enumerate(courses):
                if not active[m]:
                    continue
                course.end_epoch(_of_model(sums, m), _of_model(val_sums, m))
                left = course.job.configuration.epochs - epoch
                self._count.add(left if course.reason else 1)
        seconds = (time.monotonic() - began) / len(jobs)
        variables = jax.device_get(state.variables)
        return [
            job.write(course.finished(seconds), _of_model(variables, m))
            for m, (job, course) in enumerate(zip(jobs, courses, strict=True))
        ]

    def _models_that_fit(self) -> int:
        """How many models the device's free memory holds, by the program for one."""
        stats = jax.devices()[0].memory_stats() or {}
        if "bytes_limit" not in stats:
            return len(self.jobs)
        job = self.jobs[0]
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), jnp.result_type(x)),
            (
                (jax.eval_shape(self._state, 0), _no_sums()),
                {**self._own(job), "active": True},
                _Course(job).train_rows(),
            ),
        )
        carry, own, rows = arguments
        program = sweep_epoch(self._train).lower(carry, self._shared, own, rows)
        needed = program.compile().memory_analysis()
        each = needed.temp_size_in_bytes + needed.output_size_in_bytes
        each += sum(
            math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(rows)
        )
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
        return max(1, min(len(self.jobs), int(MEMORY_SHARE * free / max(each, 1))))

    def _make_state(self, seed: jax.Array) -> TrainState:
        model = self.jobs[0].make_model(self._still)
        variables = init_variables(model, seed, self.jobs[0].image_shape)
        return create_state(variables, self._tx, seed=seed)

    def _own(self, job: _Job) -> dict[str, Any]:
        """The numbers that only this run has."""
        return {
            "rates": {name: np.float32(job.rates[name]) for name in self._varied},
            "weight_decay": np.float32(job.configuration.optim.weight_decay),
        }

    def _steps(self, loss: Callable) -> tuple[SweepStep, SweepStep]:
        """Training and evaluation, in which what a sweep varies is data."""
        job, tx, still = self.jobs[0], self._tx, self._still
        normalize = job.dataset.preprocessing.normalize

        def batch(shared: PyTree, row: PyTree) -> dict[str, jax.Array]:
            image = row["image"] if "image" in row else shared["image"][row["index"]]
            label = shared["label"][row["index"]]
            return {"image": image, "label": label, "mask": row["mask"]}

        def train(carry: PyTree, shared: PyTree, own: PyTree, row: PyTree) -> PyTree:
            state, sums = carry
            varied = {
                "learning_rate": row["rate"],
                "weight_decay": own["weight_decay"],
            }
            state = state.replace(
                opt_state=state.opt_state._replace(hyperparams=varied)
            )
            model = job.make_model({**still, **own["rates"]})
            step = make_train_step(model, tx, loss, normalize=normalize)
            state, metrics = step(state, batch(shared, row))
            return state, jax.tree.map(jnp.add, sums, metrics)

        def evaluate(carry: PyTree, shared: PyTree, own: PyTree, row: PyTree) -> PyTree:
            state, sums = carry
            step = make_eval_step(job.make_model({}), loss, normalize=normalize)
            metrics, _ = step(state, batch(shared, row))
            added = {name: sums[name] + metrics[name] for name in _SUMS}
            return state, {**sums, **added}

        return train, evaluate


class _Course:
    """One run under way: what it trains on, its curve, and whether it is to stop."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.rows: list[Row] = []
        self.reason = ""
        configuration, steps = job.configuration, job.steps_per_epoch
        self._rates = _learning_rates(configuration, steps)
        self._augmented: Iterator[dict[str, np.ndarray]] | None = None
        if configuration.augment != AugmentConfig():
            self._augmented = job.dataset.batches(
                "train",
                batch_size=configuration.batch_size,
                seed=job.seed,
                train=True,
                augment=configuration.augment,
            ).iterate()

    def train_rows(self) -> dict[str, np.ndarray]:
        """The steps of the next epoch, in the order of `fit`; lead with `[S, ...]`."""
        job, epoch = self.job, min(len(self.rows), len(self._rates) - 1)
        train, size = job.dataset.splits["train"], job.configuration.batch_size
        places, mask = epoch_places(len(train), size, seed=job.seed, epoch=epoch)
        rows = {
            "index": train[places].astype(np.int32),
            "mask": mask,
            "rate": self._rates[epoch],
        }
        if self._augmented is not None:
            images = [next(self._augmented)["image"] for _ in range(len(places))]
            rows["image"] = np.stack(images)
        return rows

    def end_epoch(self, sums: Mapping[str, Any], val: Mapping[str, Any]) -> None:
        """Adds a row; sets `reason` if it is the last."""
        configuration, epoch = self.job.configuration, len(self.rows)
        row: Row = {"epoch": epoch + 1, "step": (epoch + 1) * self.job.steps_per_epoch}
        row |= {f"train_{k}": v for k, v in summarize(sums).items()}
        row |= {f"val_{k}": v for k, v in summarize(val).items()}
        row["learning_rate"] = float(self._rates[epoch, -1])
        self.rows.append(row)
        best = max(range(len(self.rows)), key=lambda i: _score(self.rows[i]))
        if float(sums["nonfinite"]):
            self.reason = "the loss was not finite"
        elif configuration.patience is not None and (
            epoch - best >= configuration.patience
        ):
            self.reason = f"no better epoch for {configuration.patience}"
        elif epoch + 1 == configuration.epochs:
            self.reason = "all epochs done"

    def finished(self, seconds: float) -> Run:
        """What has come of it."""
        if self._augmented is not None:
            self._augmented.close()
        return Run(self.rows, self.reason, seconds)


class _Count:
    """Epochs done by all threads, for the progress bar; and the wish to stop."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, epochs: int) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        with self._lock:
            self._done += epochs
            if self._progress is not None:
                self._progress(self._done, self._total)


def _one_by_one(programs: Sequence[_Program], count: _Count) -> list[Run]:
    """Every run alone, as many at the same time as there are cores.

    One small network keeps one core busy; XLA finds no work for the others in it.
    """
    with ThreadPoolExecutor(_cores(), thread_name_prefix="sweep") as pool:
        futures = [
            pool.submit(program.alone, job)
            for program in programs
            for job in program.jobs
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            count.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def _resident(dataset: Dataset) -> dict[str, jax.Array]:
    """All images and labels on the device: `[N, H, W, C]` uint8 and `[N]` int32."""
    images = [dataset.image(index) for index in range(len(dataset.images))]
    return jax.device_put({"image": np.stack(images), "label": dataset.labels})


def _key(configuration: Configuration, datasets: Mapping[int, Dataset]) -> str:
    """One name for a configuration on these images."""
    fingerprint = next(iter(datasets.values())).fingerprint
    facts = to_plain({"configuration": configuration, "data": fingerprint})
    content = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _unscheduled(optim: OptimConfig) -> OptimConfig:
    """The same optimizer with a rate that nothing but a sweep changes."""
    plain = OptimConfig()
    names = ("schedule", "decay", "decay_epochs", "hold_epochs", "warmup_epochs")
    return dataclasses.replace(optim, **{name: getattr(plain, name) for name in names})


def _learning_rates(configuration: Configuration, steps: int) -> np.ndarray:
    """`[epochs, steps]` float32: the rate of every step."""
    epochs = configuration.epochs
    factor = schedule_factor(configuration.optim, steps_per_epoch=steps, epochs=epochs)
    curve = jax.vmap(factor)(jnp.arange(epochs * steps))
    curve = np.broadcast_to(np.asarray(curve), (epochs * steps,))
    rate = np.float32(configuration.optim.learning_rate)
    return (rate * curve).reshape(epochs, steps)


def _is_rate(option: str) -> bool:
    return option.endswith("_rate") or option == "head_dropout"


def _no_sums() -> dict[str, jax.Array]:
    return {name: jnp.zeros(()) for name in (*_SUMS, "nonfinite")}


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _of_model(tree: PyTree, model: int) -> PyTree:
    return jax.tree.map(lambda x: np.array(x[model]), tree)


def _score(row: Row) -> tuple[float, float]:
    """As `fit` compares epochs: accuracy, then the lower loss; NaN is worst."""
    accuracy, loss = row["val_accuracy"], row["val_loss"]
    if not (math.isfinite(accuracy) and math.isfinite(loss)):
        return -math.inf, -math.inf
    return accuracy, -loss
