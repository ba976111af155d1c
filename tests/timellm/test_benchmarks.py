import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import NAMES, quality
from benchmarks.arithmetic import flops_of
from benchmarks.document import date_in_index
from benchmarks.harness import median_of, ratio_of, time_interleaved, whole_numbers
from benchmarks.levers_list import guide_rows, levers
from benchmarks.overhead_watch import TrialTimes, gaps_of, startup_of
from benchmarks.projection_cases import Epoch, chosen_settings, made_epoch
from benchmarks.record import Notes, Record, Section, Text, read_sections, rows_file, table
from benchmarks.runner import find
from tests.timellm.tiny_backbones import save_tiny
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import Split, load_data
from timellm.data.naive import naive_errors
from timellm.machine.environment import worker_environment

ROOT = Path(__file__).parents[2]
TINY = "--llm_layers 1 --d_ff 8 --num_prototypes 8 --batch_size 2 --threads 1".split()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return save_tiny("gpt2", tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run_benchmark(name, backbone, cache, output, *flags):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            name,
            "--llm_model",
            str(backbone),
            *TINY,
            "--output",
            str(output),
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ, **worker_environment(1), "TIMELLM_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def cells(text, row):
    """The cells of the first table row that starts with this text."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_step_time_writes_its_tables_with_parity(backbone, cache, tmp_path):
    output = tmp_path / "step_time.md"
    names = "reuse fp32 eager,store fp32,reuse bf16"
    done = run_benchmark("step_time", backbone, cache, output, "--repeats", "1", "--variants", names)
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert "made series of ETTm1's shape" in text
    assert "## GPU\n" in text
    evaluation = text[text.index("| evaluation and parity") :]
    for name in ("reuse fp32 eager", "store fp32"):
        forecast, gradient = map(float, cells(evaluation, name)[-2:])
        assert forecast < 1e-5
        assert gradient < 1e-4
    assert float(cells(text, "store fp32")[-1]) > 0  # memory against the published computation's


def test_epoch_time_projects_an_epoch_of_every_variant(backbone, cache, tmp_path):
    output = tmp_path / "epoch_time.md"
    done = run_benchmark("epoch_time", backbone, cache, output, "--steps", "1", "--batches", "4")
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert "240583 training windows" in text
    assert float(cells(text, "published fp32, batch 32")[1]) > 0
    precision = "bf16" if "store bf16" in text else "fp32"  # the faster one where the test runs
    assert cells(text, f"store {precision}, prompts per span, batch 4, later epochs")[7].endswith("%")


def test_a_benchmark_refuses_an_unknown_variant_on_one_line(backbone, cache, tmp_path):
    done = run_benchmark("step_time", backbone, cache, tmp_path / "x.md", "--variants", "fastest")
    assert done.returncode == 2
    assert re.fullmatch(r"benchmarks step_time: A variant must be one of published, .*, got 'fastest'\.\n", done.stderr)


def test_levers_gives_every_lever_a_row_or_its_reason(backbone, cache, tmp_path):
    output = tmp_path / "levers.md"
    only = ["--bases", "reuse", "--tables", "levers", "--levers", "SDPA attention;AMP fp16;validation every 2nd epoch"]
    fewest = "--repeats 1 --mse_samples 4 --val_samples 4 --jobs 1".split()
    done = run_benchmark("levers", backbone, cache, output, *only, *fewest)
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert float(cells(text, "base")[4]) > 0
    assert float(cells(text, "SDPA attention")[1]) > 0
    assert float(cells(text, "SDPA attention")[4]) > 0
    assert float(cells(text, "validation every 2nd epoch")[2]) > 1
    assert cells(text, "AMP fp16")[3] == "1.5 to 3×"
    assert cells(text, "AMP fp16")[-1].startswith("not run: fp16 is not supported on a CPU.")


def test_the_levers_hold_the_plans_of_the_speed_space_and_what_the_guide_expects():
    plans = {row.name: row for row in guide_rows(RunConfig(), "bf16")}
    assert plans["plan B"].settings["batch_size"] == 128
    assert plans["plan B"].settings["offload_optimizer"] == "none"
    assert plans["plan A"].expects == "15 to 25 min per epoch, 2 to 3.7×"
    rows = {row.name: row for row in levers(RunConfig())}
    assert rows["batch 64"].expects == "1.2 to 1.5×"
    assert rows["3 of 6 layers"].of(RunConfig()).llm_layers == 3


def test_every_lever_changes_the_run():
    base = RunConfig()
    unchanged = [row.name for row in levers(base) if row.of(base) == base]
    assert unchanged == ["the base again"]


@pytest.mark.slow
def test_projection_compares_with_an_epoch_that_was_trained(backbone, cache, tmp_path):
    output = tmp_path / "projection.md"
    short = "--seq_len 24 --pred_len 8 --patch_len 8 --stride 4".split()
    few = "--epoch_windows 120 --samples 16 --measure_batches 4 --settings reuse".split()
    done = run_benchmark("projection", backbone, cache, output, *short, *few)
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert float(cells(text, "reuse")[1]) > 0
    assert "120 training windows" in text
    assert re.search(r"Projections: \d of 2 within 3 %", text)
    assert re.search(r"Estimates: \d of 1 within 3 %", text)


def test_a_made_epoch_has_the_windows_that_were_asked_for(cache, monkeypatch):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(cache))
    settings = made_epoch({"seq_len": 24, "pred_len": 8}, 120)
    assert len(load_data(RunConfig(**settings, seq_len=24, pred_len=8)).train) == 120
    assert made_epoch({"data": "ETTh1"}, 120) == {}
    with pytest.raises(InputError, match="epoch_windows must be a multiple of 4, the channels, got 121"):
        made_epoch({}, 121)


def test_a_projection_names_the_settings_it_knows():
    assert len(chosen_settings(RunConfig(), None)) == 6
    with pytest.raises(InputError, match=r"A setting must be one of recompute, the baseline; .*, got slow"):
        chosen_settings(RunConfig(), "reuse;slow")


def test_an_error_of_a_projection_is_relative_to_the_trained_epoch():
    trained = Epoch(10.0, 9.9, 10.1)
    assert Epoch(10.2, 9.9, 10.4).error_percent(trained) == pytest.approx(2.0)
    assert Epoch(10.2, 9.9, 10.4).covers(trained)
    assert Epoch(10.2, 10.1, None).covers(trained) is False
    with pytest.raises(InputError, match=r"Every run must end complete, got diverged \(x\): no"):
        Epoch.of("x", {"state": "diverged", "error": "no"})


def test_a_gap_is_from_one_training_to_the_next_without_its_start_up():
    trials = {
        "t0002": TrialTimes(training_at=22.0, ended_at=30.0, startup_seconds=5.0),
        "t0001": TrialTimes(training_at=5.0, ended_at=15.0, startup_seconds=4.0),
        "t0003": TrialTimes(),
    }
    (gap,) = gaps_of(trials)
    assert gap.trials == "t0001 to t0002"
    assert gap.seconds == 7.0
    assert gap.beyond == 2.0


def test_a_start_up_is_known_once_the_training_has_begun(tmp_path):
    assert startup_of(tmp_path) is None
    events = tmp_path / "events.jsonl"
    events.write_text('{"event": "started", "pid": 1}\n{"event": "trai')
    assert startup_of(tmp_path) is None
    events.write_text('{"event": "started", "pid": 1}\n{"event": "training", "startup_seconds": 3.5, "steps": 4}\n')
    assert startup_of(tmp_path) == 3.5


@pytest.mark.slow
def test_overhead_measures_a_real_search(backbone, cache, tmp_path):
    output = tmp_path / "overhead.md"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "overhead",
            "--trials",
            "2",
            "--llm_model",
            str(backbone),
            "--output",
            str(output),
        ],
        cwd=ROOT,
        env={**os.environ, "TIMELLM_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    text = output.read_text()
    assert float(cells(text, "t0001 to t0002")[1]) > 0
    assert cells(text, "training processes")[1].endswith("%")


def test_a_section_is_replaced_and_other_devices_are_kept(tmp_path):
    path = tmp_path / "x.md"
    for heading, word in (("CPU: a", "old"), ("CPU: b", "other"), ("CPU: a", "new")):
        section = Section(heading, (Notes((f"Date: {word}",)), table(("a", "b"), [("x", word)])))
        Record("# X", read_sections(path), "python x.py").with_section(section).write(path)
    text = path.read_text()
    assert "old" not in text
    assert "## CPU: a\n\n- Date: new\n" in text
    assert "| x | other |" in text
    assert text.count("## GPU\n") == 1
    assert "`python x.py`" in text


def test_the_stand_in_goes_when_a_gpu_was_measured():
    record = Record("# X", (Section("CPU: a", (Text("cpu"),)),), "python x.py")
    assert "Not measured yet" in str(record)
    assert "Not measured yet" not in str(record.with_section(Section("GPU: h", (Text("gpu"),))))


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_rendered_from_its_rows(name):
    """A figure changed by hand in a Markdown file, or a row in its JSON file, shows."""
    path = ROOT / "benchmarks" / f"{name}.md"
    benchmark = find(name)()
    assert benchmark.name == name
    assert rows_file(path).is_file()
    assert str(benchmark.record(read_sections(path), path)) == path.read_text()


def test_the_index_lists_every_benchmark():
    index = (ROOT / "benchmarks" / "README.md").read_text()
    assert [name for name in NAMES if f"[{name}]({name}.md)" not in index] == []


def test_an_unknown_benchmark_is_refused_on_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert re.fullmatch(r"benchmarks speed: A benchmark must be one of step_time, .*, got 'speed'\.\n", done.stderr)


def test_the_index_gets_the_date_of_the_benchmark_that_ran(tmp_path):
    index = tmp_path / "README.md"
    index.write_text("| [a](a.md) | what | `cmd` | - |\n| [b](b.md) | what | `cmd` | - |\n")
    date_in_index(index, "b", "2026-01-02")
    assert index.read_text().splitlines()[0].endswith("| - |")
    assert index.read_text().splitlines()[1].endswith("| 2026-01-02 |")


def test_a_table_has_one_row_per_entry():
    assert str(table(("a", "b"), [("x", 1)])).splitlines() == ["| a | b |", "| --- | ---: |", "| x | 1 |"]


def test_actions_are_interleaved_and_every_other_round_is_reversed():
    calls = []
    actions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = time_interleaved(actions, torch.device("cpu"), repeats=2, warmup=1)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [len(seconds["a"]), len(seconds["b"])] == [2, 2]


def test_a_ratio_is_of_pairs_and_lies_in_its_interval():
    ratio = ratio_of([2.0, 40.0, 6.0], [1.0, 20.0, 2.0])
    assert ratio.median == 2.0
    assert ratio.low <= ratio.median <= ratio.high
    assert f"{ratio:.1f}" == "2.0 (2.0 to 3.0)"


def test_one_reading_has_no_interval():
    assert f"{median_of([1.5]):.2f}" == "1.50"


def test_numbers_of_a_flag_are_checked():
    assert whole_numbers("batches", "8, 16") == [8, 16]
    with pytest.raises(InputError, match="batches must be whole numbers above 0, comma-separated, got '8,x'"):
        whole_numbers("batches", "8,x")


def test_operations_of_fused_attention_are_counted():
    heads = torch.randn(1, 2, 8, 4)
    fused = flops_of(lambda: torch.nn.functional.scaled_dot_product_attention(heads, heads, heads))
    assert fused == flops_of(lambda: torch.softmax(heads @ heads.transpose(2, 3), dim=-1) @ heads)


def test_products_in_place_count_as_others():
    left, right, total = torch.ones(3, 5), torch.ones(5, 7), torch.ones(3, 7)
    assert flops_of(lambda: total.addmm_(left, right)) == flops_of(lambda: left @ right) == 2 * 3 * 5 * 7


def test_quality_keeps_finished_runs_and_trains_what_has_changed(tmp_path, monkeypatch):
    trained, ended = [], {"val_mse": 0.5, "state": "complete"}
    monkeypatch.setattr(quality, "train_in_worker", lambda config, threads: trained.append(config) or ended)
    config, folder = RunConfig(seed=3), tmp_path / "runs"
    first = quality.kept_or_trained(config, 1, folder)
    again = quality.kept_or_trained(config, 1, folder)
    assert (first.was_kept, again.was_kept, again.val_mse) == (False, True, 0.5)
    assert not quality.kept_or_trained(config.replace(learning_rate=0.1), 1, folder).was_kept
    assert not quality.kept_or_trained(config.replace(seed=4), 1, folder).was_kept
    assert not quality.kept_or_trained(config, 1, None).was_kept
    assert len(trained) == 4


def test_naive_errors_are_over_every_value_of_the_windows():
    split = Split(torch.arange(12.0).view(6, 2), seq_len=2, pred_len=1)
    errors = naive_errors(split, torch.arange(len(split)))
    assert errors["last value"] == pytest.approx(4.0)  # each channel grows by 2 a step
    assert errors["window mean"] == pytest.approx(9.0)
