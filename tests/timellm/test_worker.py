import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.timellm.tiny_runs import tiny_config
from timellm.contract.job import Job
from timellm.machine.environment import worker_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


def start(config, run_dir, **job):
    run_dir.mkdir(exist_ok=True)
    asked = Job(config=config, run_dir=str(run_dir), threads=1, **{"min_timed_steps": 2, **job})
    (run_dir / "job.json").write_text(asked.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "timellm.worker", str(run_dir / "job.json")],
        cwd=ROOT,
        env={**os.environ, **worker_environment(1)},
        stderr=subprocess.PIPE,
        text=True,
    )


def events_of(run_dir):
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def result_of(run_dir):
    return json.loads((run_dir / "result.json").read_text())


def test_a_worker_leaves_its_events_and_its_result(folder, tmp_path):
    config = tiny_config(folder, train_samples=16, val_samples=8).to_dict()
    process = start(config, tmp_path)
    process.communicate(timeout=300)
    assert process.returncode == 0
    kinds = [event["event"] for event in events_of(tmp_path)]
    assert kinds[:2] == ["started", "training"]
    assert kinds[-1] == "done"
    assert events_of(tmp_path)[0]["pid"] == process.pid
    assert result_of(tmp_path)["state"] == "complete"


def test_a_worker_that_is_told_to_stop_leaves_a_result(folder, tmp_path):
    process = start(tiny_config(folder, train_epochs=1000).to_dict(), tmp_path)
    deadline = time.monotonic() + 240
    while not any(
        event["event"] == "progress" for event in (events_of(tmp_path) if (tmp_path / "events.jsonl").exists() else [])
    ):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert result_of(tmp_path)["state"] == "interrupted"


def test_a_worker_that_passes_its_memory_limit_says_so(folder, tmp_path):
    process = start(tiny_config(folder).to_dict(), tmp_path, max_memory_gib=0.05)
    process.communicate(timeout=300)
    assert process.returncode == 1
    result = result_of(tmp_path)
    assert result["state"] == "out_of_memory"
    assert result["peak_memory_gib"] > 0.05
    assert "--accumulation_steps" in result["error"]


def test_a_worker_refuses_bad_input_on_one_line(folder, tmp_path):
    config = tiny_config(folder).to_dict() | {"llm_layers": 99, "d_ff": 4000}
    process = start(config, tmp_path)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "llm_layers must be between 1 and 3" in message
    assert len(message.strip().splitlines()) == 1
    assert result_of(tmp_path)["state"] == "failed"
