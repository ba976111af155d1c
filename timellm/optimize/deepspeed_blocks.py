"""Blocks of a DeepSpeed file that concern no number of a run, or that DeepSpeed takes here and fails on later."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from timellm.optimize.deepspeed_reading import Reading

NOT_HERE = (
    "amp", "elasticity", "autotuning", "curriculum_learning", "data_efficiency", "compression_training",
    "sparse_attention", "hybrid_engine", "pipeline", "sequence_parallel_size", "tensor_parallel", "expert_parallel",
    "aio", "weight_quantization", "progressive_layer_drop", "eigenvalue", "quantize_training", "zenflow", "nebula",
)  # fmt: skip
"""Blocks of other kinds of training: dropped and named."""

WITHOUT_EFFECT: Mapping[str, str] = {
    "dataloader_drop_last": "no window is dropped here",
    "checkpoint": "checkpoints are this project's own",
    "datastates": "checkpoints are this project's own",
    "use_node_local_storage": "checkpoints are this project's own",
    "load_universal_checkpoint": "checkpoints are this project's own",
    "use_data_before_expert_parallelism": "the model has no experts",
    "seq_parallel_communication_data_type": "sequences are not split",
    "compile": "--compile_mode compiles",
    "monitor_config": "loggers stand beside it, as tensorboard, wandb, csv_monitor or comet",
}
"""What DeepSpeed knows and a run has no use for, with the reason."""

_MONITORS = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}
"""The package that each block needs to be enabled."""
_PROFILER_KEYS = (
    "enabled", "recompute_fwd_factor", "profile_step", "module_depth", "top_modules", "detailed", "output_file",
)  # fmt: skip
_CHECKPOINTING_KEYS = (
    "partition_activations", "cpu_checkpointing", "contiguous_memory_optimization", "number_checkpoints",
    "synchronize_checkpoint_boundary", "profile",
)  # fmt: skip
_TYPE_KEYS = ("grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules")
_FP32 = ("fp32", "float32", "float", "torch.float32", "auto", None)


def drop_others(reading: Reading) -> None:
    """Leave out what is for another kind of training, or has no effect here, and name what was switched on."""
    reasons = dict.fromkeys(NOT_HERE, "is for another kind of training and was dropped.")
    reasons |= {key: f"has no effect here and was dropped: {why}." for key, why in WITHOUT_EFFECT.items()}
    for key, reason in reasons.items():
        block = reading.settings.get(key)
        if block is None:
            continue
        is_off = block in (False, "auto") or (isinstance(block, dict) and not block)
        if is_off or (isinstance(block, dict) and block.get("enabled", True) is False):
            reading.settings.pop(key)
        else:
            reading.drop(key, reason)


def check_monitors(reading: Reading) -> None:
    """Refuse a logger whose package is not there, and names that DeepSpeed's profiler would ignore."""
    for key, package in _MONITORS.items():
        block = reading.settings.get(key)
        if isinstance(block, dict) and _is_on(block.get("enabled")) and find_spec(package) is None:
            reading.refuse(
                f"{key}.enabled needs the package {package}, which is not installed. Run pip install {package}, or set "
                "it to false: a run leaves TensorBoard logs of its own."
            )
    if isinstance(block := reading.settings.get("flops_profiler"), dict):
        reading.refuse_others(block, _PROFILER_KEYS, "flops_profiler.")
        for key in ("profile_step", "module_depth", "top_modules"):
            value = block.get(key, 1)
            if value not in ("auto", None) and (isinstance(value, bool) or not isinstance(value, int)):
                reading.refuse(f"flops_profiler.{key} must be a whole number, got {json.dumps(value)}. Correct it.")


def _is_on(value: object) -> bool:
    """Whether DeepSpeed takes a value for true, which may be a text or a number."""
    return str(value).lower() in ("true", "1", "1.0", "yes", "y", "on", "t")


