"""Medians over the seeds of replayed searches, with their 95 % bootstrap intervals."""

import numpy as np

from benchmarks.harness import RESAMPLES, Interval


def median_of(values: np.ndarray) -> Interval:
    """Median over seeds and its 95 % bootstrap interval; infinite values count as the largest."""
    return _interval(float(np.median(values)), _resampled_medians(values, 0))


def ratio_of_medians(values: np.ndarray, base: np.ndarray) -> Interval:
    """Ratio of two medians over seeds, and its 95 % bootstrap interval; infinite where the first is."""
    resamples = _resampled_medians(values, 0) / _resampled_medians(base, 1)
    return _interval(float(np.median(values) / np.median(base)), resamples)


def _resampled_medians(values: np.ndarray, seed: int) -> np.ndarray:
    picks = np.random.default_rng(seed).integers(0, len(values), size=(RESAMPLES, len(values)))
    return np.median(values[picks], axis=1)


def _interval(median: float, resamples: np.ndarray) -> Interval:
    low, high = np.quantile(resamples, [0.025, 0.975], method="nearest")
    return Interval(median, float(low), float(high))
