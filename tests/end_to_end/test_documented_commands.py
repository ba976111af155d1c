"""The commands of the documentation are ones: each is run, or, where that takes a search, read and planned.

The README's first command is the search of `conftest.py`; its second runs these tests.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results import RunFolder, load_trials, recommend
from results.commands import run as run_report
from results.document.recommend import write_recommendation
from search.run import main as run_search
from search.setup.options import parse
from spaces import load_space, narrow, parse_settings
from tests.results.synthetic import make_rows, make_run
from tests.search.searching import ROOT
from tests.timellm.tiny_backbones import save_tiny
from tests.timellm.tiny_runs import write_series

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SHORT = "--num_prototypes 50 --percent 20 --train_epochs 1 --num_threads 1 --llm_layers 1".split()


def commands(script: str) -> list[str]:
    """Every use of a script in the documentation, in the order of the pages."""
    found = [
        match.strip()
        for page in PAGES
        for match in re.findall(rf"python {re.escape(script)}( [^`|\n]*)?(?=[`|\n])", page.read_text())
    ]
    return list(dict.fromkeys(found))


def ids(command: str) -> str:
    return command or "no flags"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the placeholders stand for: data, a language model, a space, two runs."""
    path = tmp_path_factory.mktemp("documented")
    save_tiny("gpt2", path)
    write_series(path / "FILE.csv")
    columns = {name: np.sin(np.arange(17_420) / 24) for name in ("HUFL", "HULL", "OT")}
    dates = pd.date_range("2016-07-01", periods=17_420, freq="h")
    pd.DataFrame({"date": dates, **columns}).to_csv(path / "ETTh1.csv", index=False)
    (space,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs" / "knobs.md").read_text(), re.DOTALL | re.MULTILINE)
    (path / "my.toml").write_text(space)
    for number, name in enumerate(("NAME", "OTHER", "A", "B")):
        make_run(path / "runs" / name, make_rows(24, seed=number))
    return path


def filled(command: str, folder: Path) -> list[str]:
    """The words of a command, its placeholders replaced."""
    paths = {"DIR": folder, "my.toml": folder / "my.toml"}
    paths |= {f"runs/{run.name}": run for run in (folder / "runs").iterdir()}
    return [str(paths.get(word, word)) for word in shlex.split(command)]


@pytest.mark.parametrize("command", commands("search/run.py"), ids=ids)
def test_search_commands_are_read_and_name_a_space(command, folder):
    options, given = parse(filled(command, folder))

    space = narrow(load_space(options.space), parse_settings(options.set))

    assert len(given) == len(set(re.findall(r"--[a-z_-]+", command)))
    assert space.size > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", [text for text in commands("search/run.py") if "--resume" not in text], ids=ids)
def test_search_commands_can_start(command, folder, tmp_path, capsys, monkeypatch):
    """As they stand but for the smoke space where they name none, and a folder in place of the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = [*filled(command, folder), "--dry_run", "--runs_dir", str(tmp_path)]
    arguments += [] if "--space" in command else ["--space", "smoke"]
    arguments += ["--llm_path", str(folder)] if "gpt2" in command and "--llm_path" not in command else []

    assert run_search(arguments) == 0, capsys.readouterr().err
    assert "Nothing was trained." in capsys.readouterr().out


TRAINING = [text for text in commands("timellm/run_main.py") if "--init_from" not in text]
"""`--init_from` needs a checkpoint; `test_run_checkpoint` trains on from one."""


@pytest.mark.parametrize("command", TRAINING, ids=ids)
def test_training_commands_train(command, folder, tmp_path, capsys, monkeypatch):
    """As they stand, with a tiny language model and short data behind them."""
    monkeypatch.chdir(tmp_path)
    status, out = run_timellm("run_main", command, folder, monkeypatch, capsys, "--checkpoints", tmp_path)

    assert status == 0
    assert out.splitlines()[-1].startswith("val mse " if "--train_samples" in command else "test mse ")


@pytest.mark.parametrize("command", commands("timellm/estimate_training_time.py"), ids=ids)
def test_estimating_commands_estimate(command, folder, capsys, monkeypatch):
    short = ["--measure_batches", "3", "--warmup_batches", "1"]
    status, out = run_timellm("estimate_training_time", command, folder, monkeypatch, capsys, *short)

    assert status == 0
    assert "epoch" in out


def run_timellm(name, command, folder, monkeypatch, capsys, *more) -> tuple[int, str]:
    """Exit status and output of a command of `timellm` in this process."""
    from timellm import estimate_training_time, run_main
    from timellm.arguments import run_command

    module = {"run_main": run_main, "estimate_training_time": estimate_training_time}[name]
    data = ["--data", "custom", "--root_path", folder, "--data_path", "FILE.csv", "--seq_len", 48, "--pred_len", 24]
    model = ["--llm_model", "gpt2", "--llm_path", folder]
    words = [f"{name}.py", *filled(command, folder), *data, *model, *SHORT, *more]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(SystemExit) as ended:
        run_command(module.main, module.PROG)
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.mark.parametrize("command", commands("results/report.py"), ids=ids)
def test_report_commands_run(command, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run_report(filled(command, folder)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("pick", re.findall(r"bash runs/NAME/(\S+?\.sh)", (ROOT / "docs" / "faq.md").read_text()))
def test_recommended_commands_are_files_of_a_run(pick, searched):
    assert (RunFolder(searched.folder.path).path / pick).is_file()


def test_two_lines_of_the_readme_lead_from_a_recommended_command_to_a_plotted_forecast(folder):
    """As they stand, with a tiny language model and short data behind the first."""
    (block,) = re.findall(r"^```bash\n(bash runs/NAME/.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    train, forecast = block.splitlines()
    run = RunFolder(folder / "runs" / "NAME")
    manifest = run.read_manifest()
    write_recommendation(run, recommend(load_trials(run.path), manifest), manifest)
    data = ["--data", "custom", "--root_path", folder, "--data_path", "FILE.csv", "--seq_len", 48, "--pred_len", 24]
    short = [
        *data,
        "--llm_model",
        "gpt2",
        "--llm_path",
        folder,
        "--offload_optimizer",
        "off",
        "--precision",
        "fp32",
        *SHORT,
    ]
    environment = {**os.environ, "PYTHON": sys.executable, "TIMELLM_ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}
    script, *flags = filled(forecast, folder)[1:]
    for words in ([*shlex.split(train), *map(str, short)], [sys.executable, str(ROOT / script), *flags]):
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    place = run.recommendation("balanced").path
    assert done.stdout.splitlines()[-2:] == [f"plot: {place / 'forecast.html'}", f"forecast: {place / 'forecast.csv'}"]
    assert len(pd.read_csv(place / "forecast.csv")) % 24 == 0
    assert (place / "runs").is_dir()


def test_no_command_is_overlooked():
    """Scripts that the documentation calls are those above, and those of the benchmarks."""
    scripts = {name for page in PAGES for name in re.findall(r"python3? (\S+?\.py)\b", page.read_text())}
    known = {"search/run.py", "timellm/run_main.py", "timellm/estimate_training_time.py", "results/report.py"}
    known |= {"timellm/forecast.py"}  # `test_forecasting_embedded` runs its page

    assert {name for name in scripts - known if not name.startswith("benchmarks/")} == set()
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
