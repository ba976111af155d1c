import numpy as np
import pandas as pd
import pytest

from timellm.contract.config import SETTINGS, RunConfig
from timellm.contract.errors import InputError
from timellm.data import load_data
from timellm.data.datasets import DATA_SETS

PUBLISHED = {"Weather": ("weather.csv", "10min"), "ECL": ("electricity.csv", "h"), "Traffic": ("traffic.csv", "h")}


def test_the_flag_names_exactly_the_registered_data_sets():
    assert set(SETTINGS["data"].choices) == set(DATA_SETS)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_says_what_it_is_and_where_it_ends(name):
    known = DATA_SETS[name]
    assert known.name == name
    assert known.description.endswith(".")
    train, validation, test = known.split.ends(name, 100_000)
    assert 0 < train < validation < test <= 100_000
    assert known.embedded is None or known.file_name is None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_are_split_70_10_20_and_described(tmp_path, name):
    file_name, frequency = PUBLISHED[name]
    dates = pd.date_range("2016-07-01 02:00", periods=1003, freq=frequency)
    values = np.random.default_rng(0).normal(size=(1003, 3))
    pd.DataFrame({"date": dates, "0": values[:, 0], "1": values[:, 1], "OT": values[:, 2]}).to_csv(
        tmp_path / file_name, index=False
    )
    data = load_data(RunConfig(data=name, root_path=str(tmp_path), features="S", seq_len=24, pred_len=12))
    assert [len(split.values) for split in (data.train, data.validation, data.test)] == [702, 101 + 24, 200 + 24]
    assert data.target == "OT"
    assert data.frequency == frequency
    assert data.description == DATA_SETS[name].published_description


def test_too_few_rows_for_published_borders_are_refused():
    with pytest.raises(InputError, match=r"ETTm1 has published borders and needs at least 57600 rows, got 57599"):
        DATA_SETS["ETTm1"].split.ends("ETTm1", 57_599)
