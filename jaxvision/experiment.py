"""The engine: trains the recipes of an experiment with every seed.

results = run_experiment(EXPERIMENT, default_config(EXPERIMENT))

`run_experiment` trains what is not trained yet and writes the run folder; nothing else
does this. What an experiment declares stands in `declaration`.
"""

import atexit
import contextlib
import dataclasses
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision import config as config_module
from jaxvision.config import from_plain, to_plain
from jaxvision.crossval import check_folds, cross_validate_seed, doubts_of_folds
from jaxvision.data.config import DataConfig, DemoKind
from jaxvision.data.dataset import DecodedDataset, load_dataset
from jaxvision.declaration import DEMO_SETS, Experiment, Table, default_config
from jaxvision.errors import InputError
from jaxvision.preprocessing import Preprocessing
from jaxvision.recipe import (
    Start,
    as_begun,
    check_classes,
    doubts,
    make_start,
    train_seed,
)
from jaxvision.report.formats import format_count, format_line, format_names
from jaxvision.report.progress import Progress, TrainingProgress
from jaxvision.report.run_folder import (
    HistoryCallback,
    RunFolder,
    folder_name,
)
from jaxvision.results import Results, Trial
from jaxvision.settings import DistributedConfig, Recipe, RunConfig
from jaxvision.storage import write_json
from jaxvision.training.checkpoint import training_alone
from jaxvision.training.distributed import (
    broadcast,
    check_same,
    is_main_process,
    main_process_first,
)
from jaxvision.training.loop import Callbacks, Interrupted
from jaxvision.training.sweep import run_sweep

CONFIG = "config.json"
"""Settings of a run, in its run folder and in its checkpoint folder."""


def run_experiment(
    experiment: Experiment,
    config: RunConfig,
    *,
    recipe: Recipe | None = None,
    options: Any = None,
    epochs: int | None = None,
    resume_command: Callable[[Path], str] | None = None,
) -> Results:
    """Trains every recipe with every seed, and writes run folder and report.

    Args:
      experiment: what to train.
      config: where, how often, on what.
      recipe: in place of the experiment's own.
      options: of the type `experiment.options`; None: its defaults.
      epochs: of a run that is resumed, where it is to go on for longer than it was
        begun for; None: no longer.
      resume_command: checkpoint folder -> the command that continues the run, for the
        report.

    Raises:
      InputError: bad settings, images or weights, or another process trains in the
        folder that is resumed; before training starts.
      Stopped: on Ctrl-C or SIGTERM, after saving.
    """

    def write(results: Results, seconds: float) -> None:
        # What draws figures takes a second to import: training need not wait for it.
        from jaxvision.report.sections import write_run

        write_run(results, seconds, resume_command=resume_command)

    with contextlib.ExitStack() as held:
        engine = _Engine(
            experiment,
            config,
            recipe or experiment.recipe,
            options or (experiment.options and experiment.options()),
            epochs,
            held,
        )
        return engine.run(write)


class Stopped(Exception):
    """A run was asked to stop, and can be continued.

    folder: its checkpoint folder; None: the same command continues it.
    signal_number: of the signal that asked for it.
    """

    def __init__(self, folder: Path | None, signal_number: int) -> None:
        super().__init__("stopped")
        self.folder, self.signal_number = folder, signal_number


