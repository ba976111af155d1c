"""Command-line flags of a run: one for every field of `RunConfig`, and those that published scripts pass."""

import argparse
import dataclasses
import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from timellm import published
from timellm.contract.config import RunConfig
from timellm.contract.errors import ExitStatus, InputError, first_line, refuse
from timellm.contract.flags import StrictParser, add_flags, boolean_flag
from timellm.contract.words import shortened
from timellm.machine.launcher import check_launcher, taken_over
from timellm.machine.memory import is_out_of_memory
from timellm.output import outlive_readers
from timellm.run.errors import OUT_OF_MEMORY_REMEDIES

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

IGNORED = {
    "model_comment": str, "freq": str, "loader": str, "seasonal_patterns": str, "embed": str, "activation": str,
    "enc_in": int, "dec_in": int, "c_out": int, "e_layers": int, "d_layers": int, "factor": int, "moving_avg": int,
    "align_epochs": int, "output_attention": bool, "mask_rate": float, "anomaly_ratio": float,
    "num_kernels": int, "top_k": int,
}  # fmt: skip
"""Flags of published scripts that Time-LLM's forecasting does not use: read, and without effect."""

FIXED = {"task_name": "long_term_forecast", "model": "TimeLLM", "loss": "MSE", "is_training": "1"}
"""Flags of published scripts that can have one value here."""


def build_parser(prog: str, description: str) -> StrictParser:
    """A parser with every run flag; a flag that is not given leaves no trace, so that defaults stand in one place."""
    parser = StrictParser(prog=prog, description=description, allow_abbrev=False, unsupported=published.unsupported)
    add_flags(parser, RunConfig)
    group = parser.add_argument_group("Flags of published scripts")
    group.add_argument("--use_amp", **boolean_flag(), help="precision bf16 where the device has it, else fp16")
    group.add_argument("--use_dwt_prompt", **boolean_flag(), help="prompt dwt-COMPRESSION")
    group.add_argument(
        "--prompt_compression", choices=("minimal", "balanced", "detailed"), default=argparse.SUPPRESS,
        help="length of the wavelet prompt (balanced)",
    )  # fmt: skip
    for name, value in FIXED.items():
        group.add_argument(f"--{name}", default=argparse.SUPPRESS, help=f"always {value}")
    for name, kind in IGNORED.items():
        options = boolean_flag() if kind is bool else {"type": kind, "default": argparse.SUPPRESS}
        group.add_argument(f"--{name}", **options, help=argparse.SUPPRESS)
    group.add_argument(
        "--prompt_domain", type=int, default=argparse.SUPPRESS, help="1: published description of the data set"
    )
    published.add_launcher_flags(parser)
    return parser


def config_from(arguments: argparse.Namespace) -> RunConfig:
    """The run that parsed flags describe.

    Raises:
        InputError: For flags that contradict each other or a bad value.
    """
    given = vars(arguments)
    problems = [
        f"{name} must be {value}, got {shortened(repr(given[name]))}. Leave --{name} out: nothing else is done here."
        for name, value in FIXED.items()
        if name in given and str(given[name]) != value
    ]
    values = {field.name: given[field.name] for field in dataclasses.fields(RunConfig) if field.name in given}
    problems += _apply_amp(given, values) + _apply_wavelet_prompt(given, values)
    problems += published.apply_launcher_flags(given, values) + published.apply_description(given, values)
    problems += published.apply_language_model(values)
    try:
        values |= taken_over(values, os.environ)[0]
        check_launcher(os.environ)
        config = RunConfig.from_dict(values)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from error
    if problems:
        raise InputError(problems)
    return config


def launcher_notes(arguments: argparse.Namespace) -> list[str]:
    """What of a launcher's own settings was taken over, overridden, or has no effect."""
    values = {
        field.name: vars(arguments)[field.name]
        for field in dataclasses.fields(RunConfig)
        if field.name in vars(arguments)
    }
    _apply_amp(vars(arguments), values)
    return taken_over(values, os.environ)[1]


def ignored_flags(arguments: argparse.Namespace) -> list[str]:
    """The flags that were given and have no effect."""
    return [f"--{name}" for name in IGNORED if name in vars(arguments)]


def run_command(main: Callable[[], int], prog: str) -> NoReturn:
    """Run a command's main function; wrong input becomes one line on stderr and exit status 2.

    So does a path that cannot be used. A full disk and memory that ends are no wrong input: their status is 1.
    """
    outlive_readers()
    try:
        status = main()
    except InputError as error:
        status = refuse(error, prog)
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        place, why = shortened(str(error.filename or "The disk")), error.strerror or error
        refuse(InputError(f"{place} must be usable, but: {why}. Check the path, its permissions and the disk."), prog)
        status = ExitStatus.NOTHING if error.errno in _FULL else ExitStatus.WRONG
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        refuse(InputError(f"Memory ended: {first_line(error, 'there is none left')}. {OUT_OF_MEMORY_REMEDIES}"), prog)
        status = ExitStatus.NOTHING
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
    raise SystemExit(status)


def _apply_amp(given: dict[str, Any], values: dict[str, Any]) -> list[str]:
    if not given.get("use_amp"):
        return []
    if values.get("precision") == "fp32":
        return ["--use_amp and --precision fp32 contradict each other. Drop one of the two."]
    on_gpu = torch.cuda.is_available() and not str(values.get("device", "auto")).startswith("cpu")
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    values.setdefault("precision", "bf16" if has_bf16 else "fp16")
    return []


def _apply_wavelet_prompt(given: dict[str, Any], values: dict[str, Any]) -> list[str]:
    compression = given.get("prompt_compression")
    if not given.get("use_dwt_prompt"):
        return ["--prompt_compression needs --use_dwt_prompt. Add it."] if compression else []
    prompt = f"dwt-{compression or 'balanced'}"
    if values.get("prompt", prompt) != prompt:
        return [f"--use_dwt_prompt and --prompt {values['prompt']} contradict each other. Drop one of the two."]
    values["prompt"] = prompt
    return []
