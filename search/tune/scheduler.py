"""The Ray Tune scheduler that stops poor trials at rungs."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.decide.clocks.halving import Halving
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE


class HalvingScheduler(FIFOScheduler):
    """First come, first served, but for trials that do not pass a rung of `Halving`.

    Only the sampler's trials can be stopped: the baseline, the plans and confirmations always end.

    Args:
        halving: The rungs.
    """

    def __init__(self, halving: Halving) -> None:
        super().__init__()
        self._halving = halving

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that is not among the best of its rung."""
        seconds = trial.config.get(SECONDS_PER_EPOCH) or result.get(SECONDS_PER_EPOCH)
        found = [result.get("samples"), result.get(VAL_MSE), seconds]
        if not trial.config["can_stop_early"] or any(value is None or value <= 0 for value in found):
            return TrialScheduler.CONTINUE
        samples, mse, _ = found
        passes = self._halving.passes(trial.config["trial_id"], int(samples), (mse, seconds))  # type: ignore[arg-type]
        return TrialScheduler.CONTINUE if passes else TrialScheduler.STOP
