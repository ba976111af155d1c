"""Maps a space into what a machine and a language model have."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spaces.errors import InputError
from spaces.knobs import FEATURES, KNOWN, Value, value_text
from spaces.space import Knob, Space


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What a search runs on, as far as it decides which values can be tried."""

    cores: int
    """CPU cores that a trial may use."""
    features: frozenset[str] = frozenset()
    """Names of `spaces.knobs.FEATURES` that are there."""
    llm_layers: int | None = None
    """Layers of the language model; None if unknown."""
    hidden_size: int | None = None
    """Hidden size of the language model; None if unknown."""

    def limit(self, name: str) -> tuple[int, str] | None:
        """The largest value of a knob and where it comes from; None if nothing limits it."""
        if name == "num_workers":
            return self.cores, f"this machine has {_count(self.cores, 'core')}"
        if name == "llm_layers" and self.llm_layers:
            return self.llm_layers, f"the language model has {_count(self.llm_layers, 'layer')}"
        if name == "d_ff" and self.hidden_size:
            return self.hidden_size, f"the language model's hidden size is {self.hidden_size}"
        return None


def resolve(space: Space, hardware: Hardware) -> tuple[Space, list[str]]:
    """The space as it can be searched here.

    Values that need what is not there are left out, numbers above a limit become the limit, knobs with one value
    left are fixed, and the baseline and the plans are moved to the nearest values that are left.

    Args:
        space: A loaded space, narrowed if the user asked for it.
        hardware: What there is.

    Returns:
        The resolved space and one sentence for each change.

    Raises:
        InputError: If a fixed setting, or every value of a knob, needs what is not there.
    """
    notes: list[str] = []
    problems = [*_fixed_problems(space.fixed, hardware)]
    fixed = {name: _capped(name, value, hardware, notes) for name, value in space.fixed.items()}
    knobs = []
    for knob in space.knobs:
        left, said = _left(knob, hardware)
        if not left.ends and not left.values:
            problems.append(f"No value of {knob.name} can be used here: {' '.join(said)} Use --set {knob.name}=VALUE.")
        else:
            notes += said
            knobs.append(left)
    if problems:
        raise InputError(problems)
    baseline = _fitted("baseline", space.baseline, knobs, hardware, notes)
    plans = {name: _fitted(name, plan, knobs, hardware, notes) for name, plan in space.plans.items()}
    single = {knob.name: knob.values[0] for knob in knobs if len(knob.values) == 1}
    resolved = dataclasses.replace(
        space,
        fixed={**fixed, **single},
        knobs=tuple(knob for knob in knobs if knob.name not in single),
        baseline={name: value for name, value in baseline.items() if name not in single},
        plans={
            name: {knob: value for knob, value in plan.items() if knob not in single} for name, plan in plans.items()
        },
    )
    return _distinct(resolved, notes), notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lacking(name: str, value: Value, own: Mapping[str, tuple[str, ...]], hardware: Hardware) -> list[str]:
    """Features that a value needs and the machine lacks, in words."""
    text = value_text(value)
    needed = (*KNOWN[name].needs.get(text, ()), *own.get(text, ()))
    return [FEATURES[feature] for feature in dict.fromkeys(needed) if feature not in hardware.features]


def _fixed_problems(fixed: Mapping[str, Value], hardware: Hardware) -> list[str]:
    problems = []
    for name, value in fixed.items():
        if lacking := _lacking(name, value, {}, hardware):
            problems.append(f"{name} {value_text(value)} needs {' and '.join(lacking)}, which is not there.")
        limit = hardware.limit(name)
        if limit and name != "num_workers" and isinstance(value, int) and value > limit[0]:
            problems.append(f"{name} must be at most {limit[0]}, for {limit[1]}, got {value}.")
    return problems


def _capped(name: str, value: Value, hardware: Hardware, notes: list[str]) -> Value:
    limit = hardware.limit(name)
    if limit and isinstance(value, int) and value > limit[0]:
        notes.append(f"{name}: {value} becomes {limit[0]}, for {limit[1]}.")
        return limit[0]
    return value


def _left(knob: Knob, hardware: Hardware) -> tuple[Knob, list[str]]:
    """The knob with the values that can be used, and a sentence for each that cannot."""
    notes = []
    limit = hardware.limit(knob.name)
    if knob.ends:
        if not limit or knob.ends[1] <= limit[0]:
            return knob, []
        notes.append(f"{knob.name}: the range ends at {limit[0]}, for {limit[1]}.")
        if knob.ends[0] >= limit[0]:
            return dataclasses.replace(knob, low=None, high=None, log=False, is_whole=False, values=(limit[0],)), notes
        return dataclasses.replace(knob, high=limit[0]), notes
    values = list(knob.values)
    for value in knob.values:
        if lacking := _lacking(knob.name, value, knob.needs, hardware):
            values.remove(value)
            notes.append(f"{knob.name}: {value_text(value)} is left out, for it needs {' and '.join(lacking)}.")
    above = [value for value in values if limit and isinstance(value, int) and value > limit[0]]
    if limit and above == values and knob.name != "num_workers":
        values = []
        notes.append(f"{knob.name} must be at most {limit[0]}, for {limit[1]}.")
    elif limit and above:
        values = list(dict.fromkeys(limit[0] if value in above else value for value in values))
        texts = ", ".join(map(value_text, above))
        notes.append(f"{knob.name}: {texts} {'becomes' if len(above) == 1 else 'become'} {limit[0]}, for {limit[1]}.")
    return dataclasses.replace(knob, values=tuple(values)), notes


def _fitted(
    who: str, values: Mapping[str, Value], knobs: Sequence[Knob], hardware: Hardware, notes: list[str]
) -> dict[str, Value]:
    """A configuration with each value moved to the nearest that its knob has."""
    fitted: dict[str, Value] = {}
    for knob in knobs:
        value = values[knob.name]
        fitted[knob.name] = value if knob.holds(value) else _nearest(value, knob)
        if fitted[knob.name] != value:
            limit = hardware.limit(knob.name)
            reason = limit[1] if limit and isinstance(value, int) and value > limit[0] else "it is the nearest left"
            notes.append(
                f"{who}: {knob.name} {value_text(value)} becomes {value_text(fitted[knob.name])}, for {reason}."
            )
    return fitted


def _nearest(value: Value, knob: Knob) -> Value:
    if knob.ends and isinstance(value, int | float):
        return min(max(value, knob.ends[0]), knob.ends[1])
    for other in KNOWN[knob.name].instead:
        if knob.holds(other):
            return other
    if knob.is_ordinal and isinstance(value, int | float):
        return min(knob.values, key=lambda other: (abs(_position(other) - _position(value)), other))
    return knob.values[0]


def _position(value: Value) -> float:
    """Place of a number on the scale on which its neighbours are equally far."""
    assert isinstance(value, int | float)
    return math.log2(value) if value > 0 else -1.0


def _distinct(space: Space, notes: list[str]) -> Space:
    """The space without the plans that have become equal to another first trial."""
    seen: dict[tuple[tuple[str, Value], ...], str] = {}
    plans = {}
    for name, values in {"baseline": space.baseline, **space.plans}.items():
        settings = space.settings(values)
        key = tuple(sorted(settings.items()))
        reason = space.exclusion(settings)
        if key in seen:
            notes.append(f"{name} is not run on its own, for here it is the same as {seen[key]}.")
        elif reason and name != "baseline":
            notes.append(f"{name} is not run: {reason}")
        elif name != "baseline":
            plans[name] = values
        seen.setdefault(key, name)
    return dataclasses.replace(space, plans=plans)
