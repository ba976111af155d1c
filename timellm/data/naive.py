"""Forecasts that need no training: what any model has to beat."""

from collections.abc import Callable

from torch import Tensor

from timellm.data.splits import Split

WINDOWS_PER_CHUNK = 8192
SEASONS = {"ETTm1": 96, "ETTm2": 96}
"""Time steps of a day, where they are not hours."""
HOURS_OF_A_DAY = 24


def naive_forecasts(name: str, seq_len: int) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Forecasts [windows, pred_len or 1] from inputs [windows, seq_len] and pred_len, by name.

    Args:
        name: The data set; its day is the season.
        seq_len: Length of the input; a season must fit in it.
    """
    season = SEASONS.get(name, HOURS_OF_A_DAY)
    forecasts: dict[str, Callable[[Tensor, int], Tensor]] = {
        "last value": lambda x, _: x[:, -1:],
        "window mean": lambda x, _: x.mean(dim=1, keepdim=True),
    }
    if season <= seq_len:
        forecasts[f"last {season} steps repeated"] = lambda x, length: x[:, -season:].repeat(1, -(-length // season))[
            :, :length
        ]
    return forecasts


def naive_errors(split: Split, windows: Tensor, name: str = "") -> dict[str, float]:
    """Mean squared error of each naive forecast over windows [windows] of a split, in scaled units."""
    forecasts = naive_forecasts(name, split.seq_len)
    squared = dict.fromkeys(forecasts, 0.0)
    for indices in windows.split(WINDOWS_PER_CHUNK):
        x, y = split.gather(indices)
        for label, forecast in forecasts.items():
            squared[label] += (y - forecast(x, split.pred_len)).double().square().sum().item()
    return {label: total / (len(windows) * split.pred_len) for label, total in squared.items()}
