"""The knobs that a search space may hold, as the settings of a run declare them: kind, range, what a value needs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from timellm.contract.config import SETTINGS as DECLARED
from timellm.contract.config import RunConfig
from timellm.contract.declarations import Declaration, Limit, Searched

Value = str | int | float | bool
Kind = Literal["choice", "whole", "number", "boolean", "text"]


def is_measured(feature: str) -> bool:
    """Whether a feature says that a value pays, as measured, rather than that it can be had at all."""
    return feature.startswith("fast-")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnobType:
    """What values one setting of a run may take."""

    kind: Kind
    """choice and text are strings, whole is int, number is float."""
    choices: tuple[str, ...] = ()
    """Allowed values of a choice."""
    limits: tuple[Limit, ...] = ()
    """Limits of a number."""
    searched: bool = True
    """Whether a search may vary it; otherwise a space may only fix it."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Features of the machine that a value needs, by the value's text."""
    instead: tuple[str, ...] = ()
    """Replacements of a value that the machine lacks, best first."""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        if self.kind == "boolean":
            return None if isinstance(value, bool) else f"must be true or false, got {value!r}"
        if self.kind == "choice":
            return None if value in self.choices else f"must be one of {', '.join(self.choices)}, got {value!r}"
        if self.kind == "text":
            return None if isinstance(value, str) else f"must be text, got {value!r}"
        wanted = "a whole number" if self.kind == "whole" else "a number"
        accepted = (int,) if self.kind == "whole" else (int, float)
        if isinstance(value, int) and abs(value) >= 2**63:
            return f"must be {wanted} of at most 64 bits, got one of {value.bit_length()} bits"
        if isinstance(value, bool) or not isinstance(value, accepted) or not math.isfinite(value):
            return f"must be {wanted}, got {value!r}"
        return next((problem for limit in self.limits if (problem := limit.problem(value))), None)

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


def _knob_type(declared: Declaration) -> KnobType:
    use = declared.use if isinstance(declared.use, Searched) else Searched()
    kinds: dict[type, Kind] = {bool: "boolean", int: "whole", float: "number", str: "text"}
    return KnobType(
        kind="choice" if declared.choices else kinds[declared.kind],
        choices=declared.choices,
        limits=declared.limits,
        searched=isinstance(declared.use, Searched),
        needs=use.needs,
        instead=use.instead,
    )


KNOWN: dict[str, KnobType] = {name: _knob_type(declared) for name, declared in DECLARED.items() if declared.use}

KNOBS: dict[str, KnobType] = {name: known for name, known in KNOWN.items() if known.searched}
"""Settings that a search may vary."""

SETTINGS: dict[str, KnobType] = {name: known for name, known in KNOWN.items() if not known.searched}
"""Settings that a space may fix but not vary: they change the task, its cost or its machine."""

_OTHERWISE: dict[str, Value] = {"num_workers": 10, "fused_optimizer": False}
"""Where the guide's settings are not a run's defaults; `fused_optimizer` says what its default means there."""

GUIDE_BASELINE: dict[str, Value] = {name: _OTHERWISE.get(name, getattr(RunConfig(), name)) for name in KNOBS}
"""The guide's settings of every knob: a space's baseline where it does not say otherwise."""
