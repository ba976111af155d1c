"""What a setting of a run declares beside its type: limits, whether a search may vary it, what it changes.

A field of `RunConfig` carries these in its annotation, `Annotated[int, AtLeast(1), Searched()]`. The run, the flags,
the search spaces and the sharing of errors between trials all read them there.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FEATURES = {
    "cuda": "a CUDA device",
    "bf16": "a device that computes in bf16",
    "fp16": "a device that computes in fp16",
    "fast-bf16": "a device whose bf16 products are not slower than those in fp32",
    "fast-fp16": "a device whose fp16 products are not slower than those in fp32",
    "tf32": "a GPU that multiplies in tf32",
    "compiler": "a C++ compiler (g++ or clang++ on the path)",
    "deepspeed": "the deepspeed package",
    "causal": "a language model that reads from left to right (gpt2, llama)",
}
"""What a value of a setting may need from the machine or the language model, and its name in a sentence."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number from this one on."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value >= self.end else f"must be at least {self.end:g}, got {value}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number up to this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value <= self.end else f"must be at most {self.end:g}, got {value}"


@dataclass(frozen=True, slots=True)
class Above:
    """A number that is greater than this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value > self.end else f"must be above {self.end:g}, got {value}"


@dataclass(frozen=True, slots=True)
class Below:
    """A number that is less than this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value < self.end else f"must be below {self.end:g}, got {value}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Text that names an entry of a registry, where the names cannot be written as a `Literal`."""

    names: tuple[str, ...]


Limit = AtLeast | AtMost | Above | Below


@dataclass(frozen=True, slots=True)
class Searched:
    """A search may vary the setting: it is a knob."""

    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`FEATURES` that a value needs, by the value's text."""
    instead: tuple[str, ...] = ()
    """Replacements of a value that the machine lacks, best first."""


@dataclass(frozen=True, slots=True)
class Fixable:
    """A space may fix the setting but not vary it: it changes the task, its cost or its machine."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What the setting does not change; every setting that does not say so changes both."""

    what: Literal["numbers", "times"]


SAME_NUMBERS, SAME_TIMES = Unchanged("numbers"), Unchanged("times")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What one setting declares."""

    kind: type
    """Scalar type: bool, int, float or str."""
    is_optional: bool
    """Whether None is allowed."""
    choices: tuple[str, ...]
    """Allowed values of text; empty where any is."""
    limits: tuple[Limit, ...]
    """Limits of a number."""
    use: Searched | Fixable | None
    """What a search space may do with it; None if nothing."""
    unchanged: frozenset[str]
    """Of numbers and times, what it does not change."""

    def limit_problem(self, value: float) -> str | None:
        """Which limit a number exceeds, as the end of a sentence; None if none."""
        return next((problem for limit in self.limits if (problem := limit.problem(value))), None)


def declarations_of(settings: type) -> dict[str, Declaration]:
    """What each field of a dataclass declares, in the order of the fields."""
    return {name: _declaration(hint) for name, hint in typing.get_type_hints(settings, include_extras=True).items()}


def _declaration(annotation: Any) -> Declaration:
    extras: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *rest = typing.get_args(annotation)
        extras = tuple(rest)
    is_optional = isinstance(annotation, types.UnionType)
    if is_optional:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    names = [one.names for one in extras if isinstance(one, OneOf)]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else (*names, ())[0]
    return Declaration(
        kind=str if choices else annotation,
        is_optional=is_optional,
        choices=choices,
        limits=tuple(one for one in extras if isinstance(one, Limit)),
        use=next((one for one in extras if isinstance(one, Searched | Fixable)), None),
        unchanged=frozenset(one.what for one in extras if isinstance(one, Unchanged)),
    )