def check_gradients(reading: Reading) -> None:
    """Refuse what DeepSpeed finds wrong with gradients only when it starts, or at the first step."""
    settings = reading.settings
    if settings.pop("managed_gradient_accumulation", True) is False:
        reading.refuse(
            "managed_gradient_accumulation must be true, got false: a run says where each step ends. Remove it."
        )
    _check_types(reading)
    zero = settings.get("zero_optimization")
    zero = zero if isinstance(zero, dict) else dict(reading.generated["zero_optimization"])
    scatters = zero.get("stage", 0) == 2 and zero.get("reduce_scatter", True) in (True, "auto")
    if scatters and settings.get("prescale_gradients") is True:
        reading.refuse("prescale_gradients must be false in stage 2 with reduce_scatter, got true. Remove it.")
    factor = settings.get("gradient_predivide_factor", 1)
    if scatters and factor not in (1, "auto"):
        reading.refuse(
            f"gradient_predivide_factor must be 1 in stage 2 with reduce_scatter, got {json.dumps(factor)}. Remove it."
        )
    _check_zero(reading, zero)


def _check_types(reading: Reading) -> None:
    """Trained parameters, their gradients and buffers are fp32, whatever the precision."""
    block = reading.settings.get("data_types")
    if not isinstance(block, dict):
        return
    reading.refuse_others(block, _TYPE_KEYS, "data_types.")
    for key in ("grad_accum_dtype", "param_dtype", "buffer_dtype"):
        value = block.get(key)
        if isinstance(value, dict | list) or value not in _FP32:
            reading.refuse(
                f"data_types.{key} must be fp32, got {json.dumps(value)}: trained parameters, their gradients and "
                "buffers stay fp32. Remove it; --precision casts products."
            )


def _check_zero(reading: Reading, zero: Mapping[str, Any]) -> None:
    if zero.get("legacy_stage1") is True:
        reading.refuse("zero_optimization.legacy_stage1 is gone from DeepSpeed. Remove it.")
    offload = zero.get("offload_optimizer")
    device = offload.get("device", "none") if isinstance(offload, dict) else "none"
    if zero.get("stage", 0) == 0 and device == "cpu":
        reading.refuse("zero_optimization.offload_optimizer needs stage 1 or 2, got 0. Use stage 2.")
    if zero.get("compute_grad_norm") is False:
        clipping = reading.settings.get("gradient_clipping", 0)
        if device == "cpu" or (isinstance(clipping, int | float) and clipping > 0):
            reading.refuse(
                "zero_optimization.compute_grad_norm must be true with gradient clipping or an optimizer on the CPU, "
                "got false. Remove it."
            )
    size = zero.get("allgather_bucket_size")
    if isinstance(size, int | float) and size % 2:
        reading.refuse(f"zero_optimization.allgather_bucket_size must be even, got {json.dumps(size)}. Add 1.")


def check_checkpointing(reading: Reading) -> None:
    """Hold the block against the run's own checkpointing; DeepSpeed would ignore what it does not know in it."""
    block, config = reading.settings.get("activation_checkpointing"), reading.config
    if not block:
        return
    reading.refuse_others(block, _CHECKPOINTING_KEYS, "activation_checkpointing.")
    for key in _CHECKPOINTING_KEYS[2:]:
        if block.pop(key, None) not in (None, False, "auto"):
            reading.note(f"activation_checkpointing.{key} has no effect here and was dropped.")
    if block.get("partition_activations") not in (None, False, "auto"):
        reading.refuse(
            "partition_activations splits activations between model-parallel devices, and there is one. "
            "Set it to false."
        )
    if block.get("cpu_checkpointing") in (None, False, "auto"):
        return
    if not config.gradient_checkpointing:
        reading.refuse("cpu_checkpointing: it moves what gradient checkpointing keeps. Add --gradient_checkpointing.")
    if config.compile_mode != "off":
        reading.refuse(
            f"cpu_checkpointing: compiled code keeps what it needs itself, got {config.compile_mode}. "
            "Use --compile_mode off."
        )
    if config.has_no_backbone:
        reading.refuse("cpu_checkpointing: llm_model none has no blocks to checkpoint. Set it to false.")
