import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from tests.timellm.test_data_reading import CASES
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.data.scaling import fit_scaler, scale
from timellm.data.tables import Table

WAVE = np.sin(np.arange(100.0))


def table(**columns: np.ndarray) -> Table:
    values = np.stack(list(columns.values()), axis=1)
    return Table(columns=tuple(columns), values=values, notes=(), dates=pd.Series(range(len(values))))


def notes(**columns: np.ndarray) -> list[str]:
    return fit_scaler(table(**columns), slice(0, 70))[2]


@pytest.mark.parametrize("value", [0.0, 0.1, -273.15, 1e-12, 1e12, 123456.789, 1 / 3])
@pytest.mark.parametrize("rows", [3, 70, 12345])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_scale_of_a_constant_column_is_scikit_learn_s(value, rows):
    """The variance of a constant column is rounding, not zero: its root scaled 0.1 to 1e17."""
    data = table(a=np.full(rows, value), b=np.full(rows, value) + np.arange(rows) % 2 * 1e-14)
    expected = StandardScaler().fit(data.values)
    mean, std, _ = fit_scaler(data, slice(0, rows))
    assert std == pytest.approx(expected.scale_, rel=1e-9)
    assert mean == pytest.approx(expected.mean_, rel=1e-12)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    st.floats(-1e8, 1e8),
    st.sampled_from([0.0, 1e-17, 1e-12, 1e-6, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_scale_of_any_column_is_scikit_learn_s(values, offset, factor):
    column = offset + factor * np.array(values)
    fitted = fit_scaler(table(a=column), slice(0, len(column)))[1]
    expected = StandardScaler().fit(column[:, None]).scale_
    # Where the variance is rounding alone, the two may round it differently; both are tiny or both are 1.
    assert fitted == pytest.approx(expected, rel=1e-3) or np.ptp(column) < 1e-6 * abs(offset)


def test_columns_that_start_later_are_named_and_scaled_by_one():
    late = np.r_[np.zeros(80), WAVE[:20] + 5]
    (note,) = notes(old=WAVE, new=late)
    assert note.startswith("Columns constant in the training rows but not later keep scale 1, as published: new.")


def test_columns_that_never_change_are_named():
    assert notes(a=WAVE, b=np.full(100, 0.1)) == ["Columns constant in all rows keep scale 1: b."]
    assert "another value later" in notes(a=WAVE, b=np.r_[np.zeros(70), np.ones(30)])[0]


def test_columns_that_are_almost_constant_in_training_are_named():
    (note,) = notes(a=WAVE, b=np.r_[1e-6, np.zeros(69), WAVE[:30]])
    assert "Far beyond the training rows later, in their standard deviations: b " in note


def test_ordinary_columns_have_no_note():
    assert notes(a=WAVE, b=np.cumsum(WAVE) * 1e9, c=np.exp(WAVE)) == []


def test_a_value_whose_error_overflows_is_refused_with_its_row():
    data = table(a=WAVE, b=np.r_[WAVE[:90], 1e20, WAVE[91:]])
    mean, std, _ = fit_scaler(data, slice(0, 70))
    with pytest.raises(InputError, match=r"got more: b 1e\+20 in row 91\. Leave those fields empty"):
        scale(data, mean, std)


def test_the_late_sensor_is_named_and_finite():
    data = load_data(
        RunConfig(data="custom", root_path=str(CASES), data_path="late_sensor.csv", seq_len=24, pred_len=12)
    )
    assert data.std[1] == 1.0
    assert any("new" in note and "scale 1, as published" in note for note in data.notes)
    assert float(data.validation.values.abs().max()) < 1e4
