"""Sweeps: recipes × seeds on one set of small images.

What differs in numbers only (seed, split, learning rate, schedule, weight decay, the
`rates` of a network) shares one compiled program; what differs in shapes is another
program. On an accelerator many models train at once: the pure step under `vmap`, whole
epochs under `scan`, images resident on the device and shuffled by index there. On a
CPU, where that gains nothing, models train one after the other by `fit_steps`, one in
each core, with the same numbers.

    runs = run_sweep(starts, {seed: dataset.with_seed(seed) for seed in range(5)})
    runs[0][3].history[-1]["val_accuracy"]  # first recipe, fourth seed
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.classifier import SPLITS, load_classifier
from jaxvision.config import to_plain
from jaxvision.data.dataset import DecodedDataset
from jaxvision.data.loader import Batches
from jaxvision.data.order import epoch_places
from jaxvision.data.transforms import check_on_host
from jaxvision.errors import InputError
from jaxvision.metrics import class_frequencies
from jaxvision.models import Network, check_fits, rate_options, with_defaults
from jaxvision.optim import make_optimizer, schedule_factor
from jaxvision.recipe import Start, calibrate, check_classes, make_card, make_loss
from jaxvision.settings import AugmentConfig, Recipe
from jaxvision.storage import write_json, writing
from jaxvision.training.checkpoint import CheckpointFolder
from jaxvision.training.history import WORST, end_reason, val_score
from jaxvision.training.loop import (
    NOT_FINITE,
    Callbacks,
    FitResult,
    Steps,
    epoch_row,
    fit_steps,
)
from jaxvision.training.mixing import make_mix
from jaxvision.training.parallel import (
    Device,
    Epoch,
    Program,
    Runner,
    SweepStep,
    compile_once,
    sweep_epoch,
)
from jaxvision.training.state import (
    TrainState,
    create_state,
    init_variables,
    set_output_biases,
)
from jaxvision.training.step import EvalStep, TrainStep, make_eval_step, make_train_step
from jaxvision.typing import Batch, Metrics, Progress, PyTree, Row

EVALUATION_BATCH = 256
"""Validation images at once, at most."""

MEMORY_SHARE = 0.7
"""Of the device's free memory, what the models of a sweep may take together."""

_RESULT = "result.json"
_SUMS = ("loss", "correct", "count")
_TIMINGS = ("seconds", "images_per_second")


@dataclasses.dataclass(frozen=True)
class Run:
    """One recipe trained with one seed.

    history: a row an epoch.
    reason: why it ended, in words.
    seconds: that its training took, shared evenly among models trained at once.
    folder: where the result was kept, and the network if that was asked for.
    reused: whether it was read from there.
    """

    history: list[Row]
    reason: str
    seconds: float
    folder: Path | None = None
    reused: bool = False


