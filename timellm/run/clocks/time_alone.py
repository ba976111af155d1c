"""The time of a setting, without its error: a few steady steps and a few validation batches."""

import math
import time
from collections.abc import Callable

from timellm.machine.environment import synchronize
from timellm.run.clocks.running import Running
from timellm.run.evaluate import Scores

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


def time_validation(running: Running) -> tuple[Scores, float]:
    """Validate a few batches.

    The first batch counts once, because it holds what a pass begins with: the text prototypes, the start of loader
    workers. Compiled code and a GPU have one more batch before it, which is not part of the pass.

    Returns:
        Their scores, and the seconds of a pass over all validation windows of the data set.
    """
    size, chosen = running.validation_batch, running.prepared.windows.validation
    windows = chosen.repeat(math.ceil(VALIDATION_BATCHES * size / len(chosen)))[: VALIDATION_BATCHES * size]
    marks: list[float] = []

    def mark() -> None:
        synchronize(running.device)
        marks.append(time.perf_counter())

    warms_up = running.config.compile_mode != "off" or running.device.type == "cuda"
    scores = running.score(windows, between_batches=mark, warms_up=warms_up)
    later = (marks[-1] - marks[0]) / (VALIDATION_BATCHES - 1)
    first = scores.seconds - (marks[-1] - marks[0])
    return scores, first + later * max(0.0, running.prepared.windows.all_validation / size - 1)
