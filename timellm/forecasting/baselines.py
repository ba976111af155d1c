"""Forecasts that need no training, in own units: what a trained one has to beat."""

import numpy as np

LAST_VALUE, SEASONAL_NAIVE = "last value", "seasonal naive"


def last_value(values: np.ndarray, ends: np.ndarray, columns: np.ndarray, pred_len: int) -> np.ndarray:
    """The last value, repeated.

    Args:
        values: History [rows, columns].
        ends: Row after each window's input [windows].
        columns: Their columns [windows].
        pred_len: Steps to forecast.

    Returns:
        Forecasts [windows, pred_len].
    """
    return np.repeat(values[ends - 1, columns][:, None], pred_len, axis=1)


def seasonal_naive(values: np.ndarray, ends: np.ndarray, columns: np.ndarray, pred_len: int, season: int) -> np.ndarray:
    """The last season, repeated; arguments as `last_value`, and the season in steps, which must lie in the history."""
    steps = np.arange(pred_len)
    rows = ends[:, None] - season + steps % season  # [windows, pred_len]
    return values[rows, columns[:, None]]


def naive_name(season: int) -> str:
    """The name of the seasonal naive forecast; with a season of one step it is the last value."""
    return f"{SEASONAL_NAIVE} ({season})" if season > 1 else LAST_VALUE