class _Engine:
    """One run of an experiment."""

    def __init__(
        self,
        experiment: Experiment,
        config: RunConfig,
        recipe: Recipe | None,
        options: Any,
        epochs: int | None,
        held: contextlib.ExitStack,
    ) -> None:
        """held: what is held until the run ends, that is its folder of networks."""
        self._experiment = experiment
        self._held = held
        self._given = config
        self._config, self._recipe, self._options = _resumed(
            experiment, config, recipe, options
        )
        self._grows = epochs is not None
        if epochs is not None:
            self._config, self._recipe = _grown(self._config, self._recipe, epochs)
        self._decoded: tuple[Preprocessing, DecodedDataset] | None = None
        self._doubts: dict[str, None] = {}
        """What was warned of, in that order."""
        self._folders: tuple[RunFolder, Path] | None = None

    def run(self, write: Callable[[Results, float], None]) -> Results:
        began = time.monotonic()
        experiment, config = self._experiment, self._config
        config_module.check(config)
        if self._options is not None:
            config_module.check(self._options)
        if not config.seeds:
            raise InputError("give at least one", setting="seeds")
        if len(set(config.seeds)) != len(config.seeds):
            raise InputError("names one twice", setting="seeds", value=config.seeds)
        if config.resume is not None:
            self._held.enter_context(training_alone(config.resume))
        tables = self._tables()
        with main_process_first():
            starts = {
                (name, row): make_start(recipe)
                for name, table in tables.items()
                for row, recipe in table.recipes.items()
            }
            missing = _missing_weights(starts)
            draw_demo(config.data, DEMO_SETS[experiment.dataset])
        starts = {key: start for key, start in starts.items() if key[1] not in missing}
        for row, reason in missing.items():
            print(f"{row}: left out: {reason}", file=sys.stderr)
        if experiment.tables is None:
            # What was chosen is recorded: the network that was "auto", and its layer.
            (start,) = starts.values()
            self._recipe = start.recipe
        self._dataset = load_dataset(
            config.data, demo_kind=DEMO_SETS[experiment.dataset]
        )
        if experiment.check is not None:
            experiment.check(self._dataset, self._options)
        folds = config.data.folds is not None
        train = self._sweep if experiment.sweep and not folds else self._one_by_one
        trials = train(tables, starts)
        run, folder = self._open_folders()
        dataset = self._decode(
            next(iter(starts.values())).preprocessing, config.seeds[0]
        )
        results = Results(
            experiment,
            config,
            self._recipe,
            self._options,
            tables,
            trials,
            missing,
            dataclasses.replace(dataset, notes=(*dataset.notes, *self._doubts)),
            run,
            folder,
        )
        if is_main_process():
            write(results, time.monotonic() - began)
        return results

    def _tables(self) -> dict[str, Table]:
        """The experiment's tables, with the rows and epochs that the config allows."""
        config = self._config
        tables = self._experiment.tables_of(self._recipe, self._options)
        known = [row for table in tables.values() for row in table.recipes]
        if unknown := [row for row in config.rows if row not in known]:
            raise InputError(
                f"no such row; there are {', '.join(known)}",
                setting="rows",
                value=unknown[0],
            )

        def chosen(table: Table) -> Table:
            recipes = {
                row: recipe.replace(epochs=min(recipe.epochs, config.max_epochs))
                if config.max_epochs
                else recipe
                for row, recipe in table.recipes.items()
                if not config.rows or row in config.rows or row == table.reference
            }
            return dataclasses.replace(table, recipes=recipes)

        found = {name: chosen(table) for name, table in tables.items()}
        return {name: table for name, table in found.items() if table.recipes}

    def _decode(self, preprocessing: Preprocessing, seed: int) -> DecodedDataset:
        """The images in a geometry and in the split of a seed; decoded once."""
        if self._decoded is None or self._decoded[0] != preprocessing:
            self._decoded = None  # its images, before others come
            with Progress("reading images", unit="images") as progress:
                decoded = self._dataset.decode(preprocessing, progress=progress)
            announce(decoded)
            check_same("images", decoded.fingerprint)
            self._decoded = preprocessing, decoded
        return self._decoded[1].with_seed(seed)

    def _decode_begun(self, start: Start, label: str, seed: int) -> DecodedDataset:
        """The images in the split of a seed, or in the one that it was begun with."""
        dataset = self._decode(start.preprocessing, seed)
        if (resumed := self._config.resume) is None:
            return dataset
        return as_begun(dataset, resumed / folder_name(label) / f"seed-{seed}")

    def _doubted(self, start: Start, dataset: DecodedDataset) -> DecodedDataset:
        """The data set with what is doubtful about training on it among its notes;
        printed the first time."""
        folds = dataset.config.folds is not None
        found = doubts_of_folds(start, dataset) if folds else doubts(start, dataset)
        for doubt in found:
            if doubt not in self._doubts and is_main_process():
                print(f"warning: {doubt}", file=sys.stderr)
            self._doubts[doubt] = None
        return dataclasses.replace(dataset, notes=(*dataset.notes, *found))

    def _one_by_one(
        self, tables: Mapping[str, Table], starts: Mapping[tuple[str, str], Start]
    ) -> dict[tuple[str, str], list[Trial]]:
        """Every recipe with every seed, each network by itself."""
        trials: dict[tuple[str, str], list[Trial]] = {}
        for key, start in starts.items():
            label = "/".join(filter(None, key))
            if label:
                print(f"{label}:")
            with main_process_first():
                pretrained = start.load_weights()
            # Folders are made when all that was given is known to be usable.
            dataset = self._decode_begun(start, label, self._config.seeds[0])
            if self._config.data.folds is not None:
                for seed in self._config.seeds:
                    check_folds(start.recipe, self._decode(start.preprocessing, seed))
                _, folder = self._open_folders()
                with self._stoppable(folder):
                    trials[key] = [
                        self._cross_validate(start, pretrained, folder, label, seed)
                        for seed in self._config.seeds
                    ]
                continue
            check_classes(start.recipe, dataset)
            _check_held_out(dataset, "val", "test")
            run, folder = self._open_folders()
            trials[key] = []
            part = _part(run, label, start.recipe, self._config.tensorboard)
            for seed in self._config.seeds:
                with self._stoppable(folder):
                    trials[key].append(
                        self._train(start, pretrained, part, folder, label, seed)
                    )
        return trials

    def _cross_validate(
        self, start: Start, pretrained: Any, checkpoint: Path, label: str, seed: int
    ) -> Trial:
        began = time.monotonic()
        dataset = self._doubted(start, self._decode(start.preprocessing, seed))
        found = cross_validate_seed(
            start,
            dataset,
            pretrained,
            seed=seed,
            folder=checkpoint / folder_name(label) / f"seed-{seed}",
            save_seconds=self._config.save_seconds,
        )
        print(f"seed {seed}: {found.accuracy:.3f}")
        seconds = time.monotonic() - began
        return Trial(
            start.recipe, seed, (), seconds, None,
            dataset=dataset, evaluations={"fold": found},
        )  # fmt: skip

    def _train(
        self,
        start: Start,
        pretrained: Any,
        run: RunFolder,
        checkpoint: Path,
        label: str,
        seed: int,
    ) -> Trial:
        folder = checkpoint / folder_name(label)
        dataset = self._doubted(start, self._decode_begun(start, label, seed))
        history = run.read_history(seed=seed)
        with TrainingProgress(title=f"seed {seed}", history=history) as progress:
            classifier, evaluations = train_seed(
                start,
                dataset,
                pretrained,
                seed=seed,
                folder=folder / f"seed-{seed}",
                callback=Callbacks(progress, HistoryCallback(run, seed=seed)),
                save_seconds=self._config.save_seconds,
                measure_train=self._config.measure_train,
            )
        figures = ", ".join(
            f"{name} {one.accuracy:.3f}" for name, one in evaluations.items()
        )
        print(f"seed {seed}: {figures}")
        history = run.read_history(seed=seed)
        return Trial(
            start.recipe,
            seed,
            history,
            math.fsum(row["seconds"] for row in history),
            folder / f"seed-{seed}",
            dataset=dataset,
            classifier=classifier,
            evaluations=evaluations,
        )

    def _sweep(
        self, tables: Mapping[str, Table], starts: Mapping[tuple[str, str], Start]
    ) -> dict[tuple[str, str], list[Trial]]:
        """All recipes with all seeds at once."""
        config, experiment = self._config, self._experiment
        preprocessing = next(iter(starts.values())).preprocessing
        datasets = {seed: self._decode(preprocessing, seed) for seed in config.seeds}
        for dataset in datasets.values():
            _check_held_out(dataset, "val")
            for start in starts.values():
                self._doubted(start, dataset)
        saved = [key for key in starts if key[1] in tables[key[0]].save]
        with (
            self._stoppable(None),
            Progress(f"section {experiment.section}", unit="epochs") as progress,
        ):
            runs = run_sweep(
                list(starts.values()),
                datasets,
                store=config.checkpoints / "sweeps",
                save=[starts[key] for key in saved],
                progress=progress,
            )
        return {
            key: [
                Trial(
                    starts[key].recipe, seed, run.history, run.seconds, run.folder,
                    run.reused,
                )
                for seed, run in zip(config.seeds, several, strict=True)
            ]
            for key, several in zip(starts, runs, strict=True)
        }  # fmt: skip

    def _open_folders(self) -> tuple[RunFolder, Path]:
        """The folders for the report and for the networks: new, or those it had."""
        if self._folders is None:
            self._folders = self._make_folders()
        return self._folders

    def _make_folders(self) -> tuple[RunFolder, Path]:
        config, name = self._config, self._experiment.name
        if not is_main_process():
            # What the other processes write is what the first one writes too.
            scratch = Path(tempfile.mkdtemp(prefix="jaxvision-"))
            atexit.register(shutil.rmtree, scratch, ignore_errors=True)
            config = dataclasses.replace(
                config, runs=scratch / "runs", checkpoints=scratch, resume=None
            )
        tensorboard = config.tensorboard
        if config.resume is not None:
            path = config.runs / name / config.resume.name
            if path.is_dir():
                run = RunFolder.open(path, tensorboard=tensorboard)
                if self._grows:
                    self._write_settings(run, config.resume)
                return run, config.resume
        own = config.checkpoints / name
        run = RunFolder.create(
            name,
            root=config.runs,
            name=config.resume.name if config.resume is not None else None,
            networks=own if config.resume is None and self._resumable else None,
            tensorboard=tensorboard,
        )
        folder = config.resume or own / run.path.name
        self._write_settings(run, folder)
        if config.resume is None and self._resumable:
            self._held.enter_context(training_alone(folder))
        return run, folder

    @property
    def _resumable(self) -> bool:
        """Whether the run has a checkpoint folder, by which it can be continued."""
        return not self._experiment.sweep or self._config.data.folds is not None

    def _write_settings(self, run: RunFolder, folder: Path) -> None:
        """Writes the settings into the run folder and into that of the networks."""
        settings = self._settings()
        run.write_config(settings)
        if self._resumable:
            # Which processes trained it does not matter to those that continue it.
            write_json(
                folder / CONFIG,
                {**settings, "distributed": to_plain(DistributedConfig())},
            )

    def _settings(self) -> dict[str, Any]:
        """All settings of the run as plain values."""
        settings = to_plain(self._config)
        if self._recipe is not None:
            settings["recipe"] = to_plain(self._recipe)
        if self._options is not None:
            settings["options"] = to_plain(self._options)
        return settings

    @contextlib.contextmanager
    def _stoppable(self, folder: Path | None) -> Iterator[None]:
        try:
            yield
        except Interrupted as stop:
            raise Stopped(folder, stop.signal_number) from stop
        except KeyboardInterrupt as stop:
            raise Stopped(folder, signal.SIGINT) from stop
        except BrokenPipeError as stop:  # whoever read the output has gone
            raise Stopped(folder, signal.SIGPIPE) from stop


