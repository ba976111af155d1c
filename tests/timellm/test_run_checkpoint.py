import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tests.timellm.test_run_main import run, tiny_flags
from tests.timellm.tiny_backbones import save_tiny
from tests.timellm.tiny_runs import options, tiny_config, write_series
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import CHECKPOINT
from timellm.data import load_data
from timellm.run.checkpoint import read_checkpoint
from timellm.run.residuals import Residuals, conformal_quantiles
from timellm.run.training import TrainingRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny("gpt2", path / "gpt2")
    write_series(path / "series.csv")
    return path


@pytest.fixture
def shared_cache(folder, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(folder / "cache"))


@pytest.mark.parametrize("samples", [[], ["--train_samples", 16, "--val_samples", 30]], ids=["full", "samples"])
def test_a_run_leaves_a_checkpoint_that_its_last_lines_name(
    monkeypatch, capsys, folder, tmp_path, shared_cache, samples
):
    status, out, err = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path, *samples)
    assert status == 0, err
    *_, named, last = out.splitlines()
    found = re.fullmatch(r"checkpoint: (.+)", named)
    assert "test mse" in last
    checkpoint = read_checkpoint(tmp_path / found[1].removeprefix(f"{tmp_path}/"))
    assert checkpoint.facts.columns == ("c0", "c1", "c2")
    assert checkpoint.facts.frequency == "h"
    assert set(checkpoint.facts.seasonal_scales) == {"1", "24"}
    assert checkpoint.facts.trained_until == "2020-01-04T21:00:00"
    assert checkpoint.facts.backbone["checksum"]
    assert checkpoint.calibration.quantiles["plain"].shape == (50, 3, 24)


def test_the_checkpoint_goes_where_it_is_asked_to(monkeypatch, capsys, folder, tmp_path, shared_cache):
    named = tmp_path / "elsewhere" / "mine.safetensors"
    status, out, err = run(
        monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path / "runs", "--checkpoint", named
    )
    assert status == 0, err
    assert out.splitlines()[-2] == f"checkpoint: {named}"
    assert named.is_file()
    assert not list(tmp_path.glob("runs/*/*.safetensors"))


def test_a_trial_leaves_what_it_left_before(tmp_path, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    config = tiny_config(tmp_path, percent=20)
    TrainingRun(config, options(tmp_path / "full")).run()
    TrainingRun(config.replace(train_samples=8, val_samples=6), options(tmp_path / "samples")).run()
    with safe_open(tmp_path / "full" / CHECKPOINT, framework="pt") as file:
        assert set(file.metadata()) == {"config"}
        assert not [name for name in file.keys() if name.startswith("intervals")]  # noqa: SIM118
    assert not list(tmp_path.glob("samples/*.safetensors"))
    with pytest.raises(InputError, match="it is a trial's of a search"):
        read_checkpoint(tmp_path / "full" / CHECKPOINT)


def test_the_history_has_steps_validations_and_a_plot(monkeypatch, capsys, folder, tmp_path, shared_cache):
    status, _, err = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path, "--train_epochs", 2)
    assert status == 0, err
    (left,) = tmp_path.iterdir()
    table = pd.read_csv(left / "history.csv")
    assert list(table.columns) == [
        "step", "epoch", "samples", "seconds", "train_loss", "learning_rate", "val_mse", "val_mae",
    ]  # fmt: skip
    validations = table[table.val_mse.notna()]
    assert validations.epoch.tolist() == [1.0, 2.0]
    assert validations.val_mse.min() == pytest.approx(json.loads((left / "result.json").read_text())["val_mse"])
    assert table.train_loss.notna().any()
    assert (table.seconds.diff().dropna() >= 0).all()
    assert "validation MSE" in (left / "learning_curve.html").read_text()[-20_000:]
    assert list(left.glob("tensorboard/events.out.tfevents.*"))


