"""DeepSpeed inside a trial: real Ray, the real worker, a tiny backbone."""

import json
import os
import subprocess
import sys

import pytest

from results import RunFolder, load_trials
from tests.search.searching import ROOT
from tests.timellm.tiny_runs import tiny_config


@pytest.mark.deepspeed
def test_zero_2_trains_inside_a_ray_trial_without_a_port(tmp_path):
    config = tiny_config(tmp_path)
    command = [sys.executable, str(ROOT / "search" / "run.py"), "--space", "smoke", "--num_trials", "1"]
    command += ["--name", "zero", "--runs_dir", str(tmp_path / "runs"), "--no-dashboard"]
    command += ["--set", "offload_optimizer=none", "--data", "custom", "--root_path", str(tmp_path)]
    command += ["--data_path", "series.csv", "--llm_model", "gpt2", "--llm_path", str(config.llm_path)]
    taken = {"MASTER_PORT": "1"}  # a port that cannot be had: the group of one process must not ask for it
    environment = {**os.environ, **taken, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=False)
    folder = RunFolder(tmp_path / "runs" / "zero")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = load_trials(folder.path).to_dict("records")
    log = folder.trial(row["trial_id"]).log.read_text()
    assert (row["state"], row["config/offload_optimizer"]) == ("complete", "none"), log
    assert row["mean_device_utilisation_percent"] > 0
    settings = json.loads((folder.trial(row["trial_id"]).path / "ds_config_zero2.json").read_text())
    assert settings["zero_optimization"]["stage"] == 2