def run_sweep(
    starts: Sequence[Start],
    datasets: Mapping[int, DecodedDataset],
    *,
    store: Path | None = None,
    save: Sequence[Start] = (),
    models_at_once: int | None = None,
    progress: Progress | None = None,
) -> list[list[Run]]:
    """Trains every recipe with every seed.

    A seed settles initialization, order of the images, augmentation and dropout as in
    `train`, and `datasets` has the split for it. A run whose loss is not finite ends
    after that epoch; the others go on.

    Args:
      starts: of the recipes, whose method is scratch; equal ones are trained once.
      datasets: seed -> the same images, in the split of the seed and in the
        preprocessing of all starts.
      store: folder of finished runs, `<key of the recipe>/seed-<n>`; what is there is
        not trained again. None: nothing is kept.
      save: starts whose networks are saved there too: a folder for `load_classifier`
        for each seed.
      models_at_once: None: as many as the device's memory holds; on a CPU, one.
      progress: told (epochs done, epochs in all), from any thread.

    Returns:
      For each start the runs of the seeds, in the order of `datasets`.

    Raises:
      InputError: a recipe that a sweep cannot follow or that does not suit the images,
        an empty split, a folder that can't be written.
    """
    if not datasets:
        raise InputError("give at least one", setting="seeds")
    if models_at_once is not None and models_at_once < 1:
        raise ValueError(f"models_at_once is {models_at_once}; must be at least 1")
    runs: dict[tuple[str, int], Run] = {}
    trials: dict[tuple[str, int], _Trial] = {}
    saved = {_key(start, datasets) for start in save}
    for start in starts:
        key = _key(start, datasets)
        for seed, dataset in datasets.items():
            folder = None if store is None else store / key / f"seed-{seed}"
            trial = _Trial(start, seed, dataset, folder, key in saved)
            trial.check()
            if (run := trial.read()) is not None:
                runs[key, seed] = run
            elif (key, seed) not in trials:
                trials[key, seed] = trial
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    device = jax.local_devices()[0]
    alone = device.platform == "cpu" and models_at_once in (None, 1)
    for place, trial in trials.items():
        groups[trial.program_key(alone=alone)].append(place)
    count = _Count(sum(trial.recipe.epochs for trial in trials.values()), progress)
    if trials:
        images = _all_images(next(iter(datasets.values())))
        programs = [
            _Program([trials[place] for place in places], images, count, device)
            for places in groups.values()
        ]
        if alone:
            finished = _one_by_one(programs, count)
        else:
            finished = [
                run for program in programs for run in program.at_once(models_at_once)
            ]
        places = [place for group in groups.values() for place in group]
        runs.update(zip(places, finished, strict=True))
    keys = [_key(start, datasets) for start in starts]
    return [[runs[key, seed] for seed in datasets] for key in keys]


