"""The time of a setting, without its error: a few steady steps and a few validation batches."""

import math
import time
from collections.abc import Callable

from timellm.machine.environment import synchronize
from timellm.run.clocks.running import Running

HALF_WIDTH = 0.03
"""Half of the 95 % interval of an epoch's time, relative to it, at which no further step is timed."""

VALIDATION_BATCHES = 3
"""Validation batches that are timed: the first, with whatever a pass begins with, and later ones."""


def time_steps(running: Running, least: int, seconds: float, on_steady: Callable[[], None]) -> None:
    """Take the warm-up and then steady steps, until enough are timed and their interval is tight.

    Args:
        running: The run.
        least: Steady steps of every kind that an epoch has.
        seconds: Bound on the steady steps: beyond it no further one is taken, whatever was timed.
        on_steady: Called once the first steps are over.
    """
    running.stepper.time_more(1, math.inf)
    on_steady()
    running.stepper.time_more(least, seconds, HALF_WIDTH)


def time_validation(running: Running) -> float:
    """Seconds of a pass over all validation windows of the data set, from a few batches.

    The first batch counts once, for it holds what a pass begins with: the text prototypes, the start of loader
    workers. Compiled code has one more batch before it, which is not timed.
    """
    size, chosen = running.validation_batch, running.prepared.windows.validation
    windows = chosen.repeat(math.ceil(VALIDATION_BATCHES * size / len(chosen)))[: VALIDATION_BATCHES * size]
    if running.config.compile_mode != "off":
        running.score(windows[:size])
    marks: list[float] = []

    def mark() -> None:
        synchronize(running.device)
        marks.append(time.perf_counter())

    mark()
    running.score(windows, between_batches=mark)
    first, later = marks[1] - marks[0], (marks[-1] - marks[1]) / (VALIDATION_BATCHES - 1)
    return first + later * max(0.0, running.prepared.windows.all_validation / size - 1)
