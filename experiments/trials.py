"""The trials of a study, on Optuna: drawn, shared, taken over, told.

A study lies in a database that any number of processes use at a time. Whoever asks for
a trial first looks for one whose process has died: it is marked as failed, and its
settings are tried again by the asker, whose training finds the checkpoints. A process
of this machine is known to be dead by its lock, which no killed process holds; one of
another machine, by its signs of life.

Optuna's samplers keep the state of their random numbers in memory; a study that is
continued would draw its first trials again. So each trial is drawn by a sampler of its
own, seeded with the study's seed and the trial's place in the study: what is drawn
depends on those and on the finished trials alone.
"""

import contextlib
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import filelock
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from jaxvision.errors import InputError
from jaxvision.report.run_folder import command_line
from jaxvision.storage import writing

if TYPE_CHECKING:
    from experiments.common import Range
    from experiments.tuning import TuneConfig

STALE_SECONDS = 900.0
"""Without a sign of life for so long, a process on another machine counts as dead."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_WORKER, _SEEN, _ORIGIN, _ENDED = "worker", "seen", "origin", "ended"
"""Attributes of a trial: whose it is, its last sign of life, the trial whose settings
and checkpoints it took over, and how it ended."""


class SharedStudy:
    """A study, and this process's part in it; use it inside `with`.

    name: in the database.
    shown_url, shown_command: without passwords.
    """

    def __init__(
        self,
        name: str,
        url: str,
        folder: Path,
        config: "TuneConfig",
        ranges: Mapping[str, "Range"],
        *,
        first: Mapping[str, float],
    ) -> None:
        """Opens or begins a study.

        Args:
          name: of the study in the database.
          url: of the database.
          folder: where processes of this machine (or of a shared disk) find each
            other's locks.
          config: how trials are drawn and given up.
          ranges: what a trial may vary.
          first: the settings of the first trial; left out where they are out of range.

        Raises:
          InputError: the database or the folder cannot be used.
        """
        self.name = name
        self.ranges = dict(ranges)
        self.config = config
        self._first = dict(first)
        self._folder = folder
        with writing(folder):
            (folder / "workers").mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / "study.lock")
        self._worker = uuid.uuid4().hex
        self._alive = self._lock_of(self._worker)
        try:
            self.shown_url = make_url(url).render_as_string(hide_password=True)
        except ArgumentError as error:
            raise InputError(
                f"--tune.storage {url}: no URL of a database; it looks like "
                "sqlite:///studies.db or postgresql://user:password@host/name"
            ) from error
        self.shown_command = command_line().replace(url, self.shown_url)
        with self._lock, _storage_errors(self.shown_url):
            self._study = _open(name, url, config)

    def __enter__(self) -> Self:
        self._alive.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alive.release()
        if kind is None:
            # Else a trial is under way, and the free lock says that it can be had.
            Path(self._alive.lock_file).unlink(missing_ok=True)

    @property
    def finished(self) -> int:
        """Finished trials."""
        return len(self.trials())

    def trials(self) -> list[FrozenTrial]:
        """Finished trials, in the order in which they were begun."""
        with _storage_errors(self.shown_url):
            return self._study.get_trials(deepcopy=False, states=FINISHED)

    def interrupted(self) -> int:
        """How many times a process died in a trial, which was then taken over."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))

    def finished_origins(self) -> list[int]:
        """Numbers under which finished trials were begun first."""
        return [self.origin(trial) for trial in self.trials()]

    @staticmethod
    def origin(trial: "optuna.Trial | FrozenTrial") -> int:
        """Number under which a trial's settings were tried first."""
        return trial.user_attrs.get(_ORIGIN, trial.number)

    @staticmethod
    def ended(trial: FrozenTrial) -> str:
        """How a finished trial ended: "whole", "given up" or "diverged"."""
        return trial.user_attrs[_ENDED]

    def next_trial(self) -> optuna.Trial | None:
        """A trial with settings to try; None where enough are finished or under way."""
        with self._lock, _storage_errors(self.shown_url):
            trials = self._study.get_trials(deepcopy=False)
            self._take_over(trials)
            begun = sum(
                t.state in (*FINISHED, TrialState.RUNNING)
                for t in self._study.get_trials(deepcopy=False)
            )
            if begun >= self.config.trials:
                return None
            mine = {_WORKER: self._worker, _SEEN: time.time()}
            if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                # Enqueued, so that it is ours from its first moment on.
                settings = {} if trials else self._first_settings()
                self._study.enqueue_trial(settings, user_attrs=mine)
            trial = self._study.ask(_distributions(self.ranges))
            for name, value in mine.items():
                trial.set_user_attr(name, value)
            return trial

    def beat(self, trial: optuna.Trial) -> None:
        """Says to other machines that the trial is being worked on."""
        with _storage_errors(self.shown_url):
            trial.set_user_attr(_SEEN, time.time())

    def report(self, trial: optuna.Trial, score: float, step: int) -> None:
        """Says what a trial has reached after its epoch `step`, from 1."""
        with _storage_errors(self.shown_url):
            trial.report(score, step)

    def is_hopeless(self, trial: optuna.Trial) -> bool:
        """Whether what was reported last is too far behind other trials."""
        with _storage_errors(self.shown_url):
            return trial.should_prune()

    def tell(self, trial: optuna.Trial, score: float | None, ended: str) -> None:
        """Ends a trial; when this returns, it is in the database.

        Args:
          score: what it reached; None: nothing.
          ended: "whole", "given up" or "diverged".
        """
        # A Gaussian process learns from complete trials only: what was given up counts
        # for it with what it had reached.
        learns = ended == "whole" or (self.config.sampler == "gp" and score is not None)
        with _storage_errors(self.shown_url):
            trial.set_user_attr(_ENDED, ended)
            if learns:
                self._study.tell(trial, score)
            else:
                self._study.tell(trial, state=TrialState.PRUNED)

    def importances(self) -> dict[str, float]:
        """Share of the score's variance that each setting explains; nothing where too
        few trials are whole for that.

        By fANOVA: Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html.
        """
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len({trial.value for trial in complete}) < 4 or len(self.ranges) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)

    def _first_settings(self) -> dict[str, float]:
        inside = all(
            self.ranges[name].low <= value <= self.ranges[name].high
            for name, value in self._first.items()
        )
        return self._first if inside else {}

    def _take_over(self, trials: list[FrozenTrial]) -> None:
        for trial in trials:
            if trial.state != TrialState.RUNNING or not self._is_abandoned(trial):
                continue
            try:
                self._study.tell(trial.number, state=TrialState.FAIL)
            except ValueError:
                continue  # somebody was quicker
            settings = trial.params
            if len(settings) < len(self.ranges):
                # It died while it was drawn; drawn again, it is the same.
                settings = {} if self.origin(trial) else self._first_settings()
            self._study.enqueue_trial(
                settings,
                user_attrs={
                    _WORKER: self._worker,
                    _SEEN: time.time(),
                    _ORIGIN: self.origin(trial),
                },
            )

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        lock = self._lock_of(trial.user_attrs[_WORKER])
        if Path(lock.lock_file).exists():
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                return False
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
            return True
        return time.time() - trial.user_attrs[_SEEN] > STALE_SECONDS

    def _lock_of(self, worker: str) -> filelock.BaseFileLock:
        return filelock.FileLock(self._folder / "workers" / f"{worker}.lock")


