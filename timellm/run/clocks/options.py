"""How a run is watched and stopped."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timellm.contract.job import MAX_EXTRA_SECONDS, MAX_TIMING_SECONDS, MIN_TIMED_STEPS, Clock

Event = dict[str, Any]


@dataclass
class RunOptions:
    """How a run is watched and stopped; none of it changes a number.

    Attributes:
        folder: Where the run's files go.
        checkpoint: Where a checkpoint that can forecast goes, also in a run on train_samples. None: only a run on all
            windows leaves one, in the folder, with its parameters alone.
        init_from: Checkpoint whose parameters the training starts from.
        saves_forecasts: Leave the forecasts of the test split in the folder.
        max_memory_gib: Memory limit; a run that passes it ends as out_of_memory.
        min_timed_steps: Steady steps to time at least; a run too short for it takes extra ones after its validation.
        max_extra_seconds: Bound on those extra steps, seconds; one is always taken where none was timed.
        is_profiled: Record some steps after the warm-up and leave their profile and trace in the folder.
        clock: What is measured: time and error in one training, its time alone, or its error alone.
        max_timing_seconds: Bound on the steady steps of a run that measures its time alone, seconds.
        prompt_memory_gib: Size limit of the prompt memory that a run that measures its error alone shares with others,
            GiB; None for none.
        order_seed: Seed of which training windows are seen and when (default: the run's own).
        rungs: Windows seen after which a run on train_samples validates on its way, outside the timing; rounded up
            to whole optimizer steps.
        on_event: Called with what happens.
        should_stop: Set from outside to end the run in good order.
    """

    folder: Path
    checkpoint: Path | None = None
    init_from: Path | None = None
    saves_forecasts: bool = False
    max_memory_gib: float | None = None
    min_timed_steps: int = MIN_TIMED_STEPS
    max_extra_seconds: float = MAX_EXTRA_SECONDS
    is_profiled: bool = False
    clock: Clock = "together"
    max_timing_seconds: float = MAX_TIMING_SECONDS
    prompt_memory_gib: float | None = None
    order_seed: int | None = None
    rungs: Sequence[int] = ()
    on_event: Callable[[Event], None] = lambda event: None
    should_stop: threading.Event = field(default_factory=threading.Event)
