"""The DeepSpeed JSON for a run's settings, used by the run itself and written beside a recommended command."""

from collections.abc import Mapping
from typing import Any

LARGEST_BUCKET = 500_000_000
"""Elements of a bucket by DeepSpeed's default: 1.9 GiB of a GPU's memory, however little is trained."""

BUCKET_MULTIPLE = 16
"""Elements that a bucket is rounded up to: DeepSpeed refuses one that is not aligned."""

_AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def zero2_settings(config: Mapping[str, Any], bucket: int | str = "auto") -> dict[str, Any]:
    """ZeRO-2 for a run; every value that DeepSpeed would otherwise default differently is written.

    Clipping is always written, because DeepSpeed clips at 1.0 otherwise. Mixed precision uses the torch_autocast block:
    DeepSpeed's own fp16 and bf16 blocks cast the trained parameters.

    Args:
        config: Every setting of the run, by name.
        bucket: Elements of a bucket; "auto" is resolved when the run starts, to the trained parameters and no more.
    """
    zero: dict[str, Any] = {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": False,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if config["offload_optimizer"] == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": config["pin_memory"]}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config["batch_size"],
        "gradient_accumulation_steps": config["accumulation_steps"],
        "gradient_clipping": config["max_grad_norm"],
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    if config["precision"] in _AUTOCAST:
        settings["torch_autocast"] = {"enabled": True, "dtype": _AUTOCAST[config["precision"]]}
    if config["gradient_checkpointing"]:
        settings["activation_checkpointing"] = {"partition_activations": False, "cpu_checkpointing": False}
    return settings


def bucket_for(trained_parameters: int | None) -> int:
    """Elements of a bucket that holds the trained parameters, no more; DeepSpeed's default where they are unknown."""
    wanted = min(LARGEST_BUCKET, trained_parameters or LARGEST_BUCKET)
    return -(-wanted // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
