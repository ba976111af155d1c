import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.timellm.forecast_runs import wave
from tests.timellm.tiny_backbones import save_tiny
from timellm import Forecaster
from timellm.contract.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "seq_len=48, pred_len=24, llm_layers=2, num_prototypes=50, batch_size=8, train_samples=16, learning_rate=1e-3, "
    "num_threads=1, llm_model='gpt2', llm_path='gpt2'"
)
SCRIPT = f"""
import os
import pandas as pd
from timellm import Forecaster

frame = pd.read_parquet("frame.parquet")
before = dict(os.environ)
forecaster = Forecaster.train(frame, folder=FOLDER, {SETTINGS})
assert dict(os.environ) == before
frame = forecaster.forecast(frame)
print(len(frame), "rows,", frame.ds.min(), "first")
"""


@pytest.fixture
def place(tmp_path):
    save_tiny("gpt2", tmp_path / "gpt2")
    wave(300).to_parquet(tmp_path / "frame.parquet")
    return tmp_path


def test_forecaster_trains_in_a_plain_script_with_and_without_a_main_guard(place):
    (place / "plain.py").write_text(SCRIPT.replace("FOLDER", "'plain'"))
    body = SCRIPT.replace("FOLDER", "'guarded'").replace("\n", "\n    ")
    (place / "guarded.py").write_text(f"if __name__ == '__main__':\n    {body}\n")
    for name in ("plain.py", "guarded.py"):
        done = subprocess.run(
            [sys.executable, name], cwd=place, env=environment(place), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "48 rows, 2024-01-13 12:00:00 first"
        assert "val mse" in done.stdout
    data = pd.read_parquet(place / "plain" / "data.parquet")
    assert list(data.columns) == ["date", "indoor", "outdoor"]


def test_forecaster_trains_in_a_notebook(place, monkeypatch):
    for name, value in environment(place).items():
        monkeypatch.setenv(name, value)
    cells = [SCRIPT.replace("FOLDER", "'note'"), "forecaster", "forecaster.backtest(pd.read_parquet('frame.parquet'))"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(place)}}).execute()
    first, second, third = (cell.outputs for cell in book.cells)
    assert "48 rows, 2024-01-13 12:00:00 first" in "".join(output.text for output in first if "text" in output)
    assert "2 columns, the next 24 steps" in second[-1].data["text/plain"]
    assert "<table" in third[-1].data["text/html"]


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ([1, 2], {}, "must be a pandas DataFrame"),
        (wave(100), {"data_path": "x.csv"}, "has its own data and folder, got data_path"),
        (wave(60), {"seq_len": 48, "pred_len": 24, "num_threads": 1}, "Every split must hold seq_len"),
        (wave(300), {"batch_size": 0, "num_threads": 1}, "^batch_size must be at least 1, got 0"),
    ],
)
def test_what_a_training_refuses_is_an_input_error(tmp_path, data, settings, message):
    with pytest.raises(InputError, match=message):
        Forecaster.train(data, folder=tmp_path / "run", **settings)


def test_import_timellm_loads_no_torch():
    code = "import sys, timellm; assert 'torch' not in sys.modules; timellm.Forecaster; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def environment(place):
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "TIMELLM_CACHE_DIR": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
