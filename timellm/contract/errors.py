"""The one error that a user's input can cause, how a command ends, and errors in one line."""

import io
import sys
from collections.abc import Iterable
from enum import IntEnum

from timellm.contract.columns import State


class ExitStatus(IntEnum):
    """How a command ends."""

    DONE = 0
    NOTHING = 1
    """Nothing usable came out."""
    WRONG = 2
    """Wrong usage or input."""
    INTERRUPTED = 130
    """Ended by the user."""

    @classmethod
    def of(cls, state: str) -> "ExitStatus":
        """The status of a process that trained once and ended in a state."""
        return {State.COMPLETE: cls.DONE, State.INTERRUPTED: cls.INTERRUPTED}.get(State(state), cls.NOTHING)


class InputError(ValueError):
    """Wrong usage or input: every command prints it on one line of stderr and exits with status 2.

    Args:
        problems: One message, or several found at once. Each says the requirement, what came, and
            what to do.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(" ".join(" ".join(problem.split()) for problem in self.problems))


def refuse(error: InputError, start: str = "") -> ExitStatus:
    """Print a wrong input on one line of stderr, as every command does.

    Args:
        error: What is wrong. What would command a terminal, or turn its writing round, becomes a question mark.
        start: What the line begins with, such as the command's name.

    Returns:
        The exit status of the command.
    """
    print(printable(f"{start}: {error}" if start else str(error)), file=sys.stderr)
    return ExitStatus.WRONG


def print_any_text() -> None:
    """Let standard output and error take every text: what their encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Text of a user's files for a terminal: what would command it, or turn its writing round, is a question mark."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def first_line(error: object, otherwise: str = "") -> str:
    """The first line of an error's message that says anything.

    Args:
        error: An exception, or what a process has printed.
        otherwise: Where it says nothing.
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), otherwise)


def last_line(text: object, otherwise: str = "") -> str:
    """The last line that says anything; in a traceback, it says what went wrong.

    Args:
        text: An exception, or what a process has printed.
        otherwise: Where it says nothing.
    """
    return next((line.strip() for line in reversed(str(text).splitlines()) if line.strip()), otherwise)


def one_line(error: object, otherwise: str = "", most: int = 300) -> str:
    """The whole message of an error in one line, cut off after so many characters.

    Args:
        error: An exception.
        otherwise: Where it says nothing.
        most: Characters that are kept.
    """
    return " ".join(str(error).split())[:most] or otherwise


def error_words(error: BaseException) -> str:
    """An unexpected error in one line: its type and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"