class SeededByPlace(optuna.samplers.BaseSampler):
    """Draws each trial with a sampler of its own."""

    def __init__(self, config: "TuneConfig") -> None:
        self._config = config
        self._drawing: tuple[int, optuna.samplers.BaseSampler] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        sampler = self._of(study, trial)
        return sampler.sample_independent(study, trial, param_name, distribution)

    def _of(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> optuna.samplers.BaseSampler:
        if self._drawing is None or self._drawing[0] != trial.number:
            # Trials that were cut short do not count: they are taken over.
            place = sum(
                other.state != TrialState.FAIL and other.number < trial.number
                for other in study.get_trials(deepcopy=False)
            )
            self._drawing = trial.number, self._make(place)
        return self._drawing[1]

    def _make(self, place: int) -> optuna.samplers.BaseSampler:
        config = self._config
        seed = int(np.random.SeedSequence([config.seed, place]).generate_state(1)[0])
        options = {"n_startup_trials": config.startup_trials, "seed": seed}
        if config.sampler == "gp":
            return optuna.samplers.GPSampler(**options)
        return optuna.samplers.TPESampler(**options)


def _open(name: str, url: str, config: "TuneConfig") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    # Others may be writing: SQLite waits for them.
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    pruner = optuna.pruners.NopPruner()
    if config.pruner == "median":
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=config.startup_trials,
            n_warmup_steps=config.pruning_epochs,
        )
    return optuna.create_study(
        storage=optuna.storages.RDBStorage(url, engine_kwargs=patience),
        sampler=SeededByPlace(config),
        pruner=pruner,
        study_name=name,
        direction="minimize" if config.minimize else "maximize",
        load_if_exists=True,
    )


def _distributions(
    ranges: Mapping[str, "Range"],
) -> dict[str, optuna.distributions.BaseDistribution]:
    made: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, span in ranges.items():
        whole = isinstance(span.low, int) and isinstance(span.high, int)
        kind = (
            optuna.distributions.IntDistribution
            if whole
            else optuna.distributions.FloatDistribution
        )
        made[name] = kind(span.low, span.high, log=span.log)
    return made


@contextlib.contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """A database that does not answer is the user's to fix."""
    try:
        yield
    except (
        SQLAlchemyError,
        optuna.exceptions.StorageInternalError,
        ImportError,
    ) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"--tune.storage {url}: cannot be used ({reason}); check the URL, that the "
            "database runs and that its Python driver is installed"
        ) from error
