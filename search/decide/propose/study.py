"""The Optuna study of a search: what to try next, and how trials ended. Knows nothing of Ray."""

import contextlib
import copy
import dataclasses
import itertools
import random
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from search.decide.propose.objective import Objective, constraints
from search.decide.propose.parameters import Parameter, encode, parameters, suggest
from search.decide.propose.storage import open_storage
from spaces import Knob, Space
from spaces.knobs import Value
from timellm.contract.columns import BASELINE, CONFIRM, SAMPLER, VAL_MSE, State, knob_column

Settings = dict[str, Value]
Refusal = Callable[[Settings, str], str | None]
"""Why settings of a source are not tried; None if they are."""

_PATIENCE = 8
"""Suggestions in a row that are known or excluded before an untried configuration is drawn at random."""
_PATIENCE_WITHIN = 3
"""The same if some knobs are fixed: few configurations are left then."""
_DRAWS = 2000
_FEW = 500
"""Configurations that are listed rather than drawn."""
_COUNTABLE = 200_000
_SECONDS_TO_LEAVE = 2
"""How long to wait for a database that somebody else is writing, and for one that is being read at the end."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial to run."""

    trial_id: str
    """Name in the table and of its folder."""
    source: str
    """baseline, the name of a plan, sampler or confirm."""
    settings: Settings
    """Every setting of the space."""
    seed: int | None = None
    """Seed of the run, where it is not the search's."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Trials of another search that the sampler learns from."""

    run: str
    """Name of that search."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Its table."""


@dataclass(kw_only=True)
class StudyOptions:
    """What a study is made from.

    Attributes:
        name: Name of the study, unique in its storage.
        storage: SQLite file; None keeps the study in memory.
        sampler: The Optuna sampler.
        objective: What is minimised.
        limit_gib: Memory limit of a trial, the constraint that the sampler learns; None for none.
        refusal: Why settings of a source cannot be run, or None; it is called before anything is proposed.
        seed: Seed of the draws made when the sampler repeats itself.
    """

    name: str
    sampler: optuna.samplers.BaseSampler
    storage: Path | None = None
    objective: Objective = field(default_factory=Objective)
    limit_gib: float | None = None
    refusal: Refusal = lambda settings, source: None
    seed: int = 0


