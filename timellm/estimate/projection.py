"""What a run will take, concluded from a few measured batches."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.result import RunResult
from timellm.estimate.measurement import Failure, Measured, Round
from timellm.measure.timing import Estimate, bootstrap_mean


@dataclass(kw_only=True)
class TrainingEstimate(RunResult):
    """The names of a run's result, and what only an estimate has.

    `*_low` and `*_high` end 95 % intervals of what another process of these settings takes.
    """

    seconds_per_batch_low: float | None = None
    """Lower end of seconds_per_batch."""
    seconds_per_batch_high: float | None = None
    """Upper end of seconds_per_batch."""
    test_seconds: float | None = None
    """One pass over every test window."""
    seconds_per_epoch_with_validation_low: float | None = None
    """Lower end of seconds_per_epoch_with_validation."""
    seconds_per_epoch_with_validation_high: float | None = None
    """Upper end of seconds_per_epoch_with_validation."""
    seconds_per_epoch_with_validation_and_test: float | None = None
    """An epoch with a whole validation and a whole test pass, as published scripts run it."""
    seconds_per_epoch_with_validation_and_test_low: float | None = None
    """Lower end of seconds_per_epoch_with_validation_and_test."""
    seconds_per_epoch_with_validation_and_test_high: float | None = None
    """Upper end of seconds_per_epoch_with_validation_and_test."""
    seconds_per_run: float | None = None
    """All epochs, their validations and the test, unless it stops early; start-up and compilation come on top."""
    seconds_per_run_low: float | None = None
    """Lower end of seconds_per_run."""
    seconds_per_run_high: float | None = None
    """Upper end of seconds_per_run."""
    seconds_per_1000_iterations: float | None = None
    """1,000 training batches, their share of the optimizer steps included."""
    seconds_per_1000_iterations_low: float | None = None
    """Lower end of seconds_per_1000_iterations."""
    seconds_per_1000_iterations_high: float | None = None
    """Upper end of seconds_per_1000_iterations."""
    seconds_per_10000_iterations: float | None = None
    """10,000 training batches."""
    seconds_per_10000_iterations_low: float | None = None
    """Lower end of seconds_per_10000_iterations."""
    seconds_per_10000_iterations_high: float | None = None
    """Upper end of seconds_per_10000_iterations."""
    batches_per_epoch: int | None = None
    """Training batches of one epoch."""
    steps_per_epoch: int | None = None
    """Optimizer steps of one epoch."""
    steps_per_run: int | None = None
    """Optimizer steps of the whole run, unless it stops early."""
    validations_per_run: int | None = None
    """Validation passes of the whole run, unless it stops early."""
    profile: dict[str, Any] | None = None
    """Profile of a few steps, the fields of `StepProfile`, where it was asked for."""
    speedup_vs_first: float | None = None
    """Seconds per epoch of the first setting over this one's, from steps timed side by side."""
    speedup_vs_first_low: float | None = None
    """Lower end of speedup_vs_first."""
    speedup_vs_first_high: float | None = None
    """Upper end of speedup_vs_first."""

    def set_interval(self, name: str, estimate: Estimate) -> None:
        """Set a figure and the ends of its interval; an end that is not known is None."""
        for suffix, value in (("", estimate.mean), ("_low", estimate.low), ("_high", estimate.high)):
            setattr(self, name + suffix, value if math.isfinite(value) else None)


def estimates(settings: list[RunConfig], measured: list[Measured | Failure]) -> list[TrainingEstimate]:
    """Project every setting, and compare it with the first; a setting that failed keeps its state and error.

    Args:
        settings: Runs that were measured side by side.
        measured: What was measured of each, or how it failed.
    """
    results = [
        TrainingEstimate(state=part.state, error=part.error, seed=config.seed)
        if isinstance(part, Failure)
        else estimate_run(config, part)
        for config, part in zip(settings, measured, strict=True)
    ]
    first = measured[0]
    if len(settings) > 1 and not isinstance(first, Failure):
        for config, result, part in zip(settings, results, measured, strict=True):
            if not isinstance(part, Failure):
                ratio = speedup(settings[0], first, config, part)
                is_first = result is results[0]
                result.set_interval("speedup_vs_first", ratio if is_first else ratio.across_processes())
    return results


