"""Quantiles of validation errors, for split-conformal intervals (Lei et al. 2018, arXiv 1604.04173, section 2.2).

An interval's half width is the k-th smallest absolute error of n validation windows, k = ceil((n + 1) level), by column
and step ahead: as it is, or, for windows of unlike size, divided by the window's own deviation (section 5.2 there).
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from timellm.data import Split
from timellm.run.batches import Batch

LEVELS = tuple(range(50, 100))
"""Levels that quantiles are kept of, percent."""

KINDS = ("plain", "scaled")
"""Errors as they are, and divided by the deviation of the window they follow."""

JUDGED_LEVEL = 90
"""Level at which the halves of the validation windows choose between the two kinds, percent."""

_LEAST_DEVIATION = 1e-5
"""Added to a window's variance, as in the network's own normalisation."""


def deviation(x: Tensor) -> Tensor:
    """Standard deviation of windows [windows, seq_len] as the network takes it [windows, 1]."""
    return torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + _LEAST_DEVIATION)


@dataclass(frozen=True)
class Calibration:
    """Half widths of intervals, scaled units.

    Attributes:
        quantiles: By kind: absolute errors [levels, columns, pred_len], float32; infinite where too few windows tell.
        kind: The kind that was better on halves of the validation windows.
        windows: Validation windows of each column, at least.
    """

    quantiles: dict[str, Tensor]
    kind: str
    windows: int


@dataclass
class Residuals:
    """Gathers the errors of validation windows, one column at a time; columns must come one after the other.

    Attributes:
        split: The validation windows.
    """

    split: Split
    _column: int = -1
    _parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _quantiles: dict[str, list[np.ndarray]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    _penalties: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    _windows: list[int] = field(default_factory=list)
    _columns: list[int] = field(default_factory=list)

    def add(self, batch: Batch, forecast: Tensor) -> None:
        """Take the forecasts [windows, pred_len] of a batch; windows of a column follow each other."""
        count = len(batch.y)
        columns = (batch.indices[:count] // self.split.windows_per_channel).cpu().numpy()
        errors = (forecast - batch.y).abs().float().cpu().numpy()
        deviations = deviation(batch.x[:count]).float().cpu().numpy()
        for column in np.unique(columns):
            if column != self._column:
                self._finish_column()
                self._column = int(column)
            chosen = columns == column
            self._parts.append((errors[chosen], deviations[chosen]))

    def calibration(self) -> Calibration | None:
        """What the errors say; None where a column has none."""
        self._finish_column()
        if self._columns != list(range(self.split.channels)):
            return None
        quantiles = {kind: torch.from_numpy(np.stack(found, axis=1)) for kind, found in self._quantiles.items()}
        kind = min(KINDS, key=lambda name: self._penalties[name])
        return Calibration(quantiles, kind, min(self._windows))

    def _finish_column(self) -> None:
        if not self._parts:
            return
        errors = np.concatenate([part for part, _ in self._parts])
        deviations = np.concatenate([part for _, part in self._parts])
        self._parts.clear()
        self._columns.append(self._column)
        self._windows.append(len(errors))
        self._quantiles["plain"].append(conformal_quantiles(errors, LEVELS))
        self._quantiles["scaled"].append(conformal_quantiles(errors / deviations, LEVELS))
        self._penalties["plain"] += _cross_penalty(errors, np.ones_like(deviations))
        self._penalties["scaled"] += _cross_penalty(errors, deviations)


def conformal_quantiles(errors: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """The k-th smallest error for each level, k = ceil((n + 1) level).

    Args:
        errors: Absolute errors [windows, pred_len].
        levels: Percent.

    Returns:
        Half widths [levels, pred_len], float32; infinite where k exceeds the number of windows.
    """
    count = len(errors)
    ordered = np.sort(errors, axis=0)
    # Whole numbers: in floating point (n + 1) * 0.9 may come out a hair above a whole k.
    ranks = [-(-(count + 1) * level // 100) for level in levels]
    infinite = np.full(errors.shape[1], np.inf, dtype=np.float32)
    return np.stack([ordered[rank - 1] if rank <= count else infinite for rank in ranks]).astype(np.float32)


def _cross_penalty(errors: np.ndarray, deviations: np.ndarray) -> float:
    """Interval score (Gneiting and Raftery 2007, eq. 43) of each half of the windows, its width taken from the other.

    Args:
        errors: Absolute errors [windows, pred_len], in order of time.
        deviations: What a half width is multiplied by [windows, 1].
    """
    half = len(errors) // 2
    parts = slice(0, half), slice(half, None)
    total = 0.0
    for known, judged in (parts, parts[::-1]):
        half_width = conformal_quantiles(errors[known] / deviations[known], (JUDGED_LEVEL,))[0] * deviations[judged]
        beyond = np.maximum(errors[judged] - half_width, 0.0)
        total += float(np.mean(2 * half_width + 2 / (1 - JUDGED_LEVEL / 100) * beyond))
    return total if math.isfinite(total) else 0.0
