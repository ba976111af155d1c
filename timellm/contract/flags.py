"""What every command line of the project is read with: one parser, and options whose flags their dataclass makes."""

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from timellm.contract.declarations import KIND_WORDS, Declaration, declarations_of, limit_problems, type_problems
from timellm.contract.errors import InputError
from timellm.contract.words import shortened


class StrictParser(argparse.ArgumentParser):
    """The parser of every command: wrong usage is an `InputError`, one line without the usage text.

    It refuses `--flag=--` as it refuses any other wrong value: argparse takes it for no value at all.

    Args:
        unsupported: Says in a sentence what is wrong with a command line as a whole, before each of its flags is
            refused; None where nothing is.
        options: Those of `argparse.ArgumentParser`.
    """

    def __init__(self, *, unsupported: Callable[[Sequence[str]], str | None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._unsupported = unsupported

    def error(self, message: str) -> NoReturn:
        """Refuse wrong usage.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message[:1].upper()}{message[1:].rstrip('.')}. See {self.prog} --help.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after a look at the whole.

        Raises:
            InputError: For wrong usage.
        """
        words = sys.argv[1:] if args is None else list(args)
        if self._unsupported is not None and (reason := self._unsupported(words)) is not None:
            raise InputError(reason)
        return super().parse_known_args(args, namespace)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and "--" in arg_strings:
            self.error(f"argument {'/'.join(action.option_strings)}: must have a value, got '--'")
        return super()._get_values(action, arg_strings)  # type: ignore[misc]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandOptions:
    """The base of a command's options: each is declared once, as a field, and `add_flags` makes its flag."""

    def __post_init__(self) -> None:
        """Refuse values of another type, and numbers beyond their limits.

        Raises:
            InputError: With every problem found, at once.
        """
        declared = declarations_of(type(self))
        problems = type_problems(self, declared) or limit_problems(self, declared)
        if problems:
            raise InputError(f"--{name} {problem}." for name, problem in problems.items())

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Options of the flags that were given.

        Args:
            given: Values by name; those that are no option of this command are dropped.

        Raises:
            InputError: For a value that the flag does not take, with all such values.
        """
        known = {name: value for name, value in given.items() if name in declarations_of(cls)}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})


def add_flags(parser: argparse.ArgumentParser, settings: type) -> None:
    """Add a flag for every field of a dataclass, in groups under the comments that head its fields.

    Name, type, choices and default are the field's, the help is its docstring. A flag that is not given leaves no
    trace, so that the defaults stand in the dataclass alone; limits are checked there too.

    Args:
        parser: Gets the flags.
        settings: Its fields are declared with `timellm.contract.declarations`, each with a docstring.
    """
    declared = declarations_of(settings)
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    for title, texts in _documented_fields(settings).items():
        group = parser.add_argument_group(title)
        for name, text in texts.items():
            group.add_argument(f"--{name}", **_flag(declared[name], defaults[name], text))


def boolean_flag(default: Any = argparse.SUPPRESS) -> dict[str, Any]:
    """How a flag is added that takes true or false, or no value for true; without a default it leaves no trace."""
    return {"type": _boolean, "nargs": "?", "const": True, "default": default, "metavar": "true|false"}


def text_or_none(text: str) -> str | None:
    """What a flag's text says: an empty one, as `--des "$comment"` passes, says what leaving the flag out does."""
    return text or None


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"must be true or false, got {shortened(text)!r}")
    return known[text.lower()]


def _flag(declared: Declaration, default: Any, text: str) -> dict[str, Any]:
    """The arguments of `add_argument` for one field."""
    words = declared.shown.default or (None if default in (None, ()) else default)
    if words is not None and not (declared.is_switch and default is False):
        text = f"{text.removesuffix('.')} (default: {words})."
    about: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
    if declared.is_switch:
        return {**about, "action": argparse.BooleanOptionalAction if default else "store_true"}
    if declared.kind is bool:
        return {**boolean_flag(), **about}
    about["type"] = declared.read or _reading(declared.kind)
    if declared.choices:
        about["choices"] = declared.choices
    if declared.is_repeated:
        about["action"] = "append"
    if declared.shown.metavar:
        about["metavar"] = declared.shown.metavar
    return about


def _reading(kind: type) -> Callable[[str], Any]:
    """What reads the text of a scalar that is not a truth value."""
    if kind is str:
        return str

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {KIND_WORDS[kind]}, got {shortened(text)!r}") from None

    return read


def _documented_fields(settings: type) -> dict[str, dict[str, str]]:
    """Field names and their docstrings, under the comment that heads them in the class."""
    source = textwrap.dedent(inspect.getsource(settings))
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    groups: dict[str, dict[str, str]] = {}
    for entry, following in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)):
            continue
        assert isinstance(following, ast.Expr)
        assert isinstance(following.value, ast.Constant)
        heads = [line.strip() for line in lines[: entry.lineno] if line.strip().startswith("# ")]
        groups.setdefault(heads[-1][2:], {})[entry.target.id] = " ".join(str(following.value.value).split())
    return groups
