import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from timellm.prompts.statistics import normalise_windows, normalised_statistics, top_lags, window_statistics

windows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 40)),
    elements=st.floats(-100, 100, width=32),
)


def _autocorrelation(row: np.ndarray) -> np.ndarray:
    """Circular autocorrelation by its definition."""
    values = row.astype(np.float64)
    return np.array([np.dot(values, np.roll(values, lag)) for lag in range(len(values))])


@given(windows)
def test_normalised_windows_have_zero_mean_and_at_most_unit_deviation(x: np.ndarray):
    normalised = normalise_windows(torch.from_numpy(x)).double()
    assert normalised.mean(dim=-1).abs().max() < 1e-2
    assert normalised.std(dim=-1, unbiased=False).max() < 1 + 1e-3


@given(windows)
def test_statistics_equal_those_of_each_window_alone(x: np.ndarray):
    normalised = normalise_windows(torch.from_numpy(x))
    statistics = normalised_statistics(normalised)
    for index, row in enumerate(normalised.numpy()):
        assert statistics.minimum[index] == row.min()
        assert statistics.maximum[index] == row.max()
        assert statistics.median[index] == np.sort(row)[(len(row) - 1) // 2]
        assert statistics.is_upward[index] == (row[-1] > row[0])


@given(windows)
def test_top_lags_have_the_largest_autocorrelations(x: np.ndarray):
    normalised = normalise_windows(torch.from_numpy(x))
    for row, lags in zip(normalised.numpy(), top_lags(normalised).tolist(), strict=True):
        expected = _autocorrelation(row)
        tolerance = 1e-8 * max(1.0, expected[0])
        assert len(lags) == len(set(lags)) == min(5, len(row))
        assert lags[0] == 0
        left = np.delete(expected, lags)
        assert (np.diff(expected[lags]) <= tolerance).all()
        assert left.size == 0 or expected[lags].min() >= left.max() - tolerance


@given(windows)
def test_of_two_lags_that_tie_the_smaller_comes_first(x: np.ndarray):
    length = x.shape[1]
    for lags in top_lags(normalise_windows(torch.from_numpy(x))).tolist():
        for place, lag in enumerate(lags):
            if lag > length / 2:
                assert length - lag in lags[:place]


def test_statistics_do_not_depend_on_the_other_windows():
    x = torch.randn(50, 96, generator=torch.Generator().manual_seed(0))
    together = window_statistics(x)
    for index in range(50):
        alone = window_statistics(x[index : index + 1])
        assert alone.minimum[0] == together.minimum[index]
        assert alone.lags[0].tolist() == together.lags[index].tolist()


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_lags_of_a_constant_window_are_the_smallest(value: float):
    assert window_statistics(torch.full((1, 96), value)).lags.tolist() == [[0, 1, 2, 3, 4]]


def test_lags_of_a_daily_cycle_are_its_multiples():
    hours = torch.arange(96, dtype=torch.float32)
    lags = window_statistics(torch.sin(2 * torch.pi * hours / 24)[None]).lags
    assert lags.tolist() == [[0, 24, 48, 72, 1]]


def test_lags_of_a_window_of_odd_length():
    x = torch.zeros(1, 7)
    x[0, 2] = 1
    assert window_statistics(x).lags.shape == (1, 5)


def test_normalisation_is_the_published_one():
    normalised = normalise_windows(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert normalised.numpy() == pytest.approx((np.array([[-1.5, -0.5, 0.5, 1.5]])) / np.sqrt(1.25 + 1e-5), rel=1e-6)
