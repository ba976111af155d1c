"""A search space: its knobs, what is fixed, and the configurations that are tried first."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from spaces.knobs import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Knob:
    """One dimension of a search space: a list of values, or a range."""

    name: str
    """Field of the run configuration."""
    values: tuple[Value, ...] = ()
    """Values to choose from, in order; empty for a range."""
    low: float | None = None
    """Lower end of a range, included."""
    high: float | None = None
    """Upper end of a range, included."""
    log: bool = False
    """Whether a range is searched on a logarithmic scale."""
    is_whole: bool = False
    """Whether a range holds whole numbers only."""
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """The knob counts only where these knobs have one of these values; elsewhere it has the baseline's value."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Features of the machine that a value needs, by the value's text, in addition to those of `spaces.knobs`."""

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of a range; None for a list of values."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_ordinal(self) -> bool:
        """Whether the values are numbers, so that neighbours are alike."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the knob's."""
        if self.ends is None:
            return any(_same(value, mine) for mine in self.values)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.ends[0] <= value <= self.ends[1] and (isinstance(value, int) or not self.is_whole)

    def is_active(self, settings: Mapping[str, Value]) -> bool:
        """Whether the knob counts under these settings."""
        return all(any(_same(settings.get(name), value) for value in values) for name, values in self.when.items())

    def to_dict(self) -> dict[str, Any]:
        """The knob as JSON types; what does not apply is left out."""
        kept: dict[str, Any] = {"name": self.name}
        if self.ends:
            kept |= {"low": self.low, "high": self.high, "log": self.log, "is_whole": self.is_whole}
        else:
            kept["values"] = list(self.values)
        for name, table in (("when", self.when), ("needs", self.needs)):
            if table:
                kept[name] = {key: list(listed) for key, listed in table.items()}
        return kept

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Knob":
        """The inverse of `to_dict`."""
        return cls(
            **{
                **values,
                "values": tuple(values.get("values", ())),
                "when": {name: tuple(listed) for name, listed in values.get("when", {}).items()},
                "needs": {name: tuple(listed) for name, listed in values.get("needs", {}).items()},
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A combination of values that is never tried."""

    settings: Mapping[str, Value]
    """Values that do not go together."""
    reason: str
    """Why, as a sentence."""

    def matches(self, settings: Mapping[str, Value]) -> bool:
        """Whether these settings hold the combination."""
        return all(_same(settings.get(name), value) for name, value in self.settings.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """A search space, as its file says it or resolved for a machine."""

    name: str
    """Name of the space, for reports."""
    description: str = ""
    """What the space is for, one or two sentences."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """Settings of every trial."""
    knobs: tuple[Knob, ...] = ()
    """What the search varies; a knob comes after those that its `when` names."""
    baseline: Mapping[str, Value] = field(default_factory=dict)
    """The reference: a value of every knob."""
    plans: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Configurations tried after the baseline, by name: a value of every knob."""
    exclusions: tuple[Exclusion, ...] = ()
    """Combinations that are never tried."""
    search: Mapping[str, Value] = field(default_factory=dict)
    """Options of the search command that this space changes the default of."""

    def knob(self, name: str) -> Knob | None:
        """The knob of that name, or None."""
        return next((knob for knob in self.knobs if knob.name == name), None)

    def settings(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Every setting of a trial: the fixed ones, the values given, the baseline's where a knob does not count.

        Args:
            values: A value of each knob that counts; others are ignored.
        """
        settings = dict(self.fixed)
        for knob in self.knobs:
            fallback = self.baseline[knob.name]
            settings[knob.name] = values.get(knob.name, fallback) if knob.is_active(settings) else fallback
        return settings

    def active(self, settings: Mapping[str, Value]) -> dict[str, Value]:
        """The values of the knobs that count under these settings."""
        return {knob.name: settings[knob.name] for knob in self.knobs if knob.is_active(settings)}

    def exclusion(self, settings: Mapping[str, Value]) -> str | None:
        """Why these settings are never tried; None if they may be."""
        return next((rule.reason for rule in self.exclusions if rule.matches(settings)), None)

    @property
    def is_finite(self) -> bool:
        """Whether the configurations can be counted."""
        return not any(knob.ends for knob in self.knobs)

    @property
    def size(self) -> float:
        """Upper bound of the number of configurations; infinite with a range."""
        return math.prod(len(knob.values) for knob in self.knobs) if self.is_finite else math.inf

    def configurations(self) -> Iterator[dict[str, Value]]:
        """Every configuration of a finite space once, as full settings, without the excluded ones."""
        for settings in _products(self, dict(self.fixed), self.knobs):
            if self.exclusion(settings) is None:
                yield settings

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON types, for the manifest."""
        return {
            "name": self.name,
            "description": self.description,
            "fixed": dict(self.fixed),
            "knobs": [knob.to_dict() for knob in self.knobs],
            "baseline": dict(self.baseline),
            "plans": {name: dict(plan) for name, plan in self.plans.items()},
            "exclusions": [{"settings": dict(rule.settings), "reason": rule.reason} for rule in self.exclusions],
            "search": dict(self.search),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Space":
        """The inverse of `to_dict`."""
        return cls(
            **{
                **values,
                "knobs": tuple(Knob.from_dict(knob) for knob in values.get("knobs", ())),
                "exclusions": tuple(Exclusion(**rule) for rule in values.get("exclusions", ())),
            }
        )


def _same(left: Any, right: Any) -> bool:
    """Equality that keeps true and 1 apart."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _products(space: Space, settings: dict[str, Value], knobs: tuple[Knob, ...]) -> Iterator[dict[str, Value]]:
    if not knobs:
        yield settings
        return
    first, rest = knobs[0], knobs[1:]
    values = first.values if first.is_active(settings) else (space.baseline[first.name],)
    for value in values:
        yield from _products(space, {**settings, first.name: value}, rest)
