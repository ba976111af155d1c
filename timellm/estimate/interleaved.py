"""Times several settings side by side, each in a process of its own, one at a time."""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import psutil
import torch

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, error_words, first_line
from timellm.estimate.measurement import Failure, Measured, Measurement, MeasurePlan
from timellm.machine.environment import choose_device, worker_environment
from timellm.machine.memory import MemoryWatch, is_out_of_memory
from timellm.run.errors import OUT_OF_MEMORY_REMEDIES, Diverged


def measure_interleaved(
    settings: list[RunConfig], plan: MeasurePlan, threads: int, say: Callable[[str], None]
) -> list[Measured | Failure]:
    """Measure settings in turns: in every round each setting's process takes its share of the steps, the others wait.

    Processes keep memory peaks, allocators and kernels' caches apart and start with the environment that training
    processes start with; turns let what slows down the machine for a while hit all settings alike. The order of a
    round is the reverse of the one before. All settings are in memory at the same time.

    Args:
        settings: What to measure.
        plan: How much of each is timed.
        threads: CPU threads of a process.
        say: Called with lines of progress.

    Returns:
        For each setting what was measured, or how it failed.

    Raises:
        InputError: For settings, data or a language model that do not fit together.
    """
    processes = [_Process(config, plan.of_setting(number), threads) for number, config in enumerate(settings, 1)]
    try:
        for number, process in enumerate(processes, 1):
            process.start()
            say(f"setting {number} of {len(settings)} is ready")
        for turn in range(plan.rounds):
            for process in processes if turn % 2 == 0 else reversed(processes):
                process.take_round()
            say(f"round {turn + 1} of {plan.rounds} is timed")
        return [process.finish() for process in processes]
    finally:
        for process in processes:
            process.stop()


class _Process:
    """The process of one setting, seen from the process that asks it."""

    def __init__(self, config: RunConfig, plan: MeasurePlan, threads: int) -> None:
        self._threads = threads
        self._failure: Failure | None = None
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._theirs: Connection = theirs
        self._process = context.Process(target=_serve, args=(theirs, config.to_dict(), plan, threads))

    def start(self) -> None:
        """Start it, and wait until its warm-up is done."""
        with _environment(worker_environment(self._threads)):
            self._process.start()
        self._theirs.close()
        self._answer()

    def take_round(self) -> None:
        """Have it time its next steps, unless it has failed."""
        if self._failure is None:
            self._ask("round")

    def finish(self) -> Measured | Failure:
        """What it measured, or how it failed."""
        measured: Any = self._ask("finish") if self._failure is None else None
        return measured if self._failure is None else self._failure

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.terminate()
            self._process.join()

    def _ask(self, request: str) -> Any:
        with contextlib.suppress(ConnectionError):  # the answer says how it died
            self._pipe.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            answer = _death(self._process.exitcode)
        if isinstance(answer, InputError):
            raise answer
        if isinstance(answer, Failure):
            self._failure = answer
        return answer


def _serve(pipe: Connection, config: dict[str, Any], plan: MeasurePlan, threads: int) -> None:
    """In the process of one setting: do what the pipe asks for until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process ends this one
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is the report's
    torch.set_num_threads(threads)
    multiprocessing.set_start_method(None, force=True)  # loader workers start as in a training, not by spawn
    try:
        _measure(pipe, RunConfig.from_dict(config), plan)
    except EOFError:
        return
    except InputError as error:
        pipe.send(InputError(error.problems))
    except Exception as error:
        pipe.send(_failure(error))


def _measure(pipe: Connection, config: RunConfig, plan: MeasurePlan) -> None:
    began = psutil.Process().create_time()
    with MemoryWatch(choose_device(config), math.inf) as watch:
        measurement = Measurement(config, plan)
        startup_seconds = time.time() - began
        measurement.warm_up()
        pipe.send("ready")
        while pipe.recv() == "round":
            measurement.take_round()
            pipe.send("timed")
        pipe.send(measurement.finish(startup_seconds, watch))


def _failure(error: Exception) -> Failure:
    first = first_line(error)
    if is_out_of_memory(error):
        return Failure(State.OUT_OF_MEMORY, f"{first or 'Memory ran out.'} {OUT_OF_MEMORY_REMEDIES}")
    if isinstance(error, Diverged):
        return Failure(State.DIVERGED, first)
    return Failure(State.FAILED, error_words(error))


def _death(status: int | None) -> Failure:
    """How a process that said nothing has failed."""
    if status == -signal.SIGKILL:
        return Failure(
            State.OUT_OF_MEMORY, f"The process was killed, perhaps because memory ran out. {OUT_OF_MEMORY_REMEDIES}"
        )
    return Failure(State.FAILED, f"The process ended with status {status} and said nothing.")


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
