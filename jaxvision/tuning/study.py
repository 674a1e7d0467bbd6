"""The trials of a study: drawn, pruned, retried and stored, by Optuna.

A study lies in a database that any number of processes use at a time. Heartbeats tell
whose process has died: its trial is marked as failed, and its settings are tried again
by the next that asks for a trial, whose training finds the checkpoints.

Optuna's samplers keep the state of their random numbers in memory, so a continued study
would draw its first trials again. Here each trial is drawn by a sampler of its own,
seeded with the study's seed and the trial's place in the study: what is drawn depends
on those and on the finished trials alone.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import filelock
import numpy as np
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from jaxvision.declaration import SearchRange
from jaxvision.errors import InputError
from jaxvision.report.run_folder import command_line
from jaxvision.settings import TuneConfig
from jaxvision.storage import writing

COMPLETE, PRUNED, DIVERGED = "complete", "pruned", "diverged"
"""How a trial ends. Of a Gaussian process pruned ones are complete to Optuna."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

_ENDED = "ended"

Train = Callable[[optuna.Trial, int], tuple[float | None, str]]
"""(trial, the number under which its settings were tried first) -> its score, None
where it has none, and how it ended."""


class Study:
    """A study, and this process's part in it; use it inside `optuna_is_quiet`.

    name: in the database.
    shown_url, shown_command: without passwords.
    optuna: the study itself.
    """

    def __init__(
        self,
        name: str,
        url: str,
        folder: Path,
        config: TuneConfig,
        ranges: Mapping[str, SearchRange],
        first: Mapping[str, float | None],
    ) -> None:
        """Opens or begins a study.

        Args:
          name: of the study in the database.
          url: of the database.
          folder: for the trials.
          config: how trials are drawn and pruned.
          ranges: what a trial may vary.
          first: the settings of the first trial; drawn if any is out of range.

        Raises:
          InputError: the database or the folder cannot be used.
        """
        self.name, self.config, self.ranges = name, config, dict(ranges)
        inside = all(
            value is not None and ranges[name].low <= value <= ranges[name].high
            for name, value in first.items()
        )
        self._first = dict(first) if inside else {}
        try:
            self.shown_url = make_url(url).render_as_string(hide_password=True)
        except ArgumentError as error:
            raise InputError(
                "no URL of a database; it looks like sqlite:///studies.db or "
                "postgresql://user:password@host/name",
                setting="tune.storage",
                value=url,
            ) from error
        self.shown_command = command_line().replace(url, self.shown_url)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Two processes cannot make the tables of one database at the same time.
        lock = filelock.FileLock(folder.parent / "studies.lock")
        with lock, self._storage_errors(ImportError):
            self.optuna = self._open(url)

    def trials(self) -> list[FrozenTrial]:
        """Finished trials, in the order in which they were begun."""
        return self._trials(*FINISHED)

    def retries(self) -> int:
        """How many times a trial went on that had been stopped, in all."""
        return sum(len(_retried(trial)) for trial in self.trials())

    def best(self) -> FrozenTrial:
        """The complete trial with the best score, of equal ones the first.

        Raises:
          InputError: none is complete.
        """
        complete = [trial for trial in self.trials() if ended(trial) == COMPLETE]
        if not complete:
            raise InputError(
                f"none of {len(self.trials())} trials came to its end; raise "
                "`tune.trials`, or set `tune.pruner` to none"
            )
        choose = min if self.config.minimize else max
        return choose(complete, key=score)

    def importances(self) -> dict[str, float]:
        """Share of the score's variance that each setting explains; nothing where too
        few trials are complete for that.

        By fANOVA: Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html.
        """
        scores = {trial.value for trial in self._trials(TrialState.COMPLETE)}
        if len(scores) < 4 or len(self.ranges) < 2:
            return {}
        return get_param_importances(
            self.optuna, evaluator=FanovaImportanceEvaluator(seed=0)
        )

    def await_heartbeats(self) -> None:
        """Waits until trials under way are known to be alive or dead.

        A process that is started again after a kill goes on with the trial that it
        left, so that it draws what it would have drawn.
        """
        begun = {t.number: t.intermediate_values for t in self._running()}
        if not begun:
            return
        print(f"{len(begun)} trials are under way: waiting for a sign of life of each")
        # Databases keep heartbeats to the second.
        end = time.monotonic() + self.config.grace_seconds + 2
        while True:
            self._fail_stale()
            silent = [
                trial
                for trial in self._running()
                if begun.get(trial.number) == trial.intermediate_values
            ]
            if not silent or time.monotonic() > end:
                break
            time.sleep(0.5)
        for trial in silent:
            if not trial.params:
                # It died before its first heartbeat, which Optuna still awaits.
                self._fail(trial)

    def run_next(self, train: Train) -> bool:
        """Does a trial; when this returns, it is in the database.

        Returns:
          Whether there was one: False where enough are finished or under way.

        Raises:
          InputError: another process has taken the trial over.
          What `train` raises. The trial is then left to the next that asks for one.
        """
        self._fail_stale()
        if len(self._trials(*FINISHED, TrialState.RUNNING)) >= self.config.trials:
            return False
        attempt = _Attempt(self, train)
        try:
            with self._storage_errors():
                self.optuna.optimize(attempt, n_trials=1)
        except _Enough:
            return False
        except BaseException:
            # Optuna may raise another error on its way out.
            if attempt.stopped_by is None:
                raise
            if attempt.retry is not None:
                trial = self._trials()[attempt.retry]
                self._fail(trial)
                self._retry(trial)
            raise attempt.stopped_by from None
        return True

    def place(self, trial: optuna.Trial) -> int:
        """A trial's place in the study. Stopped trials have none: they are retried."""
        return sum(
            other.state != TrialState.FAIL and other.number < trial.number
            for other in self._trials()
        )

    def draw(self, trial: optuna.Trial, place: int) -> int:
        """Gives a trial its settings, unless it has those of a stopped one.

        Returns:
          The number under which they were tried first.
        """
        self.optuna.sampler = self._make_sampler(place)
        for name, span in self.ranges.items():
            if isinstance(span.low, int) and isinstance(span.high, int):
                trial.suggest_int(name, span.low, span.high, log=span.log)
            else:
                trial.suggest_float(name, span.low, span.high, log=span.log)
        return origin(self._trials()[trial.number])

    def _open(self, url: str) -> optuna.Study:
        config = self.config
        # Others may be writing: SQLite waits for them.
        patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        pruner: BasePruner = NopPruner()
        if config.pruner == "median":
            pruner = MedianPruner(
                n_startup_trials=config.startup_trials,
                n_warmup_steps=config.pruning_epochs,
            )
        storage = RDBStorage(
            url,
            engine_kwargs=patience,
            heartbeat_interval=max(1, config.grace_seconds // 4),
            grace_period=config.grace_seconds,
            heartbeat_stale_trial_callback=lambda _, trial: self._retry(trial),
        )
        return optuna.create_study(
            storage=storage,
            pruner=pruner,
            study_name=self.name,
            direction="minimize" if config.minimize else "maximize",
            load_if_exists=True,
        )

    def _make_sampler(self, place: int) -> BaseSampler:
        """The sampler of the trial at a place in the study."""
        config = self.config
        seed = int(np.random.SeedSequence([config.seed, place]).generate_state(1)[0])
        make = GPSampler if config.sampler == "gp" else TPESampler
        sampler = make(n_startup_trials=config.startup_trials, seed=seed)
        if place == 0 and self._first:
            return PartialFixedSampler(self._first, sampler)
        return sampler

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, or all, by number."""
        with self._storage_errors():
            return self.optuna.get_trials(deepcopy=False, states=states or None)

    def _running(self) -> list[FrozenTrial]:
        return self._trials(TrialState.RUNNING)

    def _fail_stale(self) -> None:
        with self._storage_errors():
            optuna.storages.fail_stale_trials(self.optuna)

    def _fail(self, trial: FrozenTrial) -> None:
        # Optuna, or another process, may have been quicker.
        with self._storage_errors(), contextlib.suppress(ValueError):
            self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _retry(self, trial: FrozenTrial) -> None:
        """Leaves a failed trial's settings to the next that asks for a trial."""
        # One that was stopped while it was drawn is drawn again, at the same place.
        if len(trial.params) == len(self.ranges):
            with self._storage_errors():
                RetryHeartbeatStaleTrialCallback()(self.optuna, trial)

    @contextlib.contextmanager
    def _storage_errors(self, *further: type[Exception]) -> Iterator[None]:
        """A database that does not answer is the user's to fix."""
        try:
            yield
        except (SQLAlchemyError, StorageInternalError, *further) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InputError(
                f"cannot be used ({reason}); check the URL, that the database runs and "
                "that its Python driver is installed",
                setting="tune.storage",
                value=self.shown_url,
            ) from error


class _Enough(Exception):
    """Others have begun the last trials that were wanted."""


class _Attempt:
    """The objective of one trial, as Optuna calls it.

    stopped_by: what ended it before its end.
    retry: the number of the trial, if its settings are to be tried again then.
    """

    def __init__(self, study: Study, train: Train) -> None:
        self._study, self._train = study, train
        self.stopped_by: BaseException | None = None
        self.retry: int | None = None

    def __call__(self, trial: optuna.Trial) -> float:
        place = self._study.place(trial)
        if place >= self._study.config.trials:
            raise _Enough
        try:
            number = self._study.draw(trial, place)
            value, how = self._train(trial, number)
            trial.set_user_attr(_ENDED, how)
        except UpdateFinishedTrialError:
            self.stopped_by = InputError(
                f"trial {trial.number}: another process has taken it over, as it had "
                "no heartbeat; the same command goes on with other trials"
            )
            raise
        except BaseException as error:
            self.stopped_by, self.retry = error, trial.number
            raise
        # A Gaussian process learns from complete trials only: what was pruned counts
        # for it with what it had reached.
        learns = how == COMPLETE or self._study.config.sampler == "gp"
        if value is None or not learns:
            raise optuna.TrialPruned
        return value


def ended(trial: FrozenTrial) -> str:
    """How a finished trial ended."""
    return trial.user_attrs[_ENDED]


def score(trial: FrozenTrial) -> float:
    """What a complete trial reached."""
    assert trial.value is not None
    return trial.value


def origin(trial: FrozenTrial) -> int:
    """The number under which a trial's settings were tried first."""
    return (_retried(trial) or [trial.number])[0]


def _retried(trial: FrozenTrial) -> list[int]:
    """Numbers of the stopped trials whose settings it has."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


@contextlib.contextmanager
def optuna_is_quiet() -> Iterator[None]:
    """Optuna logs every trial, and warns of what it may change one day."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