def _resumed(
    experiment: Experiment, config: RunConfig, recipe: Recipe | None, options: Any
) -> tuple[RunConfig, Recipe | None, Any]:
    """The settings of the run that `resume` names; else those that were given."""
    folder = config.resume
    if folder is None:
        return config, recipe, options
    defaults = dataclasses.replace(
        default_config(experiment),
        resume=folder,
        distributed=config.distributed,
        data=dataclasses.replace(
            default_config(experiment).data, root=config.data.root
        ),
    )
    own = experiment.options and experiment.options()
    if (config, recipe, options) != (defaults, experiment.recipe, own):
        raise InputError(
            "continues with the settings of that run; drop the other ones",
            setting="resume",
        )
    plain = broadcast(_read_settings(folder) if is_main_process() else {})
    try:
        recipe_plain = plain.pop("recipe", None)
        options_plain = plain.pop("options", None)
        found = from_plain(RunConfig, plain)
        if recipe_plain is not None:
            recipe = from_plain(Recipe, recipe_plain)
        if options_plain is not None:
            options = from_plain(type(own), options_plain)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / CONFIG}: damaged ({error}); start a new run"
        ) from error
    data = found.data
    if config.data.root is not None:
        data = dataclasses.replace(data, root=config.data.root)
    found = dataclasses.replace(
        found, resume=folder, distributed=config.distributed, data=data
    )
    return found, recipe, options


