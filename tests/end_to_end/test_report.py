"""The report and the recommended commands of the real search."""

import os
import re
import subprocess
import sys

import pytest

from results import load_trials
from results.analysis.evidence import gather
from results.analysis.importance import varied_knobs
from tests.results.chromium import browser, chromium_or_skip
from tests.results.report_page import accessibility_problems, front_points, hover_over_front, overflowing_plots
from tests.timellm.tiny_runs import write_series
from timellm.contract.columns import knob_name
from timellm.contract.layout import PICKS
from timellm.forecasting.place import checkpoint_file


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_of_a_real_search_works_offline_in_a_browser(searched, tmp_path, width):
    chromium_or_skip()
    trials = load_trials(searched.folder.path)
    first = trials[trials["is_pareto"]].sort_values("seconds_per_epoch").iloc[0]

    with browser(tmp_path / "profile") as page:
        page.open(searched.folder.report, width)
        points = front_points(page)
        hovered = hover_over_front(page, 0)
        problems = accessibility_problems(page)
        page_width, too_wide = page.evaluate("document.documentElement.scrollWidth"), overflowing_plots(page)
        requests = page.requests

    assert points == (trials["is_pareto"].sum(), trials["is_pareto"].sum())
    assert first["trial_id"] in hovered
    varied = varied_knobs(trials)
    assert [name for name in varied if f"{knob_name(name)} {first[name]}" not in hovered] == []
    assert problems == []
    assert page_width <= width
    assert too_wide == 0
    assert page.errors == []
    assert requests == [searched.folder.report.resolve().as_uri()]


def test_every_complete_trial_of_a_real_search_is_shown_with_the_training_of_its_error(searched):
    evidence = gather(searched.folder)

    trainings = {row["trial_id"]: evidence.recommendation.verdict.training(row) for _, row in evidence.main.iterrows()}
    complete = evidence.main[(evidence.main["state"] == "complete").to_numpy()]
    assert [trainings[row["trial_id"]].val_mse for _, row in complete.iterrows()] == list(complete["val_mse"])
    sections = set(re.findall(r'id="(\w+)"', searched.folder.report.read_text()))
    assert "examples" in sections
    has_curves = any(trainings[trial].curve for trial in complete["trial_id"])  # a short training has none
    assert ("learning" in sections) == has_curves


@pytest.mark.parametrize("pick", PICKS)
def test_each_recommended_command_trains(searched, tmp_path, pick):
    """As it stands, with shorter data after it: flags that follow win."""
    write_series(tmp_path / "series.csv", rows=250, channels=2)
    short = ["--data", "custom", "--root_path", str(tmp_path), "--data_path", "series.csv", "--percent", "20"]
    short += ["--seq_len", "48", "--train_epochs", "1"]
    files = searched.folder.recommendation(pick)
    command = ["bash", str(files.command), *short]

    ended = subprocess.run(
        command, cwd="/", env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, timeout=600
    )

    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"test mse \d+\.\d{6}, mae \d+\.\d{6}", ended.stdout.splitlines()[-1])
    assert "smollm2-135m" in ended.stdout
    assert checkpoint_file(files.path) == files.checkpoint
