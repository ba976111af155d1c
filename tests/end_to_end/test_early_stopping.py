"""Poor trials of the real worker are stopped at its rungs, with real Ray and real Optuna storage."""

import optuna
import pytest

from results import RunFolder, load_trials
from tests.end_to_end.real_searches import FIXED, search_tiny

SPACE = f"""
[space]
name = "early"
[search]
fidelity = 256
{FIXED}
num_workers = 0
[knobs.batch_size]
values = [2, 16]
[knobs.learning_rate]
values = [1e-8, 3e-3]
[knobs.attention]
values = ["eager", "sdpa"]
[baseline]
batch_size = 16
learning_rate = 3e-3
attention = "eager"
"""
SEED = "3"
"""With it the sampler draws the best settings first, and then some that are slower and learn nothing."""


@pytest.mark.slow
def test_a_poor_real_trial_is_stopped_at_a_rung_and_informs_the_sampler(tmp_path):
    ended = search_tiny(
        tmp_path, "early", SPACE, "--scheduler", "moasha", "--num_trials", "4", "--seed", SEED, "--time_budget", "none"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = RunFolder(tmp_path / "runs" / "early")
    trials = load_trials(folder.path).set_index("trial_id")
    assert len(trials) == 4
    complete, stopped = (trials[(trials["state"] == state).to_numpy()] for state in ("complete", "stopped_early"))
    assert len(complete) + len(stopped) == 4, ended.stdout
    poor = stopped.iloc[0]
    assert poor["config/learning_rate"] == 1e-8
    assert poor["train_samples"] == 64
    assert poor["error"] == "Stopped at the rung of 64 training windows: others of that rung were better."
    assert poor["val_mse"] > complete["val_mse"].min()
    assert not (folder.trial(poor.name).path / "error" / "result.json").exists()
    study = optuna.load_study(study_name="early", storage=f"sqlite:///{folder.study}")
    told = next(trial for trial in study.trials if trial.user_attrs.get("trial_id") == poor.name)
    assert told.user_attrs["state"] == "stopped_early"
    assert told.values == pytest.approx([poor["val_mse"], poor["seconds_per_epoch"]])
    assert all(value <= 0 for value in told.constraints.values())