def _grown(
    config: RunConfig, recipe: Recipe | None, epochs: int
) -> tuple[RunConfig, Recipe | None]:
    """The settings of a resumed run that goes on to more epochs; prints what follows.

    Raises:
      InputError: no run is resumed, or it has more epochs already.
    """
    if config.data.folds is not None:
        raise InputError(
            "a cross-validation keeps no network to train on; start a new run",
            setting="epochs",
            value=epochs,
        )
    before = config.max_epochs if recipe is None else recipe.epochs
    if config.resume is None or before is None:
        raise InputError(
            "every row has its own already; drop it", setting="epochs", value=epochs
        )
    if epochs < before:
        raise InputError(
            f"the run was begun with {before}: give more, or start a new run",
            setting="epochs",
            value=epochs,
        )
    if epochs > before:
        print(
            f"trained on from {before} epochs to {epochs}; what was finished is "
            "measured again, on the same splits"
        )
    if recipe is None:
        return dataclasses.replace(config, max_epochs=epochs), None
    follows = {
        "the cosine schedule is that": recipe.schedule.kind == "cosine",
        "the smaller image sizes are those": bool(recipe.progressive_sizes),
    }
    for what in (what for what, there in follows.items() if there):
        if epochs > before:
            print(
                f"{what} of {epochs} epochs from here on, so the result is not that of "
                f"{epochs} epochs at once"
            )
    return config, recipe.replace(epochs=epochs)


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"no run to continue there (no {CONFIG}); give the folder that training "
            "named, checkpoints/<experiment>/<time>",
            setting="resume",
            value=folder,
        )
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); start a new run") from error


