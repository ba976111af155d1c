import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from benchmarks.series import ETTM1_COLUMNS, ETTM1_ROWS, made_series
from tests.timellm.etth1 import ett_folder
from tests.timellm.tiny_backbones import save_tiny
from tests.timellm.tiny_runs import write_series
from timellm import run_main
from timellm.arguments import run_command
from timellm.model.rounding import pays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    save_tiny("gpt2", path / "gpt2")
    write_series(path / "series.csv")
    return path


def run(monkeypatch, capsys, *flags):
    """Exit status, stdout and stderr of the command."""
    monkeypatch.setattr(sys, "argv", ["run_main.py", *map(str, flags)])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit) as ended:
        run_command(run_main.main, run_main.PROG)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def tiny_flags(folder):
    return [
        "--data", "custom", "--root_path", folder, "--data_path", "series.csv", "--llm_model", "gpt2",
        "--llm_path", folder / "gpt2", "--llm_layers", 2, "--seq_len", 48, "--pred_len", 24, "--num_prototypes", 50,
        "--percent", 20, "--train_epochs", 1, "--num_threads", 1,
    ]  # fmt: skip


def test_a_local_gpt2_folder_trains_and_the_last_line_holds_the_test_error(monkeypatch, capsys, folder, tmp_path):
    status, out, _ = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path)
    assert status == 0
    assert out.splitlines()[-1].startswith("test mse ")


def test_the_flags_of_published_scripts_are_read(monkeypatch, capsys, folder, tmp_path):
    status, out, err = run(
        monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path, "--task_name", "long_term_forecast",
        "--is_training", 1, "--model_id", "x", "--model", "TimeLLM", "--factor", 3, "--enc_in", 7, "--des", "Exp",
        "--llm_dim", 48, "--use_amp", "--batch_size", 16, "--accumulation_steps", 2,
    )  # fmt: skip
    assert status == 0
    assert "global batch 32 = 16 x 2" in out
    assert "No effect in Time-LLM's forecasting: --enc_in, --factor" in err
    assert (tmp_path / "x_custom_sl48_pl24_Exp_s2021" / "checkpoint.safetensors").exists()


def test_itr_repeats_with_other_seeds_and_reports_the_spread(monkeypatch, capsys, folder, tmp_path):
    status, out, _ = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path, "--itr", 2)
    assert status == 0
    assert "mean of 2 seeds" in out.splitlines()[-1]
    assert len(list(tmp_path.iterdir())) == 2


PLAN_A = """--task_name long_term_forecast --is_training 1 --model_id plan_a --model TimeLLM --features M --seq_len 96
--label_len 48 --pred_len 96 --llm_model GPT2 --llm_layers 6 --use_amp --batch_size 64 --num_workers 8 --use_swt
--use_dwt_prompt --percent 2 --train_epochs 1"""
"""The guide's plan A, cut to 2 % of the training windows and one epoch; data and language model are named beside it."""


def run_plan_a(monkeypatch, capsys, folder, data, rows, columns, *more):
    """Train plan A on a made file of a data set's shape with six small GPT-2 layers; its last line and its result."""
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(folder / "cache"))
    series = made_series(f"{data}.csv", rows, columns)
    save_tiny("gpt2", folder / "gpt2")
    settings = {"vocab_size": 512, "n_embd": 32, "n_head": 1, "n_layer": 6}
    transformers.GPT2Model(transformers.GPT2Config(**settings)).save_pretrained(folder / "gpt2")
    status, out, err = run(
        monkeypatch, capsys, *PLAN_A.split(), "--data", data, "--root_path", series.parent, "--llm_path",
        folder / "gpt2", "--llm_dim", 32, "--checkpoints", folder, "--num_threads", 1, *more,
    )  # fmt: skip
    assert status == 0, err
    saved = json.loads(next(folder.glob(f"plan-a_{data}_*/result.json")).read_text())
    return out.splitlines(), saved


def test_plan_a_of_the_guide_trains_on_etth1(monkeypatch, capsys, tmp_path):
    """As published where bf16 pays; elsewhere with exact reuse, because the published way takes a CPU minutes there."""
    way = () if pays(torch.bfloat16) else ("--prompt_prefix", "reuse")
    lines, result = run_plan_a(monkeypatch, capsys, tmp_path, "ETTh1", 17_420, ("OT",), *way)
    assert "global batch 64 = 64 x 1" in lines
    assert lines[-1].startswith("test mse ")
    assert result["val_samples"] == 2785


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_plan_a_of_the_guide_trains_on_a_file_of_ettm1s_shape(monkeypatch, capsys, tmp_path):
    lines, result = run_plan_a(monkeypatch, capsys, tmp_path, "ETTm1", ETTM1_ROWS, ETTM1_COLUMNS)
    assert lines[-1].startswith("test mse ")
    assert result["val_samples"] == 7 * 11425
    assert result["train_samples"] < 0.03 * 7 * 34369


