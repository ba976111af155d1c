"""Maps a space into what a machine and a language model have."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spaces.knobs import KNOWN, Value, value_text
from spaces.space import Knob, Space
from timellm.contract.declarations import FEATURES
from timellm.contract.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What a search runs on, as far as it decides which values can be tried."""

    cores: int
    """CPU cores that a trial may use."""
    features: frozenset[str] = frozenset()
    """Those of `timellm.contract.declarations.FEATURES` that are there."""
    llm_layers: int | None = None
    """Layers of the language model; None if unknown."""
    hidden_size: int | None = None
    """Hidden size of the language model; None if unknown."""
    slowdown: Mapping[str, float] = field(default_factory=dict)
    """Time of a matrix product in a precision relative to fp32, by the precision's name, where it was measured."""

    def reason_without(self, feature: str) -> str:
        """Why a value that needs a feature is left out where the machine lacks it: the end of a sentence."""
        precision = feature.removeprefix("fast-")
        if precision != feature and precision in self.slowdown:
            times = self.slowdown[precision]
            return f"its products take {times:.{0 if times >= 10 else 1}f} times as long as fp32's on this CPU"
        return FEATURES[feature]

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
    fitted, moves = _fitted({"baseline": space.baseline, **space.plans}, knobs, hardware)
    notes += moves
    single = {knob.name: knob.values[0] for knob in knobs if len(knob.values) == 1}
    resolved = dataclasses.replace(
        space,
        fixed={**fixed, **single},
        knobs=tuple(knob for knob in knobs if knob.name not in single),
        baseline=_without(fitted.pop("baseline"), single),
        plans={name: _without(plan, single) for name, plan in fitted.items()},
    )
    return _distinct(resolved, notes), notes


def _without(values: Mapping[str, Value], names: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name not in names}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lacking(name: str, value: Value, own: Mapping[str, tuple[str, ...]], hardware: Hardware) -> list[str]:
    """Features that a value needs and the machine lacks, in words."""
    text = value_text(value)
    needed = (*KNOWN[name].needs.get(text, ()), *own.get(text, ()))
    return [hardware.reason_without(feature) for feature in dict.fromkeys(needed) if feature not in hardware.features]


def _fixed_problems(fixed: Mapping[str, Value], hardware: Hardware) -> list[str]:
    problems = []
    for name, value in fixed.items():
        if lacking := _lacking(name, value, {}, hardware):
            problems.append(f"{name} {value_text(value)} needs {' and '.join(lacking)}, which is not there.")
        limit = hardware.limit(name)
        if limit and name != "num_workers" and isinstance(value, int) and value > limit[0]:
            problems.append(f"{name} must be at most {limit[0]}, because {limit[1]}, got {value}.")
    return problems


def _capped(name: str, value: Value, hardware: Hardware, notes: list[str]) -> Value:
    limit = hardware.limit(name)
    if limit and isinstance(value, int) and value > limit[0]:
        notes.append(f"{name}: {value} becomes {limit[0]}, because {limit[1]}.")
        return limit[0]
    return value


def _left(knob: Knob, hardware: Hardware) -> tuple[Knob, list[str]]:
    """The knob with the values that can be used, and what becomes of the others."""
    knob = dataclasses.replace(knob, when={name: _limited(name, knob.when[name], hardware) for name in knob.when})
    limit = hardware.limit(knob.name)
    if knob.ends:
        if not limit or knob.ends[1] <= limit[0]:
            return knob, []
        notes = [f"{knob.name}: the range ends at {limit[0]}, because {limit[1]}."]
        if knob.ends[0] >= limit[0]:
            return dataclasses.replace(knob, low=None, high=None, log=False, is_whole=False, values=(limit[0],)), notes
        return dataclasses.replace(knob, high=limit[0]), notes
    lacking = {value: _lacking(knob.name, value, knob.needs, hardware) for value in knob.values}
    notes = _left_out(knob.name, lacking)
    values = tuple(value for value in knob.values if not lacking[value])
    above = tuple(value for value in values if limit and isinstance(value, int) and value > limit[0])
    if limit and above and above == values and knob.name != "num_workers":
        return dataclasses.replace(knob, values=()), [
            *notes,
            f"{knob.name} must be at most {limit[0]}, because {limit[1]}.",
        ]
    if limit and above:
        verb = "becomes" if len(above) == 1 else "become"
        notes.append(f"{knob.name}: {_listed(above)} {verb} {limit[0]}, because {limit[1]}.")
    return dataclasses.replace(knob, values=_limited(knob.name, values, hardware)), notes


def _limited(name: str, values: Sequence[Value], hardware: Hardware) -> tuple[Value, ...]:
    """Values with those above the machine's limit lowered to it, each once."""
    limit = hardware.limit(name)
    if limit is None:
        return tuple(values)
    return tuple(dict.fromkeys(min(value, limit[0]) if isinstance(value, int) else value for value in values))


def _left_out(name: str, lacking: Mapping[Value, list[str]]) -> list[str]:
    """One sentence for all values that lack the same."""
    by_reason: dict[str, list[Value]] = {}
    for value, features in lacking.items():
        if features:
            by_reason.setdefault(" and ".join(features), []).append(value)
    return [_left_out_words(name, values, reason) for reason, values in by_reason.items()]


def _left_out_words(name: str, values: Sequence[Value], reason: str) -> str:
    """A sentence on values that are left out; a reason that names a figure is a clause of its own."""
    why = reason if reason.startswith("its products") else f"{'it needs' if len(values) == 1 else 'they need'} {reason}"
    return f"{name}: {_listed(values)} {'is' if len(values) == 1 else 'are'} left out, because {why}."


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(map(value_text, values))


def _fitted(
    configurations: Mapping[str, Mapping[str, Value]], knobs: Sequence[Knob], hardware: Hardware
) -> tuple[dict[str, dict[str, Value]], list[str]]:
    """Configurations with each value moved to the nearest that its knob has, and a sentence for each move."""
    fitted: dict[str, dict[str, Value]] = {}
    moves: dict[str, list[str]] = {}
    for who, values in configurations.items():
        fitted[who] = {}
        for knob in knobs:
            old = values[knob.name]
            fitted[who][knob.name] = new = old if knob.holds(old) else _nearest(old, knob)
            if not knob.holds(old):
                limit = hardware.limit(knob.name)
                reason = limit[1] if limit and isinstance(old, int) and old > limit[0] else "it is the nearest left"
                move = f"{knob.name} {value_text(old)} becomes {value_text(new)}, because {reason}."
                moves.setdefault(move, []).append(who)
    return fitted, [f"{', '.join(who)}: {move}" for move, who in moves.items()]


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
            notes.append(f"{name} is not run on its own, because here it is the same as {seen[key]}.")
        elif reason and name != "baseline":
            notes.append(f"{name} is not run: {reason}")
        elif name != "baseline":
            plans[name] = values
        seen.setdefault(key, name)
    return dataclasses.replace(space, plans=plans)
