"""Intervals of timings."""

import math
import tracemalloc

import numpy as np
import pytest

from timellm.measure import timing
from timellm.measure.timing import PROCESS_SPREAD, Estimate, bootstrap_mean


def test_another_process_is_less_certain_than_this_one() -> None:
    steady = Estimate(100.0, 100.0, 100.0).across_processes()
    assert steady.mean == 100
    assert (steady.high - 100, 100 - steady.low) == pytest.approx([196 * math.sqrt(2) * PROCESS_SPREAD] * 2)
    wide = Estimate(100.0, 80.0, 130.0).across_processes()
    assert wide.low == pytest.approx(80, abs=0.5)
    assert wide.high == pytest.approx(130, abs=0.5)


def test_an_unknown_end_stays_unknown() -> None:
    alone = bootstrap_mean([2.0]).across_processes()
    assert (alone.mean, alone.low, alone.high) == (2.0, 0.0, math.inf)


@pytest.mark.parametrize(("step_spread", "steps"), [(0.0, 14), (0.03, 14), (0.03, 100)])
def test_nine_in_ten_of_other_processes_lie_in_the_interval(step_spread: float, steps: int) -> None:
    random = np.random.default_rng(7)

    def process() -> np.ndarray:
        level = 1 + PROCESS_SPREAD * random.standard_normal()
        return level * (1 + step_spread * random.standard_normal(steps))

    held = 0
    for _ in range(300):
        interval = bootstrap_mean(process()).across_processes()
        held += interval.low <= process().mean() <= interval.high
    assert held / 300 > 0.9


def test_of_one_process_the_bootstrap_alone_says_less() -> None:
    here = bootstrap_mean([1.0, 1.1, 0.9, 1.05, 0.95] * 4)
    assert here.low < here.mean < here.high
    assert here.across_processes().high > here.high


def test_resamples_are_sums_of_blocks_as_long_as_the_sample() -> None:
    generator = np.random.default_rng(3)
    for size in (2, 7, 100, 333):
        values, block = generator.random(size), max(1, round(size ** (1 / 3)))
        picks = generator.integers(0, size - block + 1, size=(50, -(-size // block)))
        rows = (picks[:, :, None] + np.arange(block)).reshape(50, -1)[:, :size]
        np.testing.assert_allclose(timing.sums_of_blocks(values, picks, block), values[rows].sum(axis=1))


def test_the_interval_of_a_long_run_takes_little_memory() -> None:
    seconds = np.random.default_rng(0).random(40_000)
    tracemalloc.start()
    bootstrap_mean(seconds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # written out, the resamples take 640 MB
