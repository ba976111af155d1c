"""The knobs that a search space may hold, as the settings of a run declare them: kind, range, what a value needs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from timellm.contract.config import SETTINGS, RunConfig
from timellm.contract.declarations import Declaration, Searched

Value = str | int | float | bool
Kind = Literal["choice", "whole", "number", "boolean", "text"]

_KINDS: Mapping[type, Kind] = {bool: "boolean", int: "whole", float: "number", str: "text"}


def is_measured(feature: str) -> bool:
    """Whether a feature says that a value pays, as measured, rather than that it can be had at all."""
    return feature.startswith("fast-")


@dataclass(frozen=True, slots=True)
class KnobType:
    """What values one setting of a run may take in a space, where it always has a value."""

    declared: Declaration
    """What the setting declares."""

    @property
    def kind(self) -> Kind:
        """Its kind of value: choice and text are strings, whole is int, number is float."""
        return "choice" if self.declared.choices else _KINDS[self.declared.kind]

    @property
    def searched(self) -> bool:
        """Whether a search may vary it; otherwise a space may only fix it."""
        return isinstance(self.declared.use, Searched)

    @property
    def choices(self) -> tuple[str, ...]:
        """Allowed values of a choice."""
        return self.declared.choices

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """Features of the machine that a value needs, by the value's text."""
        return self.declared.use.needs if isinstance(self.declared.use, Searched) else {}

    @property
    def instead(self) -> tuple[str, ...]:
        """Replacements of a value that the machine lacks, best first."""
        return self.declared.use.instead if isinstance(self.declared.use, Searched) else ()

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return self.declared.problem(value)

    def parse(self, text: str) -> Value:
        """The value that a text on the command line means; text without such a meaning is returned as it is."""
        if self.kind == "boolean":
            return {"true": True, "false": False}.get(text.lower(), text)
        if self.kind in ("whole", "number"):
            try:
                return int(text) if self.kind == "whole" else float(text)
            except ValueError:
                return text
        return text


def value_text(value: Value) -> str:
    """A value as TOML and the command line spell it."""
    return value if isinstance(value, str) else json.dumps(value)


KNOWN: dict[str, KnobType] = {
    name: KnobType(dataclasses.replace(declared, is_optional=False))
    for name, declared in SETTINGS.items()
    if declared.use
}
"""Settings that a space may name, to vary them or to fix them."""

KNOBS: dict[str, KnobType] = {name: known for name, known in KNOWN.items() if known.searched}
"""Settings that a search may vary."""

_OTHERWISE: dict[str, Value] = {"num_workers": 10, "fused_optimizer": False}
"""Where the guide's settings are not a run's defaults; `fused_optimizer` says what its default means there."""

GUIDE_BASELINE: dict[str, Value] = {
    name: _OTHERWISE.get(name, default) for name, default in RunConfig().to_dict().items() if name in KNOBS
}
"""The guide's settings of every knob: a space's baseline where it does not say otherwise."""
