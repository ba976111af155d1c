"""The DeepSpeed JSON of a run: generated from its settings, or the user's own file, resolved."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError


def generated_deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """ZeRO-2 for a run; every value that DeepSpeed would otherwise default differently is written.

    Mixed precision uses the torch_autocast block: DeepSpeed's own fp16 and bf16 blocks cast the trained parameters.
    """
    zero: dict[str, Any] = {"stage": 2, "contiguous_gradients": True, "overlap_comm": False}
    if config.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config.pin_memory}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": config.accumulation_steps,
        "gradient_clipping": config.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    if config.precision != "fp32":
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[config.precision]
        settings["torch_autocast"] = {"enabled": True, "dtype": dtype}
    if config.gradient_checkpointing:
        settings["activation_checkpointing"] = {"partition_activations": False, "cpu_checkpointing": False}
    return settings


def load_deepspeed_config(config: RunConfig) -> dict[str, Any]:
    """The generated configuration, or the user's file with comments dropped and "auto" resolved.

    Raises:
        InputError: If the file is missing, is not JSON, or asks for what one device cannot do.
    """
    generated = generated_deepspeed_config(config)
    if config.deepspeed_config is None:
        return generated
    path = Path(config.deepspeed_config)
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"deepspeed_config must be a readable file, got {path}: {error.strerror}.") from error
    try:
        settings = json.loads(_without_comments(text))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: deepspeed_config must be JSON: {error.msg}.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: deepspeed_config must be a JSON object, got {type(settings).__name__}.")
    if settings.get("activation_checkpointing", {}).get("partition_activations"):
        raise InputError(
            f"{path}: partition_activations splits activations between model-parallel devices, and there is one. "
            "Set it to false."
        )
    if settings.get("activation_checkpointing", {}).get("cpu_checkpointing"):
        _check_cpu_checkpointing(config, path)
    return _resolve_auto({**generated, **settings}, generated, path)


def keeps_checkpoints_on_host(config: RunConfig) -> bool:
    """Whether the user's DeepSpeed file asks for the inputs of checkpointed blocks to be kept in host memory.

    Raises:
        InputError: As `load_deepspeed_config`.
    """
    if config.deepspeed_config is None:
        return False
    return bool(load_deepspeed_config(config).get("activation_checkpointing", {}).get("cpu_checkpointing"))


def checkpointing_note(config: RunConfig, device: torch.device) -> str | None:
    """Where the inputs of checkpointed blocks lie, if the user's file asks for host memory."""
    if not keeps_checkpoints_on_host(config):
        return None
    if device.type == "cpu":
        return "cpu_checkpointing: the device is the CPU, so the inputs of checkpointed blocks stay where they are."
    return "cpu_checkpointing: the inputs of checkpointed blocks are kept in host memory."


def _check_cpu_checkpointing(config: RunConfig, path: Path) -> None:
    problems = []
    if not config.gradient_checkpointing:
        problems.append("it moves what gradient checkpointing keeps. Add --gradient_checkpointing")
    if config.compile_mode != "off":
        problems.append(f"compiled code keeps what it needs itself, got {config.compile_mode}. Use --compile_mode off")
    if config.has_no_backbone:
        problems.append("llm_model none has no blocks to checkpoint. Set it to false")
    if problems:
        raise InputError([f"{path}: cpu_checkpointing: {problem}." for problem in problems])


def _without_comments(text: str) -> str:
    """Drop // and # comments outside strings."""
    pattern = re.compile(r'("(?:\\.|[^"\\])*")|(?://|#)[^\n]*')
    return pattern.sub(lambda match: match.group(1) or "", text)


def _resolve_auto(settings: dict[str, Any], generated: dict[str, Any], path: Path) -> dict[str, Any]:
    resolved = {}
    for key, value in settings.items():
        known = generated.get(key)
        if isinstance(value, dict):
            resolved[key] = _resolve_auto(value, known if isinstance(known, dict) else {}, path)
        elif value != "auto":
            resolved[key] = value
        elif known is not None:
            resolved[key] = known
        elif key != "train_batch_size":
            raise InputError(f'{path}: "{key}": "auto" cannot be resolved from the run\'s flags. Write a value.')
    return resolved
