"""The DeepSpeed JSON of a run: generated from its settings, or the user's own file, resolved."""

from typing import Any

import torch

from timellm.contract.config import RunConfig
from timellm.contract.zero2 import bucket_for, zero2_settings
from timellm.optimize.deepspeed_file import resolve_file


def generated_deepspeed_config(config: RunConfig, trained_parameters: int | None = None) -> dict[str, Any]:
    """ZeRO-2 for a run.

    Args:
        config: The run's settings.
        trained_parameters: Number of trained parameters, which gradients' buckets hold at most; None if unknown.
    """
    return zero2_settings(config.to_dict(), bucket_for(trained_parameters))


def load_deepspeed_config(config: RunConfig, trained_parameters: int | None = None) -> dict[str, Any]:
    """The generated configuration, or the user's file with "auto" and what the flags decide resolved.

    Args:
        config: The run's settings.
        trained_parameters: As `generated_deepspeed_config`.

    Raises:
        InputError: If the file is missing, is not JSON, or asks for what one device cannot do.
    """
    generated = generated_deepspeed_config(config, trained_parameters)
    if config.deepspeed_config is None:
        return generated
    return resolve_file(config, generated)[0]


def deepspeed_notes(config: RunConfig) -> list[str]:
    """What of the user's DeepSpeed file is overridden or dropped, value by value.

    Raises:
        InputError: As `load_deepspeed_config`.
    """
    if config.deepspeed_config is None:
        return []
    return resolve_file(config, generated_deepspeed_config(config))[1]


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
