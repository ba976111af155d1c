"""What the clocks of a run say, as the columns of time."""

import math

from timellm.contract.result import RunResult
from timellm.run.clocks.running import Running
from timellm.run.evaluate import Scores


class TimeReport:
    """Turns readings into seconds per epoch and the like, as far as there are readings.

    Args:
        running: The run.

    Attributes:
        validations: Scores of the validations so far, in order.
        validation_seconds: One pass over all validation windows, where it was measured apart.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self.validations: list[Scores] = []
        self.validation_seconds: float | None = None

    def write(self, result: RunResult) -> None:
        """Set the columns of time."""
        config, prepared, stepper = self._running.config, self._running.prepared, self._running.stepper
        result.is_projected = config.train_samples is not None
        measured = stepper.seconds_per_epoch()
        result.timed_steps = stepper.timed_steps
        if measured is None:
            return
        epoch = measured.across_processes()
        result.seconds_per_epoch, result.seconds_per_epoch_low = epoch.mean, epoch.low
        result.seconds_per_epoch_high = epoch.high if math.isfinite(epoch.high) else None
        result.samples_per_second = prepared.windows.epoch_windows / epoch.mean
        steady = stepper.seconds_per_step()
        result.seconds_per_step, result.seconds_per_step_median = steady
        result.seconds_per_batch = steady[0] / config.accumulation_steps
        extra = self._compiling_seconds(steady[0]) if config.compile_mode != "off" else 0.0
        result.compile_seconds = round(self._running.engine.compile_seconds + extra, 3)
        if (validation := self._seconds_of_validation()) is not None:
            result.validation_seconds = validation
            result.seconds_per_epoch_with_validation = epoch.mean + validation / config.validate_every

    def _seconds_of_validation(self) -> float | None:
        """One pass over all validation windows of the data set; None before any was validated."""
        if self.validation_seconds is not None or not self.validations:
            return self.validation_seconds
        seconds = sum(scores.seconds for scores in self.validations)
        windows = sum(scores.windows for scores in self.validations)
        return seconds / windows * self._running.prepared.windows.all_validation

    def _compiling_seconds(self, steady: float) -> float:
        """What compiled code took when it was first run, in training and in validation, above what it takes."""
        validating = 0.0
        if self.validations:
            scores = self.validations[0]
            batches = math.ceil(scores.windows / self._running.validation_batch)
            validating = max(0.0, scores.warmup_seconds - scores.seconds / batches)
        return self._running.stepper.warmup_excess(steady) + validating