@dataclasses.dataclass(frozen=True)
class _Trial:
    """A recipe to train with a seed, and where its result goes."""

    start: Start
    seed: int
    dataset: DecodedDataset
    folder: Path | None
    save: bool

    @property
    def recipe(self) -> Recipe:
        return self.start.recipe

    @property
    def rates(self) -> dict[str, float]:
        """The options that are data, not part of a program."""
        names = rate_options(self.recipe.network)
        options = _spelled_out(self.recipe).options
        return {k: float(v) for k, v in options.items() if k in names}

    @property
    def mixed(self) -> dict[str, float]:
        """How images are mixed, as `make_mix` takes it; it is data."""
        values = {"mixup": self.recipe.mixup, "cutmix": self.recipe.cutmix}
        return {name: value for name, value in values.items() if value}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        preprocessing = self.dataset.preprocessing
        return (*preprocessing.size, preprocessing.channels)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.dataset.splits["train"]) // self.recipe.batch_size)

    @property
    def train_labels(self) -> np.ndarray:
        return self.dataset.labels[self.dataset.splits["train"]]

    def check(self) -> None:
        recipe, dataset = self.recipe, self.dataset
        if recipe.pretrained:
            raise InputError(
                "a sweep trains with `method` scratch alone",
                setting="method",
                value=recipe.method,
            )
        if recipe.solved:
            raise InputError(
                "a sweep trains by gradient", setting="solver", value=recipe.solver
            )
        if self.start.preprocessing != dataset.preprocessing:
            raise InputError(
                "all networks of a sweep take the same images: give `image_size`, "
                "`resize_mode`, `gray` and `scaling` one value each"
            )
        if recipe.progressive_sizes:
            raise InputError(
                "a sweep trains at one image size; drop it",
                setting="progressive_sizes",
                value=recipe.progressive_sizes,
            )
        check_on_host(recipe.augment, "images of a sweep")
        for split in ("train", "val"):
            if not len(dataset.splits[split]):
                raise InputError(
                    f"the {split} split has no image: set `data.split.{split}` above 0"
                )
        check_classes(recipe, dataset)
        check_fits(self.make_model({}), self.image_shape)
        if self.seed < 0:
            raise InputError("must be at least 0", setting="seeds", value=self.seed)

    def make_model(self, rates: Mapping[str, Any]) -> Network:
        """The network with other rates, which may be traced."""
        card = make_card(self.start, self.dataset.classes)
        options = {**card.options, **rates}
        return dataclasses.replace(card, options=options).create_model()

    def program_key(self, *, alone: bool) -> str:
        """Equal for runs that one program can do.

        Args:
          alone: whether each model trains by itself. Then no dropout is another program
            than some, since it draws no random numbers, which is a third of the time on
            a CPU; and images changed at random are the same one, since the host changes
            them. Models at once have an epoch in common instead.
        """
        recipe, rates = _spelled_out(self.recipe), self.rates
        optim = dataclasses.replace(recipe.optim, learning_rate=0.0, weight_decay=0.0)
        counts = None
        if recipe.class_weights or recipe.output_biases:
            counts = np.bincount(self.train_labels).tolist()
        facts = {
            "network": recipe.network,
            "options": {k: v for k, v in recipe.options.items() if k not in rates},
            "rates": {k: alone and v == 0 for k, v in rates.items()},
            "binary": recipe.binary,
            "dtype": recipe.dtype,
            "optim": optim,
            "batch_size": recipe.batch_size,
            "label_smoothing": recipe.label_smoothing,
            "class_weights": recipe.class_weights,
            "output_biases": recipe.output_biases,
            "averages": recipe.ema_decay > 0,
            "mixed": list(self.mixed),
            "counts": counts,
            "augment": not alone and recipe.augment != AugmentConfig(),
            "train": self.steps_per_epoch,
            "val": len(self.dataset.splits["val"]),
        }
        return json.dumps(to_plain(facts), sort_keys=True)

    def learning_rates(self) -> np.ndarray:
        """`[epochs, steps]` float32: the rate of every step."""
        recipe, steps = self.recipe, self.steps_per_epoch
        factor = schedule_factor(
            recipe.schedule, steps_per_epoch=steps, epochs=recipe.epochs
        )
        curve = jax.vmap(factor)(jnp.arange(recipe.epochs * steps))
        curve = np.broadcast_to(np.asarray(curve), (recipe.epochs * steps,))
        rate = np.float32(recipe.optim.learning_rate)
        return (rate * curve).reshape(recipe.epochs, steps)

    def augmented(self) -> Batches | None:
        """The training batches, where images are augmented, which the host does."""
        recipe = self.recipe
        if recipe.augment == AugmentConfig():
            return None
        return self.dataset.batches(
            "train",
            batch_size=recipe.batch_size,
            seed=self.seed,
            train=True,
            augment=recipe.augment,
        )

    def read(self) -> Run | None:
        """The run, if it is finished and was done with these very splits."""
        if self.folder is None or not (self.folder / _RESULT).is_file():
            return None
        try:
            result = json.loads((self.folder / _RESULT).read_text("utf-8"))
            history = [
                {k: math.nan if v is None else v for k, v in row.items()}
                for row in result["history"]
            ]
            run = Run(history, result["reason"], result["seconds"], self.folder, True)
            if result["splits"] != self._splits() or not history:
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # not a file of ours: it is done again and replaced
        if self.save and CheckpointFolder(self.folder).load("best") is None:
            return None
        return run

    def write(
        self, run: Run, variables: dict[str, PyTree], row: Row | None = None
    ) -> Run:
        """Keeps the run; its result comes last: without it, a run is not finished.

        Args:
          variables: of the network that `save` wants.
          row: of its epoch; None: the last one.
        """
        if self.folder is None:
            return run
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self.save:
            self._save(self.folder, variables, row or run.history[-1])
        result = {
            "recipe": self.recipe,
            "seed": self.seed,
            "splits": self._splits(),
            "history": run.history,
            "reason": run.reason,
            "seconds": run.seconds,
        }
        write_json(self.folder / _RESULT, to_plain(result))
        return dataclasses.replace(run, folder=self.folder)

    def _save(self, folder: Path, variables: dict[str, PyTree], row: Row) -> None:
        """Writes the network with its card and splits, and measures what it wrote."""
        checkpoints = CheckpointFolder(folder)
        checkpoints.save("best", int(row["step"]), variables, row)
        checkpoints.wait()
        self.dataset.write_splits(folder / SPLITS)
        card = make_card(self.start, self.dataset.classes)
        card.of_training(self.dataset, self.seed).write(folder)
        classifier = load_classifier(folder)
        evaluations = {
            split: classifier.evaluate(self.dataset, split)
            for split, indices in self.dataset.splits.items()
            if len(indices)
        }
        calibrate(classifier, evaluations, folder)

    def _splits(self) -> str:
        digest = hashlib.sha256()
        for name in ("train", "val"):
            digest.update(self.dataset.splits[name].astype("<i4").tobytes() + b"|")
        return digest.hexdigest()


