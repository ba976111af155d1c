"""The error of a set of numbers, without its time: one training, its course, and forecasts to look at."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from timellm.data import SeriesData
from timellm.data.naive import naive_errors, naive_forecasts
from timellm.machine.process import world_size
from timellm.run.batches import Batch
from timellm.run.clocks.running import Running
from timellm.run.errors import Diverged
from timellm.run.evaluate import Scores

CURVE_POINTS = 3
"""Validations on the way, at most; the last point of the curve comes from the validation at the end."""

CURVE_WINDOWS = 128
"""Windows of each of them, at most."""

LEAST_CURVE_WINDOWS = 8
"""With fewer a validation on the way tells nothing and is left out."""

CURVE_SHARE = 0.1
"""Share of all windows that a run sees, trained and validated, that validations on the way may have."""

EXAMPLES = 4
"""Validation windows whose forecasts are kept."""

_DECIMALS = 5
"""Of the scaled values in an example."""


class ErrorTraining:
    """Trains on the run's windows once, and validates at the end and now and then on the way.

    Args:
        running: The run, which has train_samples.
        rungs: Windows seen after which it validates on all validation windows besides.
        on_scores: Called with the scores of each validation on all validation windows.

    Attributes:
        curve: Validation error on the way and at the end, always over the same windows.
        examples: Forecasts of some validation windows; empty before the end.
    """

    def __init__(self, running: Running, rungs: Sequence[int], on_scores: Callable[[Scores], None]) -> None:
        self._running, self._rungs, self._on_scores = running, rungs, on_scores
        self._validation = running.prepared.windows.validation
        (self._windows,) = running.prepared.windows.passes
        self._curve_windows = spread(self._validation, curve_size(len(self._windows), len(self._validation)))
        self.curve: list[dict[str, Any]] = []
        self.examples: list[dict[str, Any]] = []

    def run(self) -> None:
        """Train and validate.

        Raises:
            Diverged: If a loss or an error is not finite.
        """
        size = self._running.config.global_batch * world_size()
        rungs = ends_of_steps(self._rungs, size, len(self._windows))
        wanted = [len(self._windows) * point / (CURVE_POINTS + 1) for point in range(1, CURVE_POINTS + 1)]
        points = ends_of_steps(wanted, size, len(self._windows)) if len(self._curve_windows) else set()
        *parts, rest = self._windows.tensor_split(sorted(rungs | points))
        for part in parts:
            self._running.stepper.train(part, ends_pass=False)
            if self._running.stepper.samples in points:
                self._add_point(self._running.score(self._curve_windows).mse)
            if self._running.stepper.samples in rungs:
                self._validate()
        self._running.stepper.train(rest)
        self._validate(is_last=True)

    def _validate(self, *, is_last: bool = False) -> None:
        parts = _Parts(self._curve_windows, spread(self._validation, EXAMPLES))
        scores = self._running.score(self._validation, on_forecast=parts.add if is_last else None)
        if not math.isfinite(scores.mse):
            raise Diverged(self._running.stepper.steps_done, self._running.config.precision)
        if is_last:
            if len(self._curve_windows):
                self._add_point(parts.mse())
            self.examples = parts.examples(self._running.prepared.data, self._validation)
        self._on_scores(scores)

    def _add_point(self, mse: float) -> None:
        """Note an error of the curve; one that is not finite is left to the loss to report."""
        stepper = self._running.stepper
        if math.isfinite(mse):
            self.curve.append(
                {
                    "step": stepper.steps_done,
                    "samples": stepper.samples,
                    "val_mse": mse,
                    "val_samples": len(self._curve_windows),
                }
            )


class _Parts:
    """Takes from a validation what the curve and the examples need of it.

    Args:
        curve: Windows of the curve [windows].
        shown: Windows of the examples [windows].
    """

    def __init__(self, curve: Tensor, shown: Tensor) -> None:
        self._curve, self._shown = curve, shown
        self._squared, self._values = 0.0, 0
        self._forecasts: dict[int, Tensor] = {}

    def add(self, batch: Batch, forecast: Tensor) -> None:
        """Take a batch and its scaled forecasts [windows, pred_len]."""
        windows = batch.indices[: len(batch.y)].cpu()
        of_curve = torch.isin(windows, self._curve).to(forecast.device)
        errors = (forecast - batch.y)[of_curve].double()
        self._squared += errors.square().sum().item()
        self._values += errors.numel()
        for row in torch.isin(windows, self._shown).nonzero().flatten().tolist():
            self._forecasts[int(windows[row])] = forecast[row].float().cpu()

    def mse(self) -> float:
        """Mean squared error over the windows of the curve."""
        return self._squared / self._values

    def examples(self, data: SeriesData, validated: Tensor) -> list[dict[str, Any]]:
        """History, truth, forecast and naive forecast of the shown windows, in scaled units.

        Args:
            data: The data set.
            validated: The run's validation windows, which say what naive forecast is the best.
        """
        split = data.validation
        errors = naive_errors(split, validated, data.seasonal_frequency)
        name = min(errors, key=lambda label: errors[label])
        naive = naive_forecasts(data.seasonal_frequency, split.seq_len)[name]
        histories, truths = split.gather(self._shown)
        forecasts = naive(histories, split.pred_len).expand(-1, split.pred_len)
        channels = data.columns if len(data.columns) == split.channels else (data.target or "",)
        return [
            {
                "window": window,
                "channel": channels[window // split.windows_per_channel],
                "history": _rounded(history),
                "truth": _rounded(truth),
                "forecast": _rounded(self._forecasts[window]),
                "naive": _rounded(naive_forecast),
                "naive_name": name,
            }
            for window, history, truth, naive_forecast in zip(
                self._shown.tolist(), histories, truths, forecasts, strict=True
            )
        ]


def curve_size(trained: int, validated: int) -> int:
    """Windows of a validation on the way; 0 where the run is too short for any.

    A window that is trained on costs no less than one that is validated, so a share of all windows bounds the share of
    the time, without a clock that would choose other windows on another machine.

    Args:
        trained: Windows that the run trains on.
        validated: Windows that it is validated on at the end.
    """
    each = min(CURVE_WINDOWS, validated, int(CURVE_SHARE * (trained + validated)) // CURVE_POINTS)
    return each if each >= LEAST_CURVE_WINDOWS else 0


def spread(windows: Tensor, count: int) -> Tensor:
    """So many of the windows [windows], evenly spread over them; all where there are fewer."""
    if count >= len(windows):
        return windows
    places = (torch.arange(count, dtype=torch.float64) + 0.5) * (len(windows) / max(1, count))
    return windows[places.long()]


def ends_of_steps(samples: Sequence[float], size: int, most: int) -> set[int]:
    """Windows seen at the first end of a step of `size` windows after each of these; only those before `most`."""
    ends = {math.ceil(each / size) * size for each in samples}
    return {end for end in ends if 0 < end < most}


def _rounded(values: Tensor) -> list[float]:
    return [round(value, _DECIMALS) for value in values.tolist()]
