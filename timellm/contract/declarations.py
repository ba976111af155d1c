"""What a setting declares beside its type: limits, its flag, whether a search may vary it, what it changes.

A field of a dataclass carries these in its annotation, `Annotated[int, AtLeast(1), Searched()]`. The settings of a run
and the options of a search are declared in this way; the flags, the checks of their values, the search spaces and the
sharing of errors between trials all read them there.
"""

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from timellm.contract.words import shortened

KIND_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""Each type of a setting, as an error says what is wanted."""

MOST = 10**9
"""Largest whole number of a setting that declares no other: what is larger can be neither counted nor stored."""

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
        return None if value >= self.end else f"must be at least {self.end:g}, got {shortened(str(value))}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number up to this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value <= self.end else f"must be at most {self.end:g}, got {shortened(str(value))}"


@dataclass(frozen=True, slots=True)
class Above:
    """A number that is greater than this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value > self.end else f"must be above {self.end:g}, got {shortened(str(value))}"


@dataclass(frozen=True, slots=True)
class Below:
    """A number that is less than this one."""

    end: float

    def problem(self, value: float) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return None if value < self.end else f"must be below {self.end:g}, got {shortened(str(value))}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Text that names an entry of a registry, where the names cannot be written as a `Literal`."""

    names: tuple[str, ...]


Limit = AtLeast | AtMost | Above | Below


@dataclass(frozen=True, slots=True)
class Shown:
    """How the flag of a setting is shown by --help."""

    metavar: str | None = None
    """Name of the value; argparse's own where it is None."""
    default: str | None = None
    """The default in words, where its value does not say it."""


@dataclass(frozen=True, slots=True)
class ReadBy:
    """How the text of a flag is read, where the type of the setting does not say it."""

    read: Callable[[str], Any]
    """Gives the value; raises `argparse.ArgumentTypeError` with the end of a sentence for a text that is wrong."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A flag without a value that switches the setting on; `--no-NAME` switches off what is on by default."""


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
    is_repeated: bool
    """Whether the value is a tuple of such scalars, one for every time that the flag is given."""
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
    shown: Shown
    """How its flag is shown."""
    read: Callable[[str], Any] | None
    """What reads the text of its flag; None where its type does."""
    is_switch: bool
    """Whether its flag takes no value."""

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        return self.type_problem(value) or (self.limit_problem(value) if is_number(value) else None)

    def type_problem(self, value: Any) -> str | None:
        """What is wrong with the type of a value, as the end of a sentence; None if nothing is."""
        if value is None and self.is_optional:
            return None
        if self.is_repeated:
            is_right = isinstance(value, tuple) and all(isinstance(one, self.kind) for one in value)
            return None if is_right else f"must be several of {KIND_WORDS[self.kind]}, got {shortened(repr(value))}"
        if self.choices:
            is_one = isinstance(value, str) and value in self.choices
            return None if is_one else f"must be one of {', '.join(self.choices)}, got {shortened(repr(value))}"
        accepted = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            return f"must be {KIND_WORDS[self.kind]}, got {shortened(repr(value))}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be finite, got {value!r}"
        return _text_problem(value) if isinstance(value, str) else None

    def limit_problem(self, value: float) -> str | None:
        """Which limit a number exceeds, as the end of a sentence; None if none.

        No number has more than 64 bits, and no whole one is above `MOST` where nothing else is declared.
        """
        bits = value.bit_length() if self.kind in (int, float) and isinstance(value, int) else 0
        exceeded = (problem for limit in self.limits if (problem := limit.problem(value)))
        if bits <= 64 and (problem := next(exceeded, None)):
            return problem
        if bits > 63:
            return f"must be {KIND_WORDS[self.kind]} of at most 64 bits, got one of {bits} bits"
        is_bounded = self.kind is not int or any(isinstance(limit, AtMost | Below) for limit in self.limits)
        return None if is_bounded else AtMost(MOST).problem(value)


def declarations_of(settings: type) -> Mapping[str, Declaration]:
    """What each field of a dataclass declares, in the order of the fields."""
    return {name: _declaration(hint) for name, hint in typing.get_type_hints(settings, include_extras=True).items()}


def type_problems(settings: Any, declared: Mapping[str, Declaration]) -> dict[str, str]:
    """What is wrong with the types of a dataclass's values, by field, each as the end of a sentence."""
    found = {name: one.type_problem(getattr(settings, name)) for name, one in declared.items()}
    return {name: problem for name, problem in found.items() if problem}


def limit_problems(settings: Any, declared: Mapping[str, Declaration]) -> dict[str, str]:
    """What is wrong with the numbers among a dataclass's values, by field, each as the end of a sentence."""
    numbers = {name: getattr(settings, name) for name in declared if is_number(getattr(settings, name))}
    found = {name: declared[name].limit_problem(value) for name, value in numbers.items()}
    return {name: problem for name, problem in found.items() if problem}


def is_number(value: object) -> bool:
    """Whether a value is a number, which a truth value is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text_problem(text: str) -> str | None:
    """What is wrong with a text, as the end of a sentence: an empty one says nothing, and some cannot be written."""
    if not text.strip():
        return f"must not be empty, got {text!r}. Leave it out"
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return f"must be UTF-8 text, got {shortened(ascii(text))}. Rename it"
    return None


def _declaration(annotation: Any) -> Declaration:
    extras: tuple[Any, ...] = ()
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, *rest = typing.get_args(annotation)
        extras = tuple(rest)
    is_optional = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    if is_optional:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    is_repeated = typing.get_origin(annotation) is tuple
    if is_repeated:
        annotation = typing.get_args(annotation)[0]
    names = [one.names for one in extras if isinstance(one, OneOf)]
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else (*names, ())[0]
    return Declaration(
        kind=str if choices else annotation,
        is_repeated=is_repeated,
        is_optional=is_optional,
        choices=choices,
        limits=tuple(one for one in extras if isinstance(one, Limit)),
        use=next((one for one in extras if isinstance(one, Searched | Fixable)), None),
        unchanged=frozenset(one.what for one in extras if isinstance(one, Unchanged)),
        shown=next((one for one in extras if isinstance(one, Shown)), Shown()),
        read=next((one.read for one in extras if isinstance(one, ReadBy)), None),
        is_switch=any(isinstance(one, Switch) for one in extras),
    )
