"""Forecasts that need no training: what any model has to beat."""

from collections.abc import Callable

from torch import Tensor

from timellm.data.dates import season_name, season_of
from timellm.data.splits import Split

WINDOWS_PER_CHUNK = 8192


def naive_forecasts(frequency: str | None, seq_len: int) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Forecasts [windows, pred_len or 1] from inputs [windows, seq_len] and pred_len, by name.

    Args:
        frequency: The pandas offset between rows; it tells the season: a day, week or year. None: there is none.
        seq_len: Length of the input; a season must fit in it.
    """
    season, name = season_of(frequency), season_name(frequency)
    forecasts: dict[str, Callable[[Tensor, int], Tensor]] = {
        "last value": lambda x, _: x[:, -1:],
        "window mean": lambda x, _: x.mean(dim=1, keepdim=True),
    }
    if name is not None and season <= seq_len:
        forecasts[f"last {name} ({season} steps) repeated"] = lambda x, length: x[:, -season:].repeat(
            1, -(-length // season)
        )[:, :length]
    return forecasts


def naive_errors(split: Split, windows: Tensor, frequency: str | None = None) -> dict[str, float]:
    """Mean squared error of each naive forecast over windows [windows] of a split, in scaled units."""
    forecasts = naive_forecasts(frequency, split.seq_len)
    squared = dict.fromkeys(forecasts, 0.0)
    for indices in windows.split(WINDOWS_PER_CHUNK):
        x, y = split.gather(indices)
        for label, forecast in forecasts.items():
            squared[label] += (y - forecast(x, split.pred_len)).double().square().sum().item()
    return {label: total / (len(windows) * split.pred_len) for label, total in squared.items()}