def _missing_weights(starts: Mapping[tuple[str, str], Start]) -> dict[str, str]:
    """Rows of a table whose pretrained weights are out of reach, with the reason.

    Raises:
      InputError: no row is left, or weights that were given as a file are not usable.
    """
    if len(starts) == 1:
        return {}  # its error comes when it is trained
    missing = {}
    for (_, row), start in starts.items():
        try:
            start.load_weights()
        except InputError as error:
            if start.recipe.weights is not None:
                raise
            missing[row] = str(error)
    if len(missing) == len(starts):
        raise InputError(f"no pretrained weights: {'; '.join(missing.values())}")
    return missing


def draw_demo(data: DataConfig, kind: DemoKind) -> None:
    """Draws the built-in set where no images are given, unless it is there already."""
    from jaxvision.data.demo import DemoConfig, demo_folder, write_demo

    if data.root is not None or data.labels is not None:
        return
    with Progress("drawing demo images", unit="images") as progress:
        write_demo(DemoConfig(kind, demo_folder(kind)), progress=progress)


def announce(dataset: DecodedDataset) -> None:
    """Prints which images are used, and on stderr which are left out."""
    print(
        f"{dataset.name}: {len(dataset.images)} images of "
        f"{len(dataset.classes)} classes in {dataset.root}"
        + (" — demo data, drawn by code" if dataset.is_demo else "")
    )
    print(f"classes: {format_names(dataset.classes)}")
    if dataset.config.folds is None:
        sizes = (f"{name} {len(part)}" for name, part in dataset.splits.items())
        print(f"images per split: {', '.join(sizes)}")
    else:
        folds = map(str, np.bincount(dataset.fold))
        print(f"images per fold: {', '.join(folds)}")
    for note in dataset.notes:
        print(format_line(note))
    for kind, count in dataset.ignored.items():
        print(f"ignored: {kind} ({count})", file=sys.stderr)
    for path, reason in dataset.bad:
        print(format_line(f"left out: {path}: {reason}"), file=sys.stderr)
    if dataset.pairs_note:
        print(dataset.pairs_note)
    if dataset.duplicates:
        print(
            f"{format_count(len(dataset.duplicates), 'group')} of identical images, "
            f"kept together; {len(dataset.conflicts)} in several classes",
            file=sys.stderr,
        )
    if dataset.similar:
        apart = sum(pair.split != pair.other_split for pair in dataset.similar)
        parts = "splits" if dataset.config.folds is None else "folds"
        print(
            f"{format_count(len(dataset.similar), 'pair')} of nearly identical images, "
            f"{apart} in different {parts} (similar_images.csv in the run folder)",
            file=sys.stderr,
        )


def _check_held_out(dataset: DecodedDataset, *splits: str) -> None:
    """Raises InputError where none of the splits has images to measure by."""
    if not any(len(dataset.splits[split]) for split in splits):
        raise InputError(
            f"{dataset.root}: no image is in the split {' or '.join(splits)}, so there "
            "is nothing to measure by; raise `data.split.val`, or change the splits"
        )


def _part(run: RunFolder, row: str, recipe: Recipe, tensorboard: bool) -> RunFolder:
    """The run folder of one row, within that of the run; the run's own for no row."""
    if not row:
        return run
    path = run.path / folder_name(row)
    if path.is_dir():
        return RunFolder.open(path, tensorboard=tensorboard)
    part = RunFolder.create(
        f"{run.experiment}/{run.path.name}",
        root=run.path.parents[1],
        name=path.name,
        tensorboard=tensorboard,
    )
    part.write_config(to_plain(recipe))
    return part
