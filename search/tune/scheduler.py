"""The Ray Tune scheduler that stops poor trials at rungs."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.decide.clocks.schedulers import Scheduler
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE


class RungScheduler(FIFOScheduler):
    """First come, first served, except for trials that do not pass a rung of the search's scheduler.

    Only the sampler's trials can be stopped: the baseline, the plans and confirmations always end.

    Args:
        scheduler: One of `search.decide.clocks.schedulers.SCHEDULERS`.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that does not pass its rung."""
        seconds = trial.config.get(SECONDS_PER_EPOCH) or result.get(SECONDS_PER_EPOCH)
        found = [result.get("samples"), result.get(VAL_MSE), seconds]
        if not trial.config["can_stop_early"] or any(value is None or value <= 0 for value in found):
            return TrialScheduler.CONTINUE
        samples, mse, _ = found
        passes = self._scheduler.passes(trial.config["trial_id"], int(samples), (mse, seconds))  # type: ignore[arg-type]
        return TrialScheduler.CONTINUE if passes else TrialScheduler.STOP
