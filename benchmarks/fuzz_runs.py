"""Odd inputs of one run: data files, DeepSpeed files, flags, and what a launcher leaves in the environment."""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.fuzzing import Case, Maker
from timellm.arguments import build_parser, config_from, launcher_notes, run_command
from timellm.check import check_run
from timellm.contract.config import SETTINGS, RunConfig
from timellm.data import load_data
from timellm.data.naive import naive_errors

_ROWS = 160
_SMALL = ("--seq_len", "16", "--pred_len", "4", "--patch_len", "8", "--llm_model", "none", "--device", "cpu")
_NASTY = (
    "", " ", "nan", "inf", "-inf", "1e400", "-9999", "1e20", "0x10", "1_000", "1,5", "\u0661", "NA", "null", "True",
    "?", "2020-02-30", "9" * 400, "\x07", "\ufeff", "é", "日本", '"', "'", "a,b", "#", "=1+1", "../..", "%s", "{}", "-",
    "--", "\x1b[31m", "\u202e", "1e-320", "-0", "\uff11", "Infinity", "12:00", "1/2/3", "\t", "date", "Unnamed: 0",
)  # fmt: skip
_HEADERS = (
    "date", "Date", "ds", "time", "", "Unnamed: 0", "unique_id", "y", "a", "a", "OT", "load (kW)", "ü", "#date", "No",
)  # fmt: skip


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


def make_csv(draw: random.Random, folder: Path) -> Case:
    """A data file: a sound table with some things wrong, in any encoding and compression, under any name."""
    table = _table(draw)
    for _ in range(draw.choice([0, 0, 1, 1, 2, 3])):
        draw.choice(_TABLE_FAULTS)(draw, table)
    mark = draw.choice([*[","] * 12, ";", "\t", "|", " "])
    ending = draw.choice(["\n", "\n", "\r\n", "\r"])
    text = ending.join(mark.join(row) for row in table) + draw.choice(["", ending, ending * 3])
    content = text.encode(draw.choice([*["utf-8"] * 12, "utf-8-sig", "utf-16", "latin-1", "cp1252"]), errors="replace")
    content = _damaged(draw, draw.choice(_PACKERS)(content))
    name = f"data.{draw.choice(['csv', 'csv', 'txt', 'gz', 'zip', 'xz', 'bz2', 'zst', 'tar', 'parquet', 'xlsx'])}"
    (folder / name).write_bytes(content)
    more = draw.choice([[], [], ["--features", "S"], ["--features", "MS", "--target", draw.choice(_NASTY + _HEADERS)]])
    return run_case(["--data", "custom", "--root_path", str(folder), "--data_path", name, *_SMALL, *more])


def make_deepspeed(draw: random.Random, folder: Path) -> Case:
    """A DeepSpeed file: sound blocks with values of any type, in any dialect."""
    blocks = {name: block(draw) for name, block in draw.sample(_BLOCKS, draw.randint(0, 4))}
    text = json.dumps(blocks, indent=draw.choice([None, 2]))
    text = draw.choice(["", "// head\n", "/* head\n*/", "# head\n", "\ufeff"]) + text
    content = text.encode(draw.choice([*["utf-8"] * 8, "latin-1", "utf-16"]), errors="replace")
    path = folder / "ds.json"
    path.write_bytes(_damaged(draw, content))
    more = draw.choice([[], ["--precision", "bf16"], ["--offload_optimizer", "cpu"], ["--gradient_checkpointing"]])
    return run_case([*_SMALL, "--deepspeed_config", str(path), *more])


