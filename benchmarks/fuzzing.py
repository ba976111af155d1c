"""Odd inputs, made from a seed, and what a command does with them: the frame that kinds of input are hung into."""

import contextlib
import io
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from timellm.contract.errors import ExitStatus

LIMIT_SECONDS = 30
"""What computes for longer, or does not compute at all for so long, counts as a hang, however busy the machine is."""
_IDLE_SECONDS = 0.5
"""What computes for less than this in the time of a hang waits for something that does not come."""
STATUSES = tuple(ExitStatus)
"""What a command may end with."""


@dataclass(frozen=True)
class Case:
    """One input, and the command that reads it, in this process.

    Attributes:
        words: What stands on the command line, for the record.
        command: Runs the command; returns its exit status or raises SystemExit.
    """

    words: tuple[str, ...]
    command: Callable[[], int]


Maker = Callable[[random.Random, Path], Case]
"""Makes an input of a kind in an empty folder."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        kind: Name of the kind.
        number: Number of the input; with kind and seed it makes the same input again.
        words: The command line.
        status: Exit status; None after a traceback or a hang.
        seconds: How long the command computed.
        problem: What it did wrong: a traceback, a hang, another status, more than one line; None if nothing.
    """

    kind: str
    number: int
    words: tuple[str, ...]
    status: int | None
    seconds: float
    problem: str | None


class _HangError(BaseException):
    """Raised by the alarm; no command catches it."""


def fuzz(makers: Mapping[str, Maker], inputs: int, seed: int = 0) -> Iterator[Outcome]:
    """Make inputs of every kind in turn and run each command in this process.

    Args:
        makers: Kinds of input by name.
        inputs: How many in all.
        seed: Of everything that is drawn.
    """
    names = list(makers)
    for number in range(inputs):
        kind = names[number % len(names)]
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            case = makers[kind](random.Random(f"{seed} {kind} {number}"), Path(folder))
            yield _outcome(kind, number, case)


def damaged(draw: random.Random, content: bytes) -> bytes:
    """The same bytes four times in five; cut off, or some of them changed, otherwise."""
    if draw.random() < 0.8 or not content:
        return content
    if draw.random() < 0.5:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _outcome(kind: str, number: int, case: Case) -> Outcome:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # a terminal takes no half of a letter either
    stderr = io.StringIO()
    started = time.process_time()
    status, problem = None, None
    try:
        with _alarm(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = case.command()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except KeyboardInterrupt:
        raise
    except _HangError:
        problem = f"hang: more than {LIMIT_SECONDS} s"
    except BaseException as error:  # whatever it is, a user would see a traceback
        where = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"traceback: {type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
    seconds = time.process_time() - started
    if problem is None:
        problem = _wrong_end(status, stderr.getvalue())
    return Outcome(kind, number, case.words, status, seconds, problem)


def _wrong_end(status: int | None, stderr: str) -> str | None:
    if status not in STATUSES:
        return f"status {status}"
    if "Traceback (most recent call last)" in stderr:
        return "traceback on stderr"
    lines = [line for line in stderr.splitlines() if line.strip()]
    return "silence: status 2 without a line that says why" if status == 2 and not lines else None


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    started = last = time.process_time()

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.process_time()
        if last - before < _IDLE_SECONDS or last - started > LIMIT_SECONDS:
            raise _HangError
        signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
