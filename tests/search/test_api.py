import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import search
from results import RunFolder
from search.api import SearchResult
from tests.timellm.forecast_runs import wave
from tests.timellm.tiny_backbones import save_tiny
from timellm.contract.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os
import pandas as pd
import search

frame = pd.read_parquet("frame.parquet")
before = dict(os.environ)
result = search.search(
    frame, "smoke", num_trials=1, fidelity=8, name=NAME, llm_model="gpt2", llm_path="backbone",
    set={"precision": "fp32", "batch_size": [4, 8]},
)
assert dict(os.environ) == before
print(len(result.trials), "trial,", *result.picks)
"""
TRAIN = """
forecaster = result.train("balanced", train_samples=16, num_threads=1)
print(forecaster.forecast(frame).ds.iloc[0])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    save_tiny("gpt2", folder / "backbone")
    wave(500).to_parquet(folder / "frame.parquet")
    return folder


def environment(place):
    return {**os.environ, "PYTHONPATH": str(ROOT), "TIMELLM_CACHE_DIR": str(place / "cache"), "HF_HUB_OFFLINE": "1"}


def test_a_plain_script_searches_a_frame_trains_a_pick_and_forecasts(place):
    (place / "plain.py").write_text(SCRIPT.replace("NAME", "'plain'") + TRAIN)
    done = subprocess.run(
        [sys.executable, "plain.py"], cwd=place, env=environment(place), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    assert done.stdout.splitlines()[-1] == "2024-01-21 20:00:00"
    folder = RunFolder(place / "runs" / "plain")
    assert list(pd.read_parquet(folder.data).columns) == ["date", "indoor", "outdoor"]
    assert str(folder.path) in folder.recommended_command.read_text()
    assert folder.recommendation("balanced").checkpoint.is_file()
    result = SearchResult(folder)
    assert "balanced" in result.picks
    assert all(pick.reason in folder.recommendation(name).reasons.read_text() for name, pick in result.picks.items())
    with pytest.raises(InputError, match="pick must be one of"):
        result.forecaster("cheapest")
    with pytest.raises(InputError, match="The pick fastest was not trained"):
        result.forecaster("fastest")


@pytest.mark.slow
def test_a_notebook_searches_a_frame_and_shows_the_picks(place, monkeypatch):
    for name, value in environment(place).items():
        monkeypatch.setenv(name, value)
    code = SCRIPT.replace("NAME", "'note'")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (code, "result")])
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(place)}}).execute()
    said = "".join(output.text for output in book.cells[0].outputs if "text" in output)
    assert "1 trial, " in said
    assert "Run folder" in said
    assert "Balanced" in book.cells[1].outputs[-1].data["text/html"]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([1, 2], {}, "must be a pandas DataFrame"),
        (wave(100), {"data_path": "x.csv"}, "reads no other data, got also data_path"),
        (wave(100), {"resume": "r"}, "Drop data or resume"),
        (None, {"dry_run": True}, "takes no option dry_run"),
        (None, {"set": {"nonsense": 1}}, "nonsense"),
        (wave(100), {"num_trials": 0}, "num_trials must be at least 1, got 0"),
        (wave(30), {}, "Every split must hold seq_len"),
    ],
)
def test_what_a_search_refuses_is_an_input_error_and_leaves_nothing(tmp_path, data, options, message):
    with pytest.raises(InputError, match=message):
        search.search(data, "smoke", runs_dir=tmp_path / "runs", **options)
    assert not list(tmp_path.glob("runs/*"))
