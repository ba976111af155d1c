"""The check on a GPU, tried out on a CPU at a small size."""

import sys

import pytest
import torch

from benchmarks import gpu_stages
from benchmarks.gpu import Gpu, run_stage
from benchmarks.gpu_stages import STAGES, Stage
from benchmarks.record import Record
from tests.timellm.tiny_runs import CPU, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tiny")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_runs_on_a_cpu_at_a_small_size(folder, name):
    rows = list(STAGES[name].run(tiny_config(folder, batch_size=4, llm_layers=1), CPU, True))
    assert len(rows) >= 2
    assert all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in rows)
    if name == "golden":
        assert [row for row in rows if row[2] != "right"] == []
    if name == "exactness":
        assert [row for row in rows[:-1] if not row[2].startswith("right")] == []
        assert rows[-1][2] == "the masks of its steps"
    if name == "levers":
        assert [row for row in rows if not row[2].startswith("complete")] == []
    if name == "launches":
        assert all(int(row[1]) > 100 and row[2].startswith("launches; waits: ") for row in rows)


@pytest.mark.gpu
def test_a_gpu_gives_the_numbers_of_two_passes_and_of_the_steps_that_a_graph_holds(folder):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config = tiny_config(folder, batch_size=4, device="cuda")
    rows = list(STAGES["exactness"].run(config, torch.device("cuda"), False))
    assert [row for row in rows[:-1] if not row[2].startswith("right")] == []


def test_the_limits_of_all_stages_leave_room_in_ten_minutes():
    assert sum(stage.limit_seconds for stage in STAGES.values()) < 600


def test_a_stage_that_passes_its_limit_keeps_what_it_found(monkeypatch):
    monkeypatch.setitem(gpu_stages.STAGES, "slow", Stage(3, gpu_stages.golden))
    code = 'import time; print(\'["a", "1", "s"]\', flush=True); time.sleep(60)'
    found = run_stage("slow", [sys.executable, "-c", code])
    assert found.rows == (("a", "1", "s"),)
    assert "ended at its limit of 3 s" in found.problem


def test_a_stage_that_fails_says_why():
    found = run_stage("golden", [sys.executable, "-c", "raise SystemExit('CUDA error: out of memory')"])
    assert found.problem == "CUDA error: out of memory"


def test_the_file_says_that_no_card_was_measured_and_names_the_command(tmp_path):
    text = str(Gpu().record((), tmp_path / "gpu.md"))
    assert "Not measured yet. On a machine with a CUDA device: `python -m benchmarks gpu --device cuda" in text
    assert isinstance(Gpu().record((), tmp_path / "gpu.md"), Record)
