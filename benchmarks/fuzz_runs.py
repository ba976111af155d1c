"""Odd inputs of one run: DeepSpeed files, flags, and what a launcher leaves in the environment."""

import dataclasses
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.fuzzing import Case, Maker, damaged
from timellm.arguments import build_parser, config_from, launcher_notes, run_command
from timellm.check import check_run
from timellm.contract.config import SETTINGS, RunConfig
from timellm.data import load_data
from timellm.data.naive import naive_errors

SMALL = ("--seq_len", "16", "--pred_len", "4", "--patch_len", "8", "--llm_model", "none", "--device", "cpu")
"""Flags of a run that reads little."""
NASTY = (
    "", " ", "nan", "inf", "-inf", "1e400", "-9999", "1e20", "0x10", "1_000", "1,5", "\u0661", "NA", "null", "True",
    "?", "2020-02-30", "9" * 400, "\x07", "\ufeff", "é", "日本", '"', "'", "a,b", "#", "=1+1", "../..", "%s", "{}", "-",
    "--", "\x1b[31m", "\u202e", "1e-320", "-0", "\uff11", "Infinity", "12:00", "1/2/3", "\t", "date", "Unnamed: 0",
)  # fmt: skip
"""Texts that are not a value of most things."""


def run_case(words: list[str], environment: Mapping[str, str] | None = None) -> Case:
    """What `run_main.py` does with these flags up to the point where it would train."""

    def main() -> int:
        arguments = build_parser("run_main.py", "").parse_args(words)
        config = config_from(arguments)
        launcher_notes(arguments)
        check_run(config)
        data = load_data(config)
        naive_errors(data.validation, torch.arange(min(4, len(data.validation))), data.frequency)
        return 0

    def command() -> int:
        with mock.patch.dict(os.environ, environment or {}):
            run_command(main, "run_main.py")

    return Case(tuple(words), command)


def make_deepspeed(draw: random.Random, folder: Path) -> Case:
    """A DeepSpeed file: sound blocks with values of any type, in any dialect."""
    blocks = {name: block(draw) for name, block in draw.sample(_BLOCKS, draw.randint(0, 4))}
    text = json.dumps(blocks, indent=draw.choice([None, 2]))
    text = draw.choice(["", "// head\n", "/* head\n*/", "# head\n", "\ufeff"]) + text
    content = text.encode(draw.choice([*["utf-8"] * 8, "latin-1", "utf-16"]), errors="replace")
    path = folder / "ds.json"
    path.write_bytes(damaged(draw, content))
    more = draw.choice([[], ["--precision", "bf16"], ["--offload_optimizer", "cpu"], ["--gradient_checkpointing"]])
    return run_case([*SMALL, "--deepspeed_config", str(path), *more])


def make_flags(draw: random.Random, folder: Path) -> Case:
    """Flags of a run with values of any kind."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    others = ["use_amp", "use_dwt_prompt", "prompt_domain", "task_name", "loss", "local_rank", "deepspeed", "enc_in",
              "data_pretrain", "des", "bogus"]  # fmt: skip
    words = list(SMALL)
    for name in draw.sample([*names, *others], draw.randint(1, 4)):
        value = draw.choice([*NASTY, "0", "1", "-1", "7", "0.5", "1e30", "10" * 20, "true", "cpu", *_choices(name)])
        words += draw.choice([[f"--{name}", value], [f"--{name}={value}"], [f"--{name}"], [f"-{name}", value]])
    return run_case(words)


def make_launcher(draw: random.Random, folder: Path) -> Case:
    """Variables of launchers with values of any kind."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PMI_SIZE",
             "OMPI_COMM_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
             "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE", "ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED",
             "ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_DEEPSPEED_CONFIG_FILE", "ACCELERATE_USE_FSDP")  # fmt: skip
    values = ("", "0", "1", "2", "-1", "true", "no", "bf16", "fp16", "fp8", "INDUCTOR", "none", "x", "٣", "1e9")
    return run_case(list(SMALL), {name: draw.choice(values) for name in draw.sample(names, draw.randint(1, 4))})


def _choices(name: str) -> tuple[str, ...]:
    setting = SETTINGS.get(name) if isinstance(SETTINGS, Mapping) else None
    return tuple(map(str, getattr(setting, "choices", ()) or ()))


def _value(draw: random.Random) -> Any:
    simple = [
        "auto",
        None,
        True,
        False,
        0,
        1,
        2,
        3,
        -1,
        0.5,
        2e8,
        1e400,
        "cpu",
        "none",
        "nvme",
        "x",
        [],
        {},
        [1, "auto"],
    ]
    return draw.choice([*simple, {"enabled": draw.choice([True, False, "auto", 7])}, *NASTY])


def _block(*names: str) -> Callable[[random.Random], Any]:
    def make(draw: random.Random) -> Any:
        if draw.random() < 0.2:
            return _value(draw)
        return {name: _value(draw) for name in draw.sample(names, draw.randint(0, min(3, len(names))))}

    return make


_BLOCKS: tuple[tuple[str, Callable[[random.Random], Any]], ...] = (
    ("zero_optimization", _block("stage", "overlap_comm", "reduce_bucket_size", "offload_optimizer", "offload_param",
                                 "cpu_offload", "stage3_max_live_parameters", "sub_group_size", "contiguous_gradient")),
    ("optimizer", _block("type", "params")), ("scheduler", _block("type", "params")),
    ("fp16", _block("enabled", "loss_scale")), ("bf16", _block("enabled", "auto_cast")), ("amp", _block("enabled")),
    ("torch_autocast", _block("enabled", "dtype")), ("gradient_clipping", _value), ("train_batch_size", _value),
    ("train_micro_batch_size_per_gpu", _value), ("gradient_accumulation_steps", _value), ("steps_per_print", _value),
    ("activation_checkpointing", _block("cpu_checkpointing", "partition_activations", "number_checkpoints")),
    ("flops_profiler", _block("enabled", "profile_step")), ("tensorboard", _block("enabled", "output_path")),
    ("elasticity", _block("enabled", "max_train_batch_size")), ("aio", _block("block_size")), ("data_types", _value),
    ("checkpoint", _value), ("timers", _value), ("compile", _value), ("communication_data_type", _value),
    ("zero_allow_untested_optimizer", _value), ("comms_logger", _value), ("nonsense", _value), ("", _value),
)  # fmt: skip

KINDS: Mapping[str, Maker] = {
    "deepspeed": make_deepspeed,
    "flags": make_flags,
    "launcher": make_launcher,
}
"""Kinds of input of one run."""
