"""The command that estimates a run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.timellm.tiny_runs import tiny_config
from timellm import estimate_training_time
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.result import RunResult

COMMAND = Path(estimate_training_time.__file__)
QUICK = ["--measure_batches", "4", "--warmup_batches", "1", "--num_threads", "1"]


def flags(config: RunConfig) -> list[str]:
    """Command-line flags of what differs from the defaults."""
    default = RunConfig().to_dict()
    changed = {name: value for name, value in config.to_dict().items() if value != default[name]}
    return [word for name, value in changed.items() for word in (f"--{name}", str(value))]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(COMMAND), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)


def refuse(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run the command in this process."""
    monkeypatch.setattr(sys, "argv", [str(COMMAND), *words])
    estimate_training_time.main()


def test_json_is_one_object_with_the_names_of_a_result(tmp_path: Path) -> None:
    words = ["--llm_layers", "1", "--batch_size", "4", "--prompt_prefix", "reuse", "--eval_batch_size", "8"]
    done = run(*words, *QUICK, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(RunResult().to_dict()) <= set(result)
    assert (result["state"], result["backbone"]) == ("complete", "smollm2-135m")
    assert result["seconds_per_batch_low"] <= result["seconds_per_batch"] <= result["seconds_per_batch_high"]
    per_epoch = result["seconds_per_batch"] * result["batches_per_epoch"]
    assert result["seconds_per_epoch"] == pytest.approx(per_epoch)
    assert result["seconds_per_epoch_with_validation_and_test"] > result["seconds_per_epoch_with_validation"]
    assert result["timed_steps"] == 4
    assert result["peak_memory_gib"] > 0
    assert result["trainable_parameters"] > 49_000_000
    assert "compare" not in result
    assert list(tmp_path.iterdir()) == []


def test_comparison_tabulates_settings_against_the_first(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    done = run(
        *flags(config),
        *QUICK,
        "--swt_wavelet",
        "haar",
        "--compare",
        "--batch_size 16",
        "--compare",
        "--use_swt",
        "--json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["setting"] == "first"
    assert [other["setting"] for other in result["compare"]] == ["--batch_size 16", "--use_swt"]
    batches = [part["batches_per_epoch"] for part in (result, *result["compare"])]
    assert batches[0] == batches[2] == pytest.approx(2 * batches[1], abs=1)
    assert result["speedup_vs_first"] == 1.0
    assert all(other["speedup_vs_first"] > 0 for other in result["compare"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measure_batches", "0"], "measure_batches must be at least 1, got 0."),
        (["--warmup_batches", "-1"], "warmup_batches must be at least 0, got -1."),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0."),
        (["--compare", "--batch_size 0"], "--compare '--batch_size 0': batch_size must be at least 1, got 0."),
        (["--compare", " "], "--compare must change a flag at least, got ' '."),
        (["--compare", "--target 'x"], "--compare must be flags as a shell reads them"),
        (["--use_swt", "--swt_wavelet", "db99"], "swt_wavelet must be a discrete wavelet, got db99."),
        (["--compare", "--llm_layers 31"], "--compare '--llm_layers 31': llm_layers 31 is more than the 30"),
        (["--data", "ETTh1", "--root_path", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        refuse(monkeypatch, *words)
    assert message in str(error.value)


def test_all_problems_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        refuse(monkeypatch, "--measure_batches", "0", "--d_ff", "0", "--compare", "--stride 0")
    assert len(error.value.problems) >= 4


def test_what_tokenising_takes_before_the_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("timellm.prompts.cost.WORTH_SAYING_SECONDS", 1e-6)
    config = tiny_config(tmp_path)
    estimate_training_time.check_settings(["first", "--stride 4"], [config, config.replace(stride=4)])
    out, err = capsys.readouterr()
    assert "tokenises" not in out
    assert err.count("A run on all windows tokenises") == 1


def test_a_launcher_of_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"a run of one process, got a launcher's 2\. Start it with python"):
        refuse(monkeypatch)


def test_flags_of_the_measurement_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^--compare: Unrecognized arguments: --json\. See .*\.py --help\.$"):
        refuse(monkeypatch, "--compare", "--json")


def test_wrong_flag_exits_2_with_one_line(tmp_path: Path) -> None:
    done = run("--precision", "fp8", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_flags_without_effect_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        refuse(monkeypatch, "--measure_batches", "0", "--model_id", "x", "--enc_in", "7")
    assert capsys.readouterr().err == "No effect on an estimate: --enc_in, --model_id.\n"


def test_ctrl_c_exits_130_and_leaves_no_process(tmp_path: Path) -> None:
    words = [*flags(tiny_config(tmp_path)), *QUICK, "--measure_batches", "2000", "--compare", "--batch_size 4"]
    command = subprocess.Popen(
        [sys.executable, str(COMMAND), *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores Ctrl-C
    )  # fmt: skip
    assert command.stderr is not None
    next(line for line in command.stderr if line.startswith("round 1 of"))
    children = psutil.Process(command.pid).children(recursive=True)
    assert len(children) >= 2
    command.send_signal(signal.SIGINT)
    rest = command.stderr.read()
    assert command.wait(60) == 130
    assert "Traceback" not in rest
    assert psutil.wait_procs(children, timeout=60)[1] == []