class _Program:
    """What trials of one shape have in common: compiled once."""

    def __init__(
        self,
        trials: Sequence[_Trial],
        images: np.ndarray,
        count: "_Count",
        device: Device,
    ) -> None:
        self.trials = trials
        self._images = images
        self._count = count
        trial = trials[0]
        # The schedule is a row of numbers.
        self._tx = make_optimizer(trial.recipe.optim, steps_per_epoch=1, epochs=1)
        # A rate that is zero everywhere draws nothing; others are data.
        rates = [trial.rates for trial in trials]
        self._varied = [n for n in trial.rates if any(r[n] for r in rates)]
        self._still = {n: 0.0 for n in trial.rates if n not in self._varied}
        self._train, self._eval = self._make_steps()
        self._state = compile_once(jax.jit(self._make_state))
        runner = Runner((device,))
        self._steps = Steps(
            runner,
            Program(compile_once(runner.compile_train(self._train))),
            Program(compile_once(runner.compile_eval(self._eval))),
        )

    def alone(self, trial: _Trial) -> Run:
        """One trial by itself."""
        began, recipe = time.monotonic(), trial.recipe
        rates = trial.learning_rates().ravel()
        result = fit_steps(
            self._steps,
            self._state(np.uint32(trial.seed), self._own(trial)),
            _TrialBatches(trial, self._batches(trial, "train"), self._own(trial)),
            val=self._batches(trial, "val"),
            epochs=recipe.epochs,
            select=recipe.select,
            patience=recipe.patience,
            learning_rate_at=lambda step: float(rates[step]),
            callback=_CountEpochs(self._count, recipe.epochs),
            on_nonfinite="stop",
        )
        return _write(trial, result, time.monotonic() - began)

    def at_once(self, models: int | None) -> list[Run]:
        """All trials, `models` at a time (None: as many as fit into the memory)."""
        shared = jax.device_put(
            {"image": self._images, "label": self.trials[0].dataset.labels}
        )
        train, evaluate = self._sweep_steps()
        most = models or self._models_that_fit(train, shared)
        blocks = -(-len(self.trials) // most)
        size = -(-len(self.trials) // blocks)
        epochs = sweep_epoch(train), sweep_epoch(evaluate)
        runs: list[Run] = []
        for start in range(0, len(self.trials), size):
            runs += self._block(self.trials[start : start + size], size, shared, epochs)
        return runs

    def _block(
        self,
        trials: Sequence[_Trial],
        size: int,
        shared: PyTree,
        epochs: tuple[Epoch, Epoch],
    ) -> list[Run]:
        """Trials of one block; filled up to `size`, so that it has the same program."""
        began = time.monotonic()
        curves = [_Curve(trial) for trial in trials]
        spare = [0] * (size - len(trials))
        filled = [*trials, *(trials[i] for i in spare)]
        own = jax.device_put(_stack([self._own(trial) for trial in filled]))
        seeds = jnp.asarray([trial.seed for trial in filled], jnp.uint32)
        state = jax.vmap(self._make_state)(seeds, own)
        val = jax.device_put(_stack([_val_rows(trial) for trial in filled]))
        zeros = jax.tree.map(lambda x: jnp.broadcast_to(x, (size,)), _no_sums())
        selected = _copy(state.eval_variables)
        for epoch in range(max(trial.recipe.epochs for trial in trials)):
            active = [not curve.reason for curve in curves]
            if not any(active):
                break
            # What fills up stands still.
            own["active"] = jnp.asarray(active + [False] * len(spare))
            rows = [curve.train_rows() for curve in curves]
            rows = jax.device_put(_stack([*rows, *(rows[i] for i in spare)]))
            state, sums = epochs[0]((state, _copy(zeros)), shared, own, rows)
            state, val_sums = epochs[1]((state, _copy(zeros)), shared, own, val)
            sums, val_sums = jax.device_get((sums, val_sums))
            chosen = [False] * size
            for m, curve in enumerate(curves):
                if not active[m]:
                    continue
                chosen[m] = curve.end_epoch(_of_model(sums, m), _of_model(val_sums, m))
                left = curve.trial.recipe.epochs - epoch
                self._count.add(left if curve.reason else 1)
            selected = _choose(jnp.asarray(chosen), state.eval_variables, selected)
        seconds = (time.monotonic() - began) / len(trials)
        variables = jax.device_get(selected)
        runs = []
        for m, curve in enumerate(curves):
            run = Run(curve.history, curve.reason, seconds)
            row = curve.history[curve.selected]
            runs.append(curve.trial.write(run, _of_model(variables, m), row))
        return runs

    def _models_that_fit(self, step: SweepStep, shared: PyTree) -> int:
        """How many models the device's free memory holds, by the program for one."""
        stats = jax.local_devices()[0].memory_stats() or {}
        if "bytes_limit" not in stats:
            return len(self.trials)
        trial = self.trials[0]
        own = self._own(trial)
        carry, own, rows = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *np.shape(x)), jnp.result_type(x)),
            (
                (jax.eval_shape(self._make_state, np.uint32(0), own), _no_sums()),
                {**own, "active": True},
                _Curve(trial).train_rows(),
            ),
        )
        program = sweep_epoch(step).lower(carry, shared, own, rows)
        needed = program.compile().memory_analysis()
        each = needed.temp_size_in_bytes + needed.output_size_in_bytes
        each += sum(
            math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(rows)
        )
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
        return max(1, min(len(self.trials), int(MEMORY_SHARE * free / max(each, 1))))

    def _make_state(self, seed: jax.Array, own: Mapping[str, Any]) -> TrainState:
        trial = self.trials[0]
        variables = init_variables(
            trial.make_model(self._still), seed, trial.image_shape
        )
        if trial.recipe.output_biases:
            classes = len(trial.dataset.classes)
            frequencies = class_frequencies(trial.train_labels, classes)
            variables = set_output_biases(variables, frequencies)
        decay = own["ema_decay"] if trial.recipe.ema_decay else None
        state = create_state(variables, self._tx, seed=seed, ema_decay=decay)
        return state.with_hyperparams(weight_decay=own["weight_decay"])

    def _own(self, trial: _Trial) -> dict[str, Any]:
        """The numbers that only this trial has."""
        return {
            "rates": {name: np.float32(trial.rates[name]) for name in self._varied},
            "mixed": {k: np.float32(v) for k, v in trial.mixed.items()},
            "weight_decay": np.float32(trial.recipe.optim.weight_decay),
            "ema_decay": np.float32(trial.recipe.ema_decay),
        }

    def _batches(self, trial: _Trial, split: str) -> Batches:
        train, indices = split == "train", trial.dataset.splits[split]
        augmented = trial.augmented() if train else None
        return augmented or Batches.of_arrays(
            self._images,
            trial.dataset.labels,
            indices,
            batch_size=trial.recipe.batch_size
            if train
            else min(len(indices), EVALUATION_BATCH),
            seed=trial.seed,
            train=train,
        )

    def _make_steps(self) -> tuple[TrainStep, EvalStep]:
        """Training and evaluation, in which what a sweep varies is data: a training
        batch holds `rates`, `mixed` and `learning_rate` too."""
        trial, tx, still = self.trials[0], self._tx, self._still
        normalize = trial.dataset.preprocessing.normalize
        classes = len(trial.dataset.classes)
        loss = make_loss(trial.recipe, trial.train_labels, classes)

        def train(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            images = dict(batch)
            rates, learning_rate = images.pop("rates"), images.pop("learning_rate")
            mix = make_mix(**images.pop("mixed"))
            model = trial.make_model({**still, **rates})
            step = make_train_step(model, tx, loss, normalize=normalize, mix=mix)
            return step(state.with_hyperparams(learning_rate=learning_rate), images)

        return train, make_eval_step(trial.make_model({}), loss, normalize=normalize)

    def _sweep_steps(self) -> tuple[SweepStep, SweepStep]:
        """The same for one model of many: images come by index, metrics add up."""

        def batch(shared: PyTree, row: PyTree) -> dict[str, jax.Array]:
            image = row["image"] if "image" in row else shared["image"][row["index"]]
            label = shared["label"][row["index"]]
            return {"image": image, "label": label, "mask": row["mask"]}

        def train(carry: PyTree, shared: PyTree, own: PyTree, row: PyTree) -> PyTree:
            state, sums = carry
            varied = {
                "rates": own["rates"],
                "mixed": own["mixed"],
                "learning_rate": row["learning_rate"],
            }
            state, metrics = self._train(state, {**batch(shared, row), **varied})
            return state, jax.tree.map(jnp.add, sums, metrics)

        def evaluate(carry: PyTree, shared: PyTree, own: PyTree, row: PyTree) -> PyTree:
            state, sums = carry
            metrics, _ = self._eval(state.eval_variables, batch(shared, row))
            added = {name: sums[name] + metrics[name] for name in _SUMS}
            return state, {**sums, **added}

        return train, evaluate


class _TrialBatches:
    """The training batches of one trial, each with the numbers of its step."""

    def __init__(self, trial: _Trial, batches: Batches, own: Mapping[str, Any]) -> None:
        self.num_examples = batches.num_examples
        self.steps_per_epoch = batches.steps_per_epoch
        self.batch_size = batches.batch_size
        self._batches = batches
        self._learning_rates = trial.learning_rates().ravel()
        self._own = {name: own[name] for name in ("rates", "mixed")}

    def iterate(self, start: int = 0) -> Iterator[Any]:
        last = len(self._learning_rates) - 1
        with self._batches.iterate(start) as batches:
            for step, batch in enumerate(batches, start):
                # One batch more is made ahead than is trained on.
                rate = self._learning_rates[min(step, last)]
                yield {**batch, **self._own, "learning_rate": rate}


class _Curve:
    """One of the trials under way at once: its steps and its history."""

    def __init__(self, trial: _Trial) -> None:
        self.trial = trial
        self.history: list[Row] = []
        self.reason = ""
        self.selected = 0
        self._score = WORST
        self._rates = trial.learning_rates()
        augmented = trial.augmented()
        self._augmented = None if augmented is None else augmented.iterate()

    def train_rows(self) -> dict[str, np.ndarray]:
        """The steps of the next epoch, in the order of `fit`; lead with `[S, ...]`."""
        trial, epoch = self.trial, min(len(self.history), len(self._rates) - 1)
        train, size = trial.dataset.splits["train"], trial.recipe.batch_size
        places, mask = epoch_places(len(train), size, seed=trial.seed, epoch=epoch)
        rows = {
            "index": train[places].astype(np.int32),
            "mask": mask,
            "learning_rate": self._rates[epoch],
        }
        if self._augmented is not None:
            images = [next(self._augmented)["image"] for _ in range(len(places))]
            rows["image"] = np.stack(images)
        return rows

    def end_epoch(self, sums: Mapping[str, Any], val: Mapping[str, Any]) -> bool:
        """Adds a row; sets `reason` if it is the last one.

        Returns:
          Whether the epoch is the one that the recipe selects, so far.
        """
        recipe, epoch = self.trial.recipe, len(self.history)
        step = (epoch + 1) * self.trial.steps_per_epoch
        rate = float(self._rates[epoch, -1])
        self.history.append(epoch_row(epoch + 1, step, sums, val, rate))
        self.reason = end_reason(
            self.history, epochs=recipe.epochs, patience=recipe.patience
        )
        if float(sums["nonfinite"]):
            self.reason = NOT_FINITE
        if self.reason and self._augmented is not None:
            self._augmented.close()
        score = val_score(self.history[-1])
        chosen = recipe.select == "last" or score > self._score
        if chosen:
            self.selected, self._score = epoch, score
        return chosen


class _Count:
    """Epochs done by all threads, for the progress bar; and the wish to stop."""

    def __init__(self, total: int, progress: Progress | None) -> None:
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


class _CountEpochs(Callbacks):
    """Counts the epochs of one trial; all that were planned, when it ends."""

    def __init__(self, count: _Count, epochs: int) -> None:
        super().__init__()
        self._count, self._left = count, epochs

    def on_epoch_end(self, row: Row) -> None:
        self._left -= 1
        self._count.add(1)

    def on_finish(self, reason: str) -> None:
        if self._left:
            self._count.add(self._left)


def _one_by_one(programs: Sequence[_Program], count: _Count) -> list[Run]:
    """Every trial alone, as many at the same time as there are cores.

    One small network keeps one core busy; XLA finds no work for the others in it.
    """
    with ThreadPoolExecutor(_cores(), thread_name_prefix="sweep") as pool:
        futures = [
            pool.submit(program.alone, trial)
            for program in programs
            for trial in program.trials
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


def _write(trial: _Trial, result: FitResult, seconds: float) -> Run:
    """Keeps what `fit_steps` gave."""
    history = [
        {name: value for name, value in row.items() if name not in _TIMINGS}
        for row in result.history
    ]
    run = Run(history, result.reason, seconds)
    return trial.write(run, result.state.variables, history[result.best_epoch - 1])


def _val_rows(trial: _Trial) -> dict[str, np.ndarray]:
    """The validation images in order, the last batch filled up."""
    val = trial.dataset.splits["val"]
    size = min(len(val), EVALUATION_BATCH)
    places = np.arange(-(-len(val) // size) * size)
    mask = (places < len(val)).astype(np.float32)
    index = val[np.minimum(places, len(val) - 1)].astype(np.int32)
    return {"index": index.reshape(-1, size), "mask": mask.reshape(-1, size)}


def _all_images(dataset: DecodedDataset) -> np.ndarray:
    """`[N, H, W, C]` uint8."""
    return np.stack([dataset.image(index) for index in range(len(dataset.images))])


def _key(start: Start, datasets: Mapping[int, DecodedDataset]) -> str:
    """One name for a recipe on these images."""
    fingerprint = next(iter(datasets.values())).fingerprint
    facts = to_plain({"recipe": _spelled_out(start.recipe), "data": fingerprint})
    content = json.dumps(facts, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _spelled_out(recipe: Recipe) -> Recipe:
    """The recipe with all options of its network: what says the same is equal."""
    return recipe.replace(options=with_defaults(recipe.network, recipe.options))


def _no_sums() -> dict[str, jax.Array]:
    return {name: jnp.zeros(()) for name in (*_SUMS, "nonfinite")}


def _copy(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.copy, tree)


@functools.partial(jax.jit, donate_argnums=2)
def _choose(chosen: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """For each of `[M]` models its leaves of `new` or of `old`."""

    def choose(n: jax.Array, o: jax.Array) -> jax.Array:
        return jnp.where(chosen.reshape(-1, *[1] * (n.ndim - 1)), n, o)

    return jax.tree.map(choose, new, old)


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _of_model(tree: PyTree, model: int) -> PyTree:
    return jax.tree.map(lambda x: np.array(x[model]), tree)
