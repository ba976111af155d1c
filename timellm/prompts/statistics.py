"""What the official prompt says of a window, for many windows at once."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TOP_LAGS = 5
_EPSILON = 1e-5
_TIE_DIGITS = 9
"""Autocorrelations, relative to lag 0, that agree to this many digits count as equal: below it is rounding."""


@dataclass(frozen=True, eq=False, slots=True)
class WindowStatistics:
    """Statistics of n normalised windows.

    Attributes:
        minimum: Smallest value [n], float32.
        maximum: Largest value [n], float32.
        median: Lower median [n], float32.
        is_upward: Whether the last value is above the first [n], bool.
        lags: Lags of the largest circular autocorrelations, best first [n, min(5, seq_len)], int64.
    """

    minimum: np.ndarray
    maximum: np.ndarray
    median: np.ndarray
    is_upward: np.ndarray
    lags: np.ndarray


def normalise_windows(x: Tensor) -> Tensor:
    """Instance normalisation: zero mean and unit standard deviation over time.

    Args:
        x: Scaled windows [..., seq_len].

    Returns:
        Normalised windows of the same shape, float32.
    """
    x = x.float()
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + _EPSILON)


def window_statistics(x: Tensor) -> WindowStatistics:
    """Statistics of windows that are not normalised yet.

    Args:
        x: Scaled windows [n, seq_len].
    """
    return normalised_statistics(normalise_windows(x))


def normalised_statistics(normalised: Tensor) -> WindowStatistics:
    """Statistics of windows as they are given.

    Args:
        normalised: Normalised windows [n, seq_len], float32.
    """
    return WindowStatistics(
        minimum=normalised.amin(dim=-1).numpy(),
        maximum=normalised.amax(dim=-1).numpy(),
        median=normalised.median(dim=-1).values.numpy(),
        is_upward=(normalised[:, -1] > normalised[:, 0]).numpy(),
        lags=top_lags(normalised).numpy(),
    )


def top_lags(normalised: Tensor) -> Tensor:
    """Lags of the largest circular autocorrelations, by the Wiener-Khinchin theorem.

    Lags k and seq_len - k tie in exact arithmetic, so both take the smaller one's value; ties go to the smaller lag.
    That, float64 and ignoring the last digits make the lags the same on every processor.

    Args:
        normalised: Normalised windows [n, seq_len].

    Returns:
        Lags [n, min(5, seq_len)], int64, in falling order of autocorrelation; lag 0 comes first.
    """
    length = normalised.shape[-1]
    spectrum = torch.fft.rfft(normalised.double(), dim=-1)
    correlation = torch.fft.irfft(spectrum.abs().square(), n=length, dim=-1)
    lags = torch.arange(length)
    folded = correlation[:, torch.minimum(lags, (length - lags) % length)]
    peak = folded[:, :1].clamp_min(torch.finfo(torch.float64).tiny)
    relative = torch.round(folded / peak, decimals=_TIE_DIGITS)
    order = torch.argsort(relative, dim=-1, descending=True, stable=True)
    return order[:, :TOP_LAGS]