def estimate_run(config: RunConfig, measured: Measured) -> TrainingEstimate:
    """Project a run from its measured batches.

    Args:
        config: The run's settings.
        measured: What was measured of them.
    """
    result = _described(config, measured)
    seconds, counts = _readings(_typical_rounds(config, measured))
    per_step = bootstrap_mean(seconds, counts).across_processes()
    per_batch = per_step.scaled(1 / config.accumulation_steps)
    steps_per_epoch = math.ceil(measured.epoch_windows / config.global_batch)
    epoch = _mean_step(config, measured).scaled(steps_per_epoch).across_processes()
    validation = _pass(config, measured, measured.validation_windows)
    test = _pass(config, measured, measured.test_windows)
    result.seconds_per_step = per_step.mean
    result.seconds_per_step_median = float(np.median(np.asarray(seconds) / np.asarray(counts)))
    result.samples_per_second = measured.epoch_windows / epoch.mean
    result.validation_seconds, result.test_seconds = validation.mean, test.mean
    result.steps_per_epoch = steps_per_epoch
    result.batches_per_epoch = math.ceil(measured.epoch_windows / config.batch_size)
    result.set_interval("seconds_per_batch", per_batch)
    result.set_interval("seconds_per_epoch", epoch)
    result.set_interval("seconds_per_epoch_with_validation", epoch.plus(validation.scaled(1 / config.validate_every)))
    result.set_interval("seconds_per_epoch_with_validation_and_test", epoch.plus(validation).plus(test))
    for iterations in (1000, 10000):
        result.set_interval(f"seconds_per_{iterations}_iterations", per_batch.scaled(iterations))
    _add_run(result, config, measured, epoch)
    return result


def speedup(first: RunConfig, first_measured: Measured, other: RunConfig, other_measured: Measured) -> Estimate:
    """How many times faster an epoch of another setting is, with the 95 % interval of these two processes.

    Rounds of the two were timed one after the other, so they are resampled in pairs: what slowed down the machine
    for both cancels out.

    Args:
        first: The setting that is compared with.
        first_measured: What was measured of it.
        other: The other setting.
        other_measured: What was measured of it, in as many rounds.
    """
    return bootstrap_mean(_epochs_by_round(first, first_measured), _epochs_by_round(other, other_measured))


def _described(config: RunConfig, measured: Measured) -> TrainingEstimate:
    return TrainingEstimate(
        state=State.COMPLETE,
        is_projected=True,
        startup_seconds=round(measured.startup_seconds, 3),
        compile_seconds=round(measured.compile_seconds, 3),
        peak_memory_gib=round(measured.peak_memory_gib, 4),
        timed_steps=sum(sum(part.counts) for part in measured.rounds),
        trainable_parameters=measured.trainable_parameters,
        total_parameters=measured.total_parameters,
        seed=config.seed,
        device=measured.device,
        backbone=measured.backbone,
        notes=measured.notes,
        profile=None if measured.profile is None else asdict(measured.profile),
    )


def _add_run(result: TrainingEstimate, config: RunConfig, measured: Measured, epoch: Estimate) -> None:
    """Add the whole run: every epoch, the validations between them, and the test of a run on all windows."""
    assert result.steps_per_epoch is not None
    validated = min(config.val_samples or measured.validation_windows, measured.validation_windows)
    validation = _pass(config, measured, validated)
    if config.train_samples is None:
        result.steps_per_run = config.train_epochs * result.steps_per_epoch
        result.validations_per_run = math.ceil(config.train_epochs / config.validate_every)
        training = epoch.scaled(config.train_epochs).plus(_pass(config, measured, measured.test_windows))
    else:
        result.steps_per_run = math.ceil(config.train_samples / config.global_batch)
        result.validations_per_run = 1
        seen_once = bootstrap_mean(*_readings(measured.filling_rounds or measured.rounds)).across_processes()
        training = seen_once.scaled(result.steps_per_run)
    result.set_interval("seconds_per_run", training.plus(validation.scaled(result.validations_per_run)))


def _pass(config: RunConfig, measured: Measured, windows: int) -> Estimate:
    """Seconds of one evaluation of so many windows."""
    batches = math.ceil(windows / (measured.evaluation_batch or config.evaluation_batch))
    start = measured.evaluation_start_seconds
    return bootstrap_mean(measured.evaluation_seconds).scaled(batches).plus(Estimate(start, start, start))


def _typical_rounds(config: RunConfig, measured: Measured) -> list[Round]:
    """The kind of steps that most of the run consists of."""
    return measured.filling_rounds if measured.filling_rounds and config.train_epochs == 1 else measured.rounds


def _mean_step(config: RunConfig, measured: Measured) -> Estimate:
    """Seconds of a step, mean over the planned epochs: with a prompt store the first one fills it."""
    using = bootstrap_mean(*_readings(measured.rounds))
    if not measured.filling_rounds:
        return using
    first = 1 / config.train_epochs
    return bootstrap_mean(*_readings(measured.filling_rounds)).scaled(first).plus(using.scaled(1 - first))


def _readings(rounds: list[Round]) -> tuple[list[float], list[int]]:
    return [value for part in rounds for value in part.seconds], [count for part in rounds for count in part.counts]


def _epochs_by_round(config: RunConfig, measured: Measured) -> list[float]:
    """Seconds per epoch by each round alone."""
    steps = math.ceil(measured.epoch_windows / config.global_batch)
    using = [sum(part.seconds) / sum(part.counts) * steps for part in measured.rounds]
    if not measured.filling_rounds:
        return using
    filling = [sum(part.seconds) / sum(part.counts) * steps for part in measured.filling_rounds]
    first = 1 / config.train_epochs
    return [first * fill + (1 - first) * use for fill, use in zip(filling, using, strict=True)]
