"""The schedulers that a search can use, which stop poor trials early: each an entry of `SCHEDULERS`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from search.decide.clocks.halving import Halving
from search.decide.spend.fidelity import Fidelity
from timellm.contract.config import RunConfig


class Scheduler(Protocol):
    """Decides at rungs, counted in training windows seen, which of the sampler's trials go on.

    The baseline, the plans and confirmations have no rungs: they always run to their end.
    """

    def plan(self, fidelity: Fidelity, config: RunConfig, train_windows: int) -> tuple[int, ...]:
        """Choose the rungs; called once the plan is made, before the first of the sampler's trials.

        Args:
            fidelity: How much of the training a trial does.
            config: The baseline.
            train_windows: Windows of the training split.

        Returns:
            Training windows seen, rising, each below those of a whole trial; none if no trial is to be stopped.
        """

    def passes(self, trial_id: str, samples: int, values: Sequence[float]) -> bool:
        """Whether a trial goes on after a report.

        Args:
            trial_id: Name of the trial.
            samples: Training windows it has seen.
            values: Validation MSE and seconds per epoch, each to be minimised and above 0.
        """


class NoScheduler:
    """Stops nothing."""

    def plan(self, fidelity: Fidelity, config: RunConfig, train_windows: int) -> tuple[int, ...]:
        """No rungs."""
        return ()

    def passes(self, trial_id: str, samples: int, values: Sequence[float]) -> bool:
        """Always."""
        return True


def _moasha() -> Scheduler:
    return Halving(())


SCHEDULERS: Mapping[str, Callable[[], Scheduler]] = {
    "moasha": _moasha,
    "none": NoScheduler,
}
"""Every scheduler that `--scheduler` and `[search] scheduler` of a space name."""