def test_saved_forecasts_have_the_test_error_that_is_reported(monkeypatch, capsys, folder, tmp_path, shared_cache):
    status, _, err = run(
        monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path, "--save_forecasts", "--batch_size", 7
    )
    assert status == 0, err
    (left,) = tmp_path.iterdir()
    config = RunConfig.from_dict(json.loads((left / "config.json").read_text())["config"])
    data = load_data(config)
    rows = pd.read_parquet(left / "test_forecasts.parquet")
    assert len(rows) == len(data.test) * 24
    errors = (rows.y - rows.y_hat) / rows.unique_id.astype(str).map(dict(zip(data.columns, data.std, strict=True)))
    assert (errors**2).mean() == pytest.approx(json.loads((left / "result.json").read_text())["test_mse"], rel=1e-6)
    series = pd.read_csv(folder / "series.csv", parse_dates=["date"]).set_index("date")
    last = rows[rows.unique_id == "c1"].tail(24)
    np.testing.assert_allclose(last.y, series["c1"].loc[last.ds], rtol=1e-5, atol=1e-6)
    assert (last.ds - last.cutoff).tolist() == [pd.Timedelta(hours=step) for step in range(1, 25)]


def test_training_goes_on_from_a_checkpoint_with_its_settings(monkeypatch, capsys, folder, tmp_path, shared_cache):
    first = tmp_path / "first.safetensors"
    flags = ["--d_ff", 16, "--learning_rate", 1e-3, *tiny_flags(folder)]
    status, _, err = run(monkeypatch, capsys, *flags, "--checkpoints", tmp_path, "--checkpoint", first)
    assert status == 0, err
    second = tmp_path / "second.safetensors"
    status, _, err = run(
        monkeypatch, capsys, "--init_from", first, "--data", "custom", "--root_path", folder, "--data_path",
        "series.csv", "--learning_rate", 1e-12, "--train_samples", 8, "--checkpoint", second, "--checkpoints", tmp_path,
    )  # fmt: skip
    assert status == 0, err
    assert read_checkpoint(second).config.d_ff == 16
    with safe_open(first, framework="pt") as one, safe_open(second, framework="pt") as other:
        name = "mapping_layer.weight"
        torch.testing.assert_close(one.get_tensor(name), other.get_tensor(name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "."], "checkpoint must be a file, got the folder ."),
        (["--init_from", "/nowhere/x.safetensors"], "/nowhere/x.safetensors was not found"),
        (["--save_forecasts", "--train_samples", "8"], "save_forecasts needs a test pass"),
    ],
)
def test_output_that_cannot_be_is_one_line_and_status_2(monkeypatch, capsys, flags, message):
    status, out, err = run(monkeypatch, capsys, *flags)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_conformal_quantile_is_the_kth_smallest_error_and_infinite_beyond_the_last():
    errors = np.arange(1.0, 20.0)[::-1, None]
    half_widths = conformal_quantiles(errors, (50, 90, 95, 96))
    assert half_widths[:, 0].tolist() == [10.0, 18.0, 19.0, float("inf")]


class Shown:
    """A batch of made windows."""

    def __init__(self, indices, x, y):
        self.indices, self.x, self.y = torch.as_tensor(indices), x, y


@pytest.mark.parametrize(("grows", "kind"), [(False, "plain"), (True, "scaled")])
def test_halves_of_the_validation_windows_choose_the_kind_that_suits_the_errors(tmp_path, grows, kind):
    data = load_data(tiny_config(tmp_path, pred_len=4, seq_len=16, patch_len=8))
    generator = torch.Generator().manual_seed(0)
    residuals = Residuals(data.validation)
    for indices in torch.arange(len(data.validation)).split(50):
        size = torch.rand(len(indices), 1, generator=generator) * 5 + 0.1
        x = torch.randn(len(indices), 16, generator=generator) * size
        error = torch.randn(len(indices), 4, generator=generator) * (size if grows else 1.0)
        residuals.add(Shown(indices, x, torch.zeros(len(indices), 4)), error)
    found = residuals.calibration()
    assert found.kind == kind
    assert found.windows == data.validation.windows_per_channel
