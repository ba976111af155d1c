"""What published scripts and other launchers pass: run as it is printed, or refused in one line."""

import shlex
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.timellm import published_scripts as scripts
from tests.timellm.test_run_main import run
from tests.timellm.tiny_backbones import GOLDEN
from timellm.arguments import build_parser, config_from, launcher_notes
from timellm.check import check_run
from timellm.contract.datasets import DATA_SETS
from timellm.contract.errors import InputError
from timellm.run.training import TrainingRun

LINES = [(name, line) for name, lines in scripts.LONG_TERM.items() for line in lines]


def parsed(words):
    arguments = build_parser("run_main.py", "").parse_args(words)
    return config_from(arguments), launcher_notes(arguments)


def script_words(line, *more):
    """The flags of a script's line that `run_main.py` alone has left out."""
    words = shlex.split(line)
    for flag in ("--model_id", "--des", "--itr"):
        if flag in words:
            place = words.index(flag)
            del words[place : place + 2]
    return [*words, *map(str, more)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A LLaMA of 32 layers that fits in a test."""
    folder = tmp_path_factory.mktemp("llama")
    shape = {"hidden_size": 128, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(num_hidden_layers=32, vocab_size=512, max_position_embeddings=2048, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Small files with the published names."""
    folder = tmp_path_factory.mktemp("published")
    for known in DATA_SETS.values():
        if known.file_name is None:
            continue
        rows = 57_600 if known.name.startswith("ETTm") else 14_400 if known.name.startswith("ETTh") else 12_500
        values = np.random.default_rng(0).normal(size=(rows, 2)).round(3)
        frame = pd.DataFrame({"date": pd.date_range("2016-07-01", periods=rows, freq="h"), "a": values[:, 0]})
        frame.assign(OT=values[:, 1]).to_csv(folder / known.file_name, index=False)
    return folder


@pytest.mark.parametrize(("name", "line"), LINES)
def test_flags_of_the_long_term_scripts_are_understood_as_printed(name, line):
    config, _ = parsed(script_words(line, "--llm_path", "/my/llama"))
    assert config.data == name.removeprefix("TimeLLM_")
    assert (config.llm_model, config.llm_layers) == ("/my/llama", 32)
    words = shlex.split(line)
    for flag in ("seq_len", "pred_len", "d_model", "d_ff", "batch_size", "learning_rate", "train_epochs", "lradj"):
        if f"--{flag}" in words:
            given = words[len(words) - 1 - words[::-1].index(f"--{flag}") + 1]
            assert str(getattr(config, flag)) == given


@pytest.mark.parametrize("name", scripts.LONG_TERM)
def test_every_long_term_script_passes_the_check_on_its_own_file(name, stand_ins, llama):
    line = scripts.LONG_TERM[name][0]
    config, _ = parsed(script_words(line, "--root_path", stand_ins, "--llm_path", llama))
    facts = check_run(config)
    assert facts["data"]["name"] == name.removeprefix("TimeLLM_")
    assert facts["backbone"]["layers"] == 32


def test_a_script_as_printed_trains(monkeypatch, capsys, stand_ins, llama, tmp_path):
    class ToldError(Exception):
        pass

    def begun(self):
        raise ToldError(self.config)

    monkeypatch.setattr(TrainingRun, "run", begun)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    words = [*shlex.split(scripts.LONG_TERM["TimeLLM_Weather"][0]), "--root_path", stand_ins, "--llm_path", llama]
    with pytest.raises(ToldError) as told:
        run(monkeypatch, capsys, *words, "--checkpoints", tmp_path)
    assert told.value.args[0].precision == "bf16"
    assert "--mixed_precision bf16 is taken as --precision bf16" in capsys.readouterr().err


@pytest.mark.parametrize("line", [lines[0] for lines in scripts.LONG_TERM.values()])
def test_a_missing_llama_is_called_that(line):
    with pytest.raises(InputError, match=r"published scripts mean LLaMA-7B \(32 layers\).*--llm_path DIR"):
        parsed(script_words(line))


@pytest.mark.parametrize(
    ("line", "message"),
    [(line, "M4 is not trained here") for line in scripts.M4] + [(line, "--other_data") for line in scripts.ZERO_SHOT],
)
def test_scripts_of_other_tasks_get_one_clear_line(monkeypatch, capsys, line, message):
    status, out, err = run(monkeypatch, capsys, *shlex.split(line))
    assert status == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", DATA_SETS)
def test_prompt_domain_takes_the_published_description_or_is_refused(name):
    words = ["--data", name, "--data_path", "x.csv", "--prompt_domain"]
    published = DATA_SETS[name].published_description
    assert parsed([*words, "0"])[0].prompt_description is None
    if published is None:
        with pytest.raises(InputError, match=f"needs a data set with a published description, got {name}"):
            parsed([*words, "1"])
        return
    assert parsed([*words, "1"])[0].prompt_description == published
    with pytest.raises(InputError, match="contradict each other"):
        parsed([*words, "1", "--prompt_description", "Mine."])


def test_prompt_domain_has_two_values():
    with pytest.raises(InputError, match="prompt_domain must be 0 or 1, got 2"):
        parsed(["--prompt_domain", "2"])


@pytest.mark.parametrize("flag", ["--local_rank", "--local-rank"])
def test_local_rank_of_older_launchers_is_taken(monkeypatch, flag):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    parsed([flag, "0"])
    assert sys.modules["os"].environ.pop("LOCAL_RANK") == "0"
    parsed([f"{flag}=-1"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--deepspeed"], ("none", None)),
        (["--deepspeed", "ds.json"], ("off", "ds.json")),
        (["--deepspeed", "--deepspeed_config", "ds.json"], ("off", "ds.json")),
        (["--deepspeed", "--offload_optimizer", "cpu"], ("cpu", None)),
    ],
)
def test_deepspeed_of_other_launchers_is_taken(words, expected):
    config, _ = parsed(words)
    assert (config.offload_optimizer, config.deepspeed_config) == expected


def test_two_deepspeed_files_are_refused():
    with pytest.raises(InputError, match="differ"):
        parsed(["--deepspeed", "a.json", "--deepspeed_config", "b.json"])
