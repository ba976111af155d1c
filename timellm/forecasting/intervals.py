"""Split-conformal intervals around forecasts, from a checkpoint's validation errors."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from timellm.contract.errors import InputError
from timellm.run.residuals import KINDS, LEVELS, Calibration, deviation

DEFAULT_LEVEL = 90
"""Level of an interval that nobody chose, percent."""

CAVEAT = (
    "Intervals are split-conformal, from errors on validation windows. The same windows chose the checkpoint, and "
    "windows of a series are not exchangeable, so the level is what they aim at, not a promise."
)
"""What a reader of an interval must know."""


@dataclass(frozen=True, eq=False, slots=True)
class Intervals:
    """Half widths of one level and kind.

    Attributes:
        level: Percent.
        kind: plain, or scaled by the deviation of the window that a forecast follows.
        half_widths: Scaled units, or deviations [columns, pred_len]; infinite where too few windows told.
    """

    level: int
    kind: str
    half_widths: np.ndarray

    def around(self, x: Tensor, columns: np.ndarray) -> np.ndarray:
        """Half widths of windows' forecasts, scaled units [windows, pred_len].

        Args:
            x: Scaled inputs [windows, seq_len].
            columns: Their columns [windows].
        """
        chosen = self.half_widths[columns]
        return chosen * deviation(x).cpu().numpy() if self.kind == "scaled" else chosen


def intervals_of(calibration: Calibration, level: int, kind: str | None = None) -> Intervals:
    """The intervals of a level.

    Args:
        calibration: From a checkpoint.
        level: Whole percent, 50 to 99.
        kind: plain or scaled (default: what halves of the validation windows chose).

    Raises:
        InputError: If the level or kind is none, or the checkpoint saw too few validation windows for the level.
    """
    check_level(level)
    if kind is not None and kind not in KINDS:
        raise InputError(f"interval must be {' or '.join(KINDS)}, got {kind!r}.")
    kind = kind or calibration.kind
    half_widths = calibration.quantiles[kind][LEVELS.index(level)].numpy()
    if not np.isfinite(half_widths).all():
        count = calibration.windows
        highest = max((one for one in LEVELS if -(-(count + 1) * one // 100) <= count), default=None)
        remedy = f"Use --level {highest} or less" if highest else "Train with more validation rows"
        raise InputError(
            f"level {level} needs more validation windows than the {count} of a column that the checkpoint saw. "
            f"{remedy}, or no interval with --interval none."
        )
    return Intervals(level, kind, half_widths)


def check_level(level: int) -> None:
    """Refuse a level that no quantile is kept of."""
    if level not in LEVELS:
        raise InputError(f"level must be a whole percent from {LEVELS[0]} to {LEVELS[-1]}, got {level!r}.")


def interval_names(level: int) -> tuple[str, str]:
    """Columns of an interval's ends, the convention of statsforecast."""
    return f"y_hat-lo-{level}", f"y_hat-hi-{level}"
