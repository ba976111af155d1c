"""Time and error in one training: all planned passes, with validations, and the test at the end."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from timellm.contract.result import RunResult
from timellm.machine.process import world_size
from timellm.run.batches import Batch
from timellm.run.checkpoint import load_checkpoint, save_checkpoint
from timellm.run.clocks.error_alone import ends_of_steps
from timellm.run.clocks.options import RunOptions
from timellm.run.clocks.running import Running
from timellm.run.errors import Diverged
from timellm.run.evaluate import Scores
from timellm.run.facts import Facts, facts_of
from timellm.run.forecast_file import TEST_FORECASTS, file_of_test_split
from timellm.run.residuals import Residuals


class WholeTraining:
    """Trains as the run's settings say and keeps the checkpoint of the best validation.

    Args:
        running: The run.
        options: How it is watched.
        checkpoint: Where the checkpoint goes.
        result: Where errors and epochs are set.
        on_scores: Called after each validation.
    """

    def __init__(
        self,
        running: Running,
        options: RunOptions,
        checkpoint: Path,
        result: RunResult,
        on_scores: Callable[[Scores], None],
    ) -> None:
        self._running, self._options, self._checkpoint = running, options, checkpoint
        self._result, self._on_scores = result, on_scores
        self._best: Scores | None = None
        self._stale = 0
        self._facts: Facts | None = None
        self._has_validated = False

    def run(self) -> None:
        """Train, validate, and take steps to time where the training had too few.

        Raises:
            Diverged: If a loss or an error is not finite.
        """
        running, stepper = self._running, self._running.stepper
        last = len(running.prepared.windows.passes) - 1
        for epoch, windows in enumerate(running.prepared.windows.passes):
            *parts, rest = self._parts(windows)
            for part in parts:
                stepper.train(part, ends_pass=False)
                self._validate_at_rung()
            stepper.train(rest)
            self._result.epochs = round(stepper.samples / running.prepared.windows.epoch_windows, 6)
            if epoch != last and (epoch + 1) % running.config.validate_every:
                continue
            self._validate()
            if self._stale >= running.config.patience:
                break
        if stepper.profiler is not None:
            stepper.profiler.close()
        stepper.time_more(self._options.min_timed_steps, self._options.max_extra_seconds)

    def test(self) -> None:
        """Score the best checkpoint on every test window."""
        running, prepared = self._running, self._running.prepared
        if running.engine.rank == 0:
            load_checkpoint(self._checkpoint, prepared.model)
        running.engine.share(parameter.data for _, parameter in prepared.model.trained_parameters())
        windows = torch.arange(len(prepared.data.test))
        if self._options.saves_forecasts:
            file = file_of_test_split(self._options.folder / TEST_FORECASTS, running.config, prepared.data)
            scores = running.score(windows, batches=prepared.test, on_forecast=file.add)
            file.close()
        else:
            scores = running.score(windows, batches=prepared.test)
        self._result.test_mse, self._result.test_mae = scores.mse, scores.mae

    def _parts(self, windows: Tensor) -> list[Tensor]:
        """The windows of a pass, cut after each rung."""
        rungs = self._options.rungs if self._running.config.train_samples else ()
        ends = ends_of_steps(rungs, self._running.config.global_batch * world_size(), len(windows))
        return list(windows.tensor_split(sorted(ends)))

    def _validate_at_rung(self) -> None:
        """Validate on the way: it tells whether going on pays, and is the result only if the run is stopped here."""
        self._set_error(scores := self._scores())
        self._on_scores(scores)

    def _validate(self) -> None:
        running = self._running
        residuals = Residuals(running.prepared.data.validation) if self._options.checkpoint is not None else None
        scores = self._scores(None if residuals is None else residuals.add)
        if self._best is None or scores.mse < self._best.mse:
            self._best, self._stale = scores, 0
            self._set_error(scores)
            if running.engine.rank == 0 and (residuals is not None or running.config.train_samples is None):
                self._save_checkpoint(residuals)
        else:
            self._stale += 1
        self._on_scores(scores)

    def _scores(self, on_forecast: Callable[[Batch, Tensor], None] | None = None) -> Scores:
        running = self._running
        warms_up = not self._has_validated and (running.config.compile_mode != "off" or running.device.type == "cuda")
        scores = running.score(running.prepared.windows.validation, warms_up=warms_up, on_forecast=on_forecast)
        self._has_validated = True
        if not math.isfinite(scores.mse):
            raise Diverged(running.stepper.steps_done, running.config.precision)
        return scores

    def _set_error(self, scores: Scores) -> None:
        result = self._result
        result.val_mse, result.val_mae, result.val_samples = scores.mse, scores.mae, scores.windows

    def _save_checkpoint(self, residuals: Residuals | None) -> None:
        model, config = self._running.prepared.model, self._running.config
        if residuals is None:
            save_checkpoint(self._checkpoint, model, config)
            return
        self._facts = self._facts or facts_of(config, self._running.prepared)
        save_checkpoint(self._checkpoint, model, config, self._facts, residuals.calibration())
