"""The DeepSpeed JSON of a run: generated from its settings, or the user's own file, resolved."""

from typing import Any

import torch

from timellm.contract.config import RunConfig
from timellm.optimize.deepspeed_file import resolve_file

LARGEST_BUCKET = 500_000_000
"""Elements of a bucket by DeepSpeed's default: 1.9 GiB of a GPU's memory, whatever is trained."""

BUCKET_MULTIPLE = 16
"""Elements that a bucket is rounded up to: DeepSpeed refuses one that is not aligned."""


def generated_deepspeed_config(config: RunConfig, trained_parameters: int | None = None) -> dict[str, Any]:
    """ZeRO-2 for a run; every value that DeepSpeed would otherwise default differently is written.

    Mixed precision uses the torch_autocast block: DeepSpeed's own fp16 and bf16 blocks cast the trained parameters.

    Args:
        config: The run's settings.
        trained_parameters: Number of trained parameters, which gradients' buckets hold at most; None if unknown.
    """
    wanted = min(LARGEST_BUCKET, trained_parameters or LARGEST_BUCKET)
    bucket = -(-wanted // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
    zero: dict[str, Any] = {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": False,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
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
    if config.is_half:
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[config.precision]
        settings["torch_autocast"] = {"enabled": True, "dtype": dtype}
    if config.gradient_checkpointing:
        settings["activation_checkpointing"] = {"partition_activations": False, "cpu_checkpointing": False}
    return settings


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