class SearchStudy:
    """Asks the sampler for new configurations and tells it how they ended.

    Every proposal is new: what was tried before is answered from the table. No trial of the study stays in state
    running, and none is told anything that is not finite.

    Args:
        space: A resolved space.
        options: What the study is made from. A study of that name in the storage is continued.
        rows: Rows of an earlier session of the same search.
    """

    def __init__(self, space: Space, options: StudyOptions, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self._space, self._options = space, options
        self._parameters = parameters(space)
        self._known: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        self._open: dict[str, tuple[optuna.Trial, Settings]] = {}
        self._seen_values: list[list[float]] = []
        self._random = random.Random(options.seed)
        self._pristine = copy.deepcopy(options.sampler)
        self._samplers: dict[frozenset[str], optuna.samplers.BaseSampler] = {}
        self._storage = open_storage(options.storage) if options.storage else None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(
                storage=self._storage,
                sampler=options.sampler,
                study_name=options.name,
                directions=["minimize"] * len(options.objective.names),
                load_if_exists=True,
            )
            self.study.set_metric_names(options.objective.names)
        for row in rows:
            self._remember(row, settings_of(row, space))
        self._next_number = 1 + max((_number(str(row["trial_id"])) for row in rows), default=0)
        self.is_new = not self.study.get_trials(deepcopy=False)
        if self.is_new:
            self._rebuild(rows)
            self._enqueue_first_trials()
        else:
            self._take_up(rows)

    def propose(
        self, fixed: Settings | None = None, refusal: Refusal = lambda settings, source: None
    ) -> Proposal | None:
        """The next configuration to try: the first trials and those of an earlier session, then the sampler's.

        Args:
            fixed: Knobs that the sampler leaves as they are.
            refusal: Why settings of a source are not tried now, or None; it is called in addition to the study's own.

        Returns:
            The proposal; None if every configuration with these values has been tried or is refused.
        """
        if fixed and self._untried(fixed, refusal) is None and not self._has_waiting():
            return None  # the sampler would be asked in vain, and learn what it knows once more
        patience = _PATIENCE if not fixed else _PATIENCE_WITHIN
        self.study.sampler = self._sampler_within(fixed or {})
        for attempt in itertools.count(1):
            if attempt > patience:
                untried = self._untried(fixed or {}, refusal)
                if untried is None:
                    return None
                self._enqueue(untried, source=SAMPLER)
            trial = self.study.ask()
            settings = suggest(trial, self._space, self._parameters)
            source = trial.user_attrs.get("source", SAMPLER)
            reason = self._refusal(settings, source) or refusal(settings, source)
            if reason is not None:
                trial.set_user_attr("refused", reason)
                self.study.tell(trial, state=TrialState.FAIL)
            elif (known := self._known.get(_key(settings))) is not None:
                trial.set_user_attr("duplicate_of", known["trial_id"])
                self._tell(trial, known)
            elif any(_key(settings) == _key(running) for _, running in self._open.values()):
                trial.set_user_attr("duplicate_of", "a running trial")
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                return self._opened(trial, settings)
        raise AssertionError

    def finish(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Tell the study how a proposal ended.

        Args:
            trial_id: The proposal's.
            row: Its row of the trials table.
        """
        if trial_id not in self._open:
            return
        trial, settings = self._open.pop(trial_id)
        trial.set_user_attr("state", str(row["state"]))
        if is_unfinished(row):
            self.study.tell(trial, state=TrialState.FAIL)
            return
        self._remember(row, settings)
        self._tell(trial, row)

    def _opened(self, trial: optuna.Trial, settings: Settings) -> Proposal:
        source = trial.user_attrs.get("source", SAMPLER)
        trial_id = trial.user_attrs.get("trial_id")
        if trial_id is None:
            trial_id = f"t{self._next_number:04d}"
            self._next_number += 1
            trial.set_user_attr("trial_id", trial_id)
        if "source" not in trial.user_attrs:
            trial.set_user_attr("source", source)
        trial.set_user_attr("settings", settings)
        self._open[trial_id] = (trial, settings)
        return Proposal(trial_id=trial_id, source=source, settings=settings)

    def new_trial_id(self) -> str:
        """A name for a trial outside the study, such as a confirmation."""
        self._next_number += 1
        return f"t{self._next_number - 1:04d}"

    def inform(self, rows: Iterable[Mapping[str, Any]], run: str) -> int:
        """Let the sampler learn from trials of another search; they do not become trials of this one.

        Args:
            rows: Rows of its table, at the fidelity of this search.
            run: Its name.

        Returns:
            How many of them have objectives and are in this space.
        """
        count = 0
        for row in rows:
            settings = {knob.name: row.get(knob_column(knob.name)) for knob in self._space.knobs}
            is_inside = all(knob.holds(settings[knob.name]) for knob in self._space.knobs)
            is_fixed = all(
                _spelt(row.get(knob_column(name))) == _spelt(value) for name, value in self._space.fixed.items()
            )
            values = self._options.objective.values(row)
            if is_inside and is_fixed and values is not None:
                full = self._space.settings(settings)  # type: ignore[arg-type]
                self._add(full, values, row, {"warm_start": f"{run}/{row['trial_id']}"})
                self._seen_values.append(values)
                count += 1
        return count

    def close(self) -> None:
        """Leave one ordinary file, if nobody else reads it: the write-ahead log is merged into it."""
        if self._storage is None or self._options.storage is None:
            return
        with contextlib.suppress(Exception):  # a reader, a full disk: it is as whole as it gets
            self._storage.remove_session()
            self._storage.engine.dispose()
            with contextlib.closing(sqlite3.connect(self._options.storage, timeout=_SECONDS_TO_LEAVE)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")

    def _tell(self, trial: optuna.Trial, row: Mapping[str, Any]) -> None:
        for name, value in constraints(row, self._options.limit_gib).items():
            trial.set_constraint(name, value)
        values = self._options.objective.values(row)
        self.study.tell(trial, values or self._options.objective.worst(self._seen_values))

    def _remember(self, row: Mapping[str, Any], settings: Settings) -> None:
        if is_unfinished(row):
            return
        self._known.setdefault(_key(settings), row)
        values = self._options.objective.values(row)
        if values is not None:
            self._seen_values.append(values)

    def _rebuild(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Learn from the table what a study that was lost had learnt, and line up again what did not end."""
        for row in rows:
            settings, source = settings_of(row, self._space), str(row["source"])
            attributes = {"trial_id": row["trial_id"], "source": source}
            if source == CONFIRM:
                continue
            if row["state"] == State.INTERRUPTED:
                self._enqueue(settings, **attributes)
            else:
                values = self._options.objective.values(row) or self._options.objective.worst(self._seen_values)
                self._add(settings, values, row, {**attributes, "settings": settings, "state": str(row["state"])})

    def _enqueue_first_trials(self) -> None:
        for source, values in {BASELINE: self._space.baseline, **self._space.plans}.items():
            settings = self._space.settings(values)
            if _key(settings) not in self._known:
                self._enqueue(settings, source=source)

    def _enqueue(self, settings: Settings, **attributes: Any) -> None:
        self.study.enqueue_trial(encode(settings, self._space, self._parameters), user_attrs=attributes)

    def _take_up(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Continue an earlier session: close what it left open and line up again what it did not end."""
        by_id = {row["trial_id"]: row for row in rows}
        unfinished: dict[str, tuple[Settings, str]] = {}
        trials = self.study.get_trials(deepcopy=True)
        waiting = {trial.user_attrs.get("trial_id") for trial in trials if trial.state == TrialState.WAITING}
        for frozen in trials:
            attributes = frozen.user_attrs
            trial_id, settings = attributes.get("trial_id"), attributes.get("settings")
            if frozen.state == TrialState.RUNNING:
                self.study.tell(frozen.number, state=TrialState.FAIL)
            if trial_id is None or settings is None or "duplicate_of" in attributes:
                continue
            self._next_number = max(self._next_number, 1 + _number(str(trial_id)))
            row = by_id.get(trial_id)
            if row is None or is_unfinished(row):
                unfinished[trial_id] = (settings, attributes.get("source", SAMPLER))
            elif frozen.state == TrialState.RUNNING:
                self._add_finished(frozen, row)
        for trial_id, (settings, source) in unfinished.items():
            if trial_id in waiting:
                continue
            self._enqueue(settings, trial_id=trial_id, source=source)

    def _add_finished(self, frozen: optuna.trial.FrozenTrial, row: Mapping[str, Any]) -> None:
        """Add a trial that has a row but that the study does not know to have ended."""
        values = self._options.objective.values(row) or self._options.objective.worst(self._seen_values)
        attributes = {**frozen.user_attrs, "state": str(row["state"])}
        self._add(settings_of(row, self._space), values, row, attributes)

    def _add(self, settings: Settings, values: list[float], row: Mapping[str, Any], attributes: dict[str, Any]) -> None:
        names = {self._parameters[name].name: self._parameters[name] for name in self._space.active(settings)}
        trial = optuna.trial.create_trial(
            values=values,
            params=encode(settings, self._space, self._parameters),
            distributions={name: parameter.distribution for name, parameter in names.items()},
            user_attrs=attributes,
        )
        for name, value in constraints(row, self._options.limit_gib).items():
            trial.set_constraint(name, value)
        self.study.add_trial(trial)

    def _sampler_within(self, fixed: Settings) -> optuna.samplers.BaseSampler:
        """The sampler, or one that leaves some knobs as they are."""
        if not fixed:
            return self._options.sampler
        names = frozenset(fixed)  # a sampler may keep a model of the knobs that it searches
        sampler = self._samplers.setdefault(names, copy.deepcopy(self._pristine))
        encoded = {self._parameters[name].name: self._parameters[name].encode(value) for name, value in fixed.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.PartialFixedSampler(encoded, sampler)

    def _has_waiting(self) -> bool:
        """Whether a configuration waits to be tried, such as the baseline's: it comes before the sampler's."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _untried(self, fixed: Settings, refusal: Refusal) -> Settings | None:
        """Settings that were neither tried nor refused, drawn at random, or None."""
        knobs = [_fixed_to(knob, fixed) for knob in self._space.knobs]
        space = dataclasses.replace(self._space, knobs=tuple(knobs))
        drawn = {knob.name: Parameter(knob, knob.name, self._parameters[knob.name].distribution) for knob in knobs}

        def is_open(settings: Settings) -> bool:
            return self._is_untried(settings) and refusal(settings, SAMPLER) is None

        for _ in range(_DRAWS if space.size > _FEW else 0):
            settings = space.settings({name: parameter.draw(self._random) for name, parameter in drawn.items()})
            if is_open(settings):
                return settings
        if space.size > _COUNTABLE:
            return None
        left = [settings for settings in space.configurations() if self._is_untried(settings)]
        self._random.shuffle(left)
        return next((settings for settings in left if refusal(settings, SAMPLER) is None), None)

    def _is_untried(self, settings: Settings) -> bool:
        running: Iterable[Settings] = (open_settings for _, open_settings in self._open.values())
        return (
            _key(settings) not in self._known
            and not any(_key(settings) == _key(other) for other in running)
            and self._refusal(settings, SAMPLER) is None
        )

    def _refusal(self, settings: Settings, source: str) -> str | None:
        return self._space.exclusion(settings) or self._options.refusal(settings, source)


def _number(trial_id: str) -> int:
    """The number in a trial's name; 0 for a name of another form."""
    digits = trial_id.removeprefix("t")
    return int(digits) if digits.isdecimal() and len(digits) < 12 else 0


def settings_of(row: Mapping[str, Any], space: Space) -> Settings:
    """The space's settings in a row of the trials table."""
    names = [*space.fixed, *(knob.name for knob in space.knobs)]
    return {name: row[knob_column(name)] for name in names}


def is_unfinished(row: Mapping[str, Any]) -> bool:
    """Whether a resumed search goes on with a row's trial: it was interrupted, or has a time and no error."""
    timed_only = row["state"] == State.STOPPED_EARLY and row.get(VAL_MSE) is None
    return bool(row["state"] == State.INTERRUPTED or timed_only)


def _fixed_to(knob: Knob, fixed: Settings) -> Knob:
    """A knob with one value left, if it is fixed."""
    if knob.name not in fixed:
        return knob
    return dataclasses.replace(knob, values=(fixed[knob.name],), low=None, high=None, log=False, is_whole=False)


def _key(settings: Settings) -> tuple[Any, ...]:
    return tuple(sorted((name, _spelt(value)) for name, value in settings.items()))


def _spelt(value: Any) -> str:
    """A value as text; a whole number is the same whether a table has kept it as 0 or as 0.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
