from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import SeriesData, load_data

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of `rows` hours with columns a, b and OT."""

    def write(rows: int, name: str = "mine.csv", **columns: np.ndarray) -> Path:
        values = np.random.default_rng(0).normal(5, 3, size=(rows, 3))
        dates = pd.date_range("2020-01-01", periods=rows, freq="h")
        frame = pd.DataFrame({"date": dates, "a": values[:, 0], "b": values[:, 1], "OT": values[:, 2], **columns})
        frame.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def _load(path: Path, **changes: Any) -> SeriesData:
    settings = {"data": "custom", "root_path": str(path.parent), "data_path": path.name}
    return load_data(RunConfig(**{**settings, "seq_len": 24, "pred_len": 12, **changes}))


def test_custom_file_is_split_70_10_20_with_input_before_the_borders(write: Write):
    data = _load(write(1003))
    assert [len(split.values) for split in (data.train, data.validation, data.test)] == [702, 101 + 24, 200 + 24]
    assert torch.equal(data.train.values[-24:], data.validation.values[:24])
    assert torch.equal(data.validation.values[-24:], data.test.values[:24])
    assert data.name == "mine"
    assert len(data.checksum) == 64


def test_path_needs_no_root(write: Write):
    assert _load(write(400), root_path=None, data_path=str(write(400))).columns == ("a", "b", "OT")


def test_scaler_is_fitted_on_the_training_rows(write: Write):
    path = write(1000)
    data = _load(path, percent=10)
    rows = pd.read_csv(path)[["a", "b", "OT"]].to_numpy()[:700]
    assert data.mean == pytest.approx(rows.mean(axis=0))
    assert data.std == pytest.approx(rows.std(axis=0))
    assert len(data.train.values) == (700 - 24) * 10 // 100 + 24


def test_constant_column_keeps_its_scale(write: Write):
    data = _load(write(400, a=np.full(400, 0.1)))
    assert data.std[0] == 1.0
    assert float(data.train.values[:, 0].abs().max()) < 1e-6


def test_values_too_large_to_scale_are_refused(write: Write):
    with pytest.raises(InputError, match=r"finite standard deviation, got values too large for one in b\."):
        _load(write(400, b=np.linspace(-1e300, 1e300, 400)))


@pytest.mark.parametrize(("target", "name"), [(None, "OT"), ("b", "b")])
def test_features_s_reads_the_target_alone(write: Write, target: str | None, name: str):
    data = _load(write(400), features="S", target=target)
    assert data.columns == (name,)
    assert data.target == name
    assert data.train.channels == data.validation.channels == 1


def test_features_ms_trains_on_all_columns_and_judges_the_target(write: Write):
    path = write(400)
    every, judged = _load(path), _load(path, features="MS", target="b")
    assert judged.columns == ("a", "b", "OT")
    assert torch.equal(judged.train.values, every.train.values)
    assert torch.equal(judged.validation.values, every.validation.values[:, 1:2])
    assert torch.equal(judged.test.values, every.test.values[:, 1:2])


@pytest.mark.parametrize(("name", "rows_per_hour"), [("ETTh1", 1), ("ETTh2", 1), ("ETTm1", 4), ("ETTm2", 4)])
def test_ett_has_borders_in_months_of_30_days(write: Write, name: str, rows_per_hour: int):
    path = write(20 * 30 * 24 * rows_per_hour + 5, f"{name}.csv")
    data = _load(path, data=name, data_path=None)
    month = 30 * 24 * rows_per_hour
    assert len(data.train.values) == 12 * month
    assert len(data.validation.values) == len(data.test.values) == 4 * month + 24
    assert data.description.startswith("The Electricity Transformer Temperature (ETT)")
    assert data.name == name


def test_incomplete_ett_file_is_refused(write: Write):
    with pytest.raises(InputError, match=r"ETTh1 has published borders and needs at least 14400 rows, got 400"):
        _load(write(400, "ETTh1.csv"), data="ETTh1", data_path=None)


def test_custom_needs_a_file_name(write: Write):
    with pytest.raises(InputError, match="Name it with --data_path"):
        _load(write(400), data_path=None)


def test_too_few_rows_name_every_short_split(write: Write):
    with pytest.raises(InputError, match=r"24 \+ 12 = 36 rows, got training 35, validation 29, test 34 .* of 50 rows"):
        _load(write(50))


def test_window_longer_than_the_validation_split_is_refused(write: Write):
    with pytest.raises(InputError, match=r"got validation 64 \(with 24 rows .*\) of 400 rows.* --pred_len"):
        _load(write(400), pred_len=60)


def test_too_small_a_percentage_is_named(write: Write):
    with pytest.raises(InputError, match=r"got training 26 .* of 400 rows in all at 1 percent"):
        _load(write(400), percent=1)


def test_unknown_target_is_refused(write: Write):
    with pytest.raises(InputError, match="target c is not a column"):
        _load(write(400), features="MS", target="c")


def test_own_description_replaces_the_data_set_s(write: Write):
    assert _load(write(400), prompt_description="Sales.").description == "Sales."
    assert "Measurements" in _load(write(400)).description


def test_every_split_has_a_name(write: Write):
    data = _load(write(400))
    assert data.split("validation") is data.validation
