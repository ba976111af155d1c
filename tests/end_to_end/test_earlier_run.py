"""The run folder of an earlier version is read, compared, rebuilt and resumed, its rows unchanged."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from results import RunFolder, build_report, compare, load_trials, pareto_front
from results.analysis.picks import recommend
from tests.search.searching import search

EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_run"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())
"""What the version that made the folder read from it."""
IDENTITY = ["trial_id", "state", "source", "seed", "started_at"]
MEASURED = ["val_mse", "val_mae", "seconds_per_epoch", "peak_memory_gib", "total_seconds", "joint_score"]


@pytest.fixture
def earlier(tmp_path) -> RunFolder:
    """A copy of the folder that may be written to."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    return RunFolder(tmp_path / "earlier")


def test_rows_front_and_picks_of_an_earlier_run_are_as_they_were():
    trials = load_trials(EARLIER)
    recommendation = recommend(trials, RunFolder(EARLIER).read_manifest())

    assert len(trials) == EXPECTED["rows"]
    assert sorted(pareto_front(trials)["trial_id"]) == EXPECTED["front"]
    assert recommendation.reference["trial_id"] == EXPECTED["reference"]
    for name, (trial_id, speedup, mse_change) in EXPECTED["picks"].items():
        pick = recommendation.pick(name)
        assert pick.trial_id == trial_id
        assert pick.speedup.value == pytest.approx(speedup, abs=1e-5)
        assert pick.mse_change == pytest.approx(mse_change, abs=1e-5)


def test_an_earlier_run_is_rebuilt_and_compared(earlier):
    build_report(earlier)

    assert "t0005" in earlier.report.read_text()
    compared = compare(earlier.path, EARLIER)
    assert list(compared["a"].dropna()) == list(compared["b"].dropna())
    assert "t0005" in earlier.recommendation("fastest").reasons.read_text()


def test_an_earlier_run_goes_on_and_keeps_its_rows(earlier):
    before = load_trials(EARLIER)

    ended = search(earlier.path.parent, "--resume", "earlier", "--num_trials", "11", seconds=0.05)

    assert ended.returncode == 0, ended.stderr
    after = load_trials(earlier.path)
    sampled = after[after["source"] != "confirm"]
    assert len(sampled) == 11
    kept = after[after["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
    for name in [*IDENTITY, *MEASURED[:-1]]:
        pd.testing.assert_series_equal(kept[name], before[name], check_categorical=False)