def test_what_tokenising_takes_is_said_before_the_run(monkeypatch, capsys, folder, tmp_path):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("timellm.prompts.cost.WORTH_SAYING_SECONDS", 1e-6)
    status, _, err = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path / "runs")
    assert status == 0
    assert "A run on all windows tokenises" in err
    assert all("tokenises" not in path.read_text() for path in tmp_path.glob("runs/**/config.json"))
    _, _, err = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path / "again")
    assert "tokenises" not in err


def test_the_device_and_the_notes_are_printed_behind_the_run(monkeypatch, capsys, folder, tmp_path):
    monkeypatch.setattr("timellm.run.training.starvation_note", lambda config, percent: f"Waited {percent:.0f} %.")
    _, out, _ = run(monkeypatch, capsys, *tiny_flags(folder), "--checkpoints", tmp_path)
    lines = out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("cpu: "))
    summary, device, *notes = lines[place - 1 : -1]
    assert "s per epoch" in summary
    assert summary.endswith(", attention eager")
    busy, memory = r"cpu: \d+ % busy \(at most \d+ %\)", r"at most \d+\.\d\d GiB in use"
    assert re.fullmatch(rf"{busy}, {memory}, waited for data in \d+ % of the step time", device)
    assert any(re.fullmatch(r"Waited \d+ %\.", note) for note in notes)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--use_amp", "--precision", "fp32"], "contradict each other"),
        (["--use_amp=maybe"], "must be true or false"),
        (["--batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["--batch_size", "many"], "batch_size: must be a whole number, got 'many'"),
        (["--bogus", "1"], "Unrecognized arguments: --bogus"),
        (["--data", "ETTx"], "invalid choice: 'ETTx'"),
        (["--model", "Informer"], "model must be TimeLLM"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 is not supported on a CPU"),
        (["--llm_layers", "99", "--d_ff", "4000"], "llm_layers must be between 1 and 30"),
        (["--llm_layers", "99", "--d_ff", "4000"], "d_ff must be at most"),
        (["--llm_dim", "768"], "llm_dim must be the hidden size"),
        (["--llm_model", "gpt2"], "--llm_weights random for timing only"),
        (["--llm_model", "nosuch"], "llm_model must be one of"),
        (["--seq_len", "8000"], "seq_len"),
        (["--data", "ETTh1"], "--root_path"),
        (["--data", "ETTh1", "--root_path", "/nowhere"], "/nowhere/ETTh1.csv was not found"),
        (["--llm_path", "/nowhere"], "/nowhere"),
        (["--tune_layer_norm", "--prompt_prefix", "reuse"], "needs prompt_prefix recompute"),
        (["--num_threads", "-1"], "num_threads must be at least 1, got -1"),
        (["--num_threads", "0"], "num_threads must be at least 1, got 0"),
        (["--num_threads", "1000000"], "num_threads must be at most 1024"),
        (["--itr", "9" * 12], "itr must be at most 1e+06"),
        (["--batch_size", "9" * 12], "batch_size must be at most 1e+09"),
        (["--batch_size", "1000000", "--accumulation_steps", "11"], "must be at most 10,000,000 windows, got 11000000"),
        (["--learning_rate", "1e300"], "learning_rate must be at most 1e+30"),
        (["--weight_decay", "1e300"], "weight_decay must be at most 1e+30"),
        (["--prompt_store_gib", "1e300"], "prompt_store_gib must be at most 1e+06"),
        (["--seed", "9" * 40], "seed must be a whole number of at most 64 bits, got one of 133 bits"),
        (["--seed", str(2**63 - 1)], "seed must be at most"),
        (["--model_id", "m" * 300], "model_id must have at most 100 characters, got 300"),
        (["--prompt_description", ""], "prompt_description must not be empty, got ''. Leave it out"),
        (["--llm_model", "~nosuchuser/gpt2"], "must have a user's name after ~"),
        (["--task_name", "imputation"], "Leave --task_name out"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(monkeypatch, capsys, tmp_path, flags, message):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    status, out, err = run(monkeypatch, capsys, *flags)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def bad_series(kind):
    dates = pd.date_range("2020-01-01", periods=300, freq="h")
    table = pd.DataFrame({"date": dates, "a": np.arange(300.0), "b": np.arange(300.0)})
    if kind == "text":
        table["a"] = table["a"].astype(object)
        table.loc[7, "a"] = "many"
    elif kind == "nan":
        table["b"] = np.nan
    elif kind == "short":
        table = table.head(40)
    return table


@pytest.mark.parametrize(("kind", "message"), [("text", "a"), ("nan", "b"), ("short", "rows")])
def test_a_bad_csv_is_one_clear_line_and_status_2(monkeypatch, capsys, tmp_path, kind, message):
    bad_series(kind).to_csv(tmp_path / "bad.csv", index=False)
    status, _, err = run(monkeypatch, capsys, "--data", "custom", "--root_path", tmp_path, "--data_path", "bad.csv")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_sequence_longer_than_the_split_is_refused(monkeypatch, capsys):
    status, _, err = run(
        monkeypatch, capsys, "--data", "ETTh1", "--root_path", ett_folder(), "--seq_len", 9000, "--pred_len", 96
    )
    assert status == 2
    assert "seq_len" in err