def make_flags(draw: random.Random, folder: Path) -> Case:
    """Flags of a run with values of any kind."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    others = ["use_amp", "use_dwt_prompt", "prompt_domain", "task_name", "loss", "local_rank", "deepspeed", "enc_in",
              "data_pretrain", "des", "bogus"]  # fmt: skip
    words = list(_SMALL)
    for name in draw.sample([*names, *others], draw.randint(1, 4)):
        value = draw.choice([*_NASTY, "0", "1", "-1", "7", "0.5", "1e30", "10" * 20, "true", "cpu", *_choices(name)])
        words += draw.choice([[f"--{name}", value], [f"--{name}={value}"], [f"--{name}"], [f"-{name}", value]])
    return run_case(words)


def make_launcher(draw: random.Random, folder: Path) -> Case:
    """Variables of launchers with values of any kind."""
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PMI_SIZE",
             "OMPI_COMM_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
             "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE", "ACCELERATE_USE_CPU", "ACCELERATE_USE_DEEPSPEED",
             "ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_DEEPSPEED_CONFIG_FILE", "ACCELERATE_USE_FSDP")  # fmt: skip
    values = ("", "0", "1", "2", "-1", "true", "no", "bf16", "fp16", "fp8", "INDUCTOR", "none", "x", "٣", "1e9")
    return run_case(list(_SMALL), {name: draw.choice(values) for name in draw.sample(names, draw.randint(1, 4))})


def _choices(name: str) -> tuple[str, ...]:
    setting = SETTINGS.get(name) if isinstance(SETTINGS, Mapping) else None
    return tuple(map(str, getattr(setting, "choices", ()) or ()))


def _table(draw: random.Random) -> list[list[str]]:
    """A header and rows of texts."""
    rows = draw.choice([0, 1, 5, 60, *[_ROWS] * 12])
    columns = draw.randint(1, 4)
    header = ["date", *(f"c{number}" for number in range(columns))]
    draws = [[f"{draw.gauss(0, 1):.4f}" for _ in range(columns)] for _ in range(rows)]
    return [
        header,
        *([f"2020-{1 + row // 28 % 12:02d}-{1 + row % 28:02d}", *values] for row, values in enumerate(draws)),
    ]


def _odd_cell(draw: random.Random, table: list[list[str]]) -> None:
    row = draw.choice(table)
    if row:
        row[draw.randrange(len(row))] = draw.choice(_NASTY)


def _odd_column(draw: random.Random, table: list[list[str]]) -> None:
    place, value = draw.randrange(5), draw.choice([*_NASTY, None])
    for number, row in enumerate(table[1:]):
        if place < len(row):
            row[place] = str(number) if value is None else value


def _odd_header(draw: random.Random, table: list[list[str]]) -> None:
    table[0] = [draw.choice(_HEADERS) if draw.random() < 0.5 else name for name in table[0]]


def _odd_length(draw: random.Random, table: list[list[str]]) -> None:
    row = draw.choice(table)
    row[:] = draw.choice([row[:1], [], [*row, "1"], row * 3])


def _more_lines(draw: random.Random, table: list[list[str]]) -> None:
    lines = (["# comment"], [""], ["sep=;"], ["<html>"], ["{"], list(draw.choice(table)), [draw.choice(_NASTY)])
    table.insert(draw.randrange(len(table) + 1), draw.choice(lines))


def _long_format(draw: random.Random, table: list[list[str]]) -> None:
    rows = [[draw.choice("AB"), row[0], row[-1]] for row in table[1:] if row]
    table[:] = [["unique_id", "ds", "y"], *rows]


_TABLE_FAULTS: tuple[Callable[[random.Random, list[list[str]]], None], ...] = (
    _odd_cell, _odd_cell, _odd_column, _odd_header, _odd_length, _more_lines, _long_format,
)  # fmt: skip


def _zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inside.csv"), content)
    return stream.getvalue()


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


_PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    bytes, bytes, bytes, bytes, _gzipped, bz2.compress, lzma.compress, _zipped,
)  # fmt: skip


def _damaged(draw: random.Random, content: bytes) -> bytes:
    """The same bytes four times in five; cut off, or some of them changed, otherwise."""
    if draw.random() < 0.8 or not content:
        return content
    if draw.random() < 0.5:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


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
    return draw.choice([*simple, {"enabled": draw.choice([True, False, "auto", 7])}, *_NASTY])


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
    "csv": make_csv,
    "deepspeed": make_deepspeed,
    "flags": make_flags,
    "launcher": make_launcher,
}
"""Kinds of input of one run."""
