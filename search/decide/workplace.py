"""What the jobs of a search may use where they run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timellm.contract.config import RunConfig
from timellm.contract.job import MAX_TIMING_SECONDS, MIN_TIMED_STEPS, Clock, Job, Launch


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What jobs may use.

    Attributes:
        threads: CPU threads of a run.
        max_memory_gib: Memory limit of a run, GiB; None for none. An error training has none: it measures no memory.
        timing_seconds: Bound on the steady steps of a timing, seconds.
        launch: What it takes to start a run on several devices; None on one.
        devices: Devices that a trial trains on together.
        order_seed: Seed of the windows that errors are trained on, the same for every seed of a training.
        is_causal: Whether the language model's prompts can be reused.
    """

    threads: Callable[[RunConfig], int] = lambda config: 1
    max_memory_gib: float | None = None
    timing_seconds: float = MAX_TIMING_SECONDS
    launch: Callable[[RunConfig], Launch | None] = lambda config: None
    devices: int = 1
    order_seed: int | None = None
    is_causal: bool = True

    def job(
        self,
        config: RunConfig,
        folder: Path,
        clock: Clock,
        *,
        steps: int = MIN_TIMED_STEPS,
        rungs: tuple[int, ...] = (),
        least_seconds: float = 0.0,
    ) -> Job:
        """A job.

        Args:
            config: The run's settings.
            folder: Where its files go, absolute.
            clock: What is measured.
            steps: Steady steps to time at least.
            rungs: Training windows seen after which it validates on its way.
            least_seconds: What the steady steps take as predicted, so that their bound leaves time for them.
        """
        is_error = clock == "error"
        return Job(
            config=config.to_dict(),
            run_dir=str(folder),
            threads=self.threads(config),
            max_memory_gib=None if is_error else self.max_memory_gib,
            min_timed_steps=steps,
            max_timing_seconds=max(self.timing_seconds, least_seconds),
            rungs=rungs,
            launch=self.launch(config),
            clock=clock,
            prompt_memory_gib=config.prompt_store_gib if is_error and not config.has_no_backbone else None,
            order_seed=self.order_seed if is_error else None,
        )
