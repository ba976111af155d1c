"""Forecasts that need no training."""

from collections.abc import Callable

from torch import Tensor

from timellm.data import Split

WINDOWS_PER_CHUNK = 8192

NAIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "last value": lambda x: x[:, -1:],
    "window mean": lambda x: x.mean(dim=1, keepdim=True),
}
"""Forecasts [windows, 1], for every step, from inputs [windows, seq_len]."""


def naive_errors(split: Split, windows: Tensor) -> dict[str, float]:
    """Mean squared error of each naive forecast over windows [windows] of a split."""
    squared = dict.fromkeys(NAIVE, 0.0)
    for indices in windows.split(WINDOWS_PER_CHUNK):
        x, y = split.gather(indices)
        for name, forecast in NAIVE.items():
            squared[name] += (y - forecast(x)).double().square().sum().item()
    return {name: total / (len(windows) * split.pred_len) for name, total in squared.items()}
