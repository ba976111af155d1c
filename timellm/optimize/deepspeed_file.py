"""The user's own DeepSpeed file, understood value by value, every problem found at once.

The run's flags decide what they can say; whatever the file says otherwise is named. "auto", which Hugging Face writes,
is taken from the flags or left to DeepSpeed's default.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, one_line
from timellm.machine.process import world_size
from timellm.optimize.deepspeed_blocks import (
    NOT_HERE,
    WITHOUT_EFFECT,
    check_checkpointing,
    check_gradients,
    check_monitors,
    drop_others,
)
from timellm.optimize.deepspeed_json import read_deepspeed_file
from timellm.optimize.deepspeed_reading import Reading

_HALF = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16"}
_DTYPES = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16"}
_PASSED_ON = (
    "steps_per_print", "dump_state", "disable_python_gc", "disable_allgather", "communication_data_type",
    "prescale_gradients", "gradient_predivide_factor", "gradient_allreduce_op", "wall_clock_breakdown",
    "memory_breakdown", "flops_profiler", "comms_logger", "tensorboard", "wandb", "csv_monitor", "comet",
    "data_types", "log_level", "timers", "gradient_clipping", "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer", "activation_checkpointing", "zero_optimization", "torch_autocast",
    "managed_gradient_accumulation",
)  # fmt: skip
_FLAGS_DECIDE = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
_KNOWN = (*_PASSED_ON, *_FLAGS_DECIDE, *NOT_HERE, *WITHOUT_EFFECT, *_HALF, "optimizer", "scheduler")
_SWITCHES = (
    "dump_state", "disable_allgather", "prescale_gradients", "wall_clock_breakdown", "memory_breakdown",
    "dataloader_drop_last", "disable_python_gc", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
)  # fmt: skip
_OF_STAGE_3 = (
    "offload_param", "prefetch_bucket_size", "param_persistence_threshold",
    "model_persistence_threshold", "max_live_parameters", "max_reuse_distance", "gather_16bit_weights_on_model_save",
    "module_granularity_threshold", "use_all_reduce_for_fetch_params", "allgather_sequential", "leaf_module",
    "zero_hpz_partition_size", "zero_quantized_weights", "zero_quantized_nontrainable_weights",
    "zero_quantized_gradients", "memory_efficient_linear", "override_module_apply",
)  # fmt: skip
"""Values that act in stage 3 alone, beside those whose names begin with stage3_."""
_REPLACED_ZERO = {"cpu_offload": "offload_optimizer", "cpu_offload_params": "offload_param"}
_OFFLOAD_DEVICES = ("none", "cpu")


def resolve_file(config: RunConfig, generated: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What DeepSpeed is given for a run that names a file, and what was made of the file.

    Args:
        config: The run, with a `deepspeed_config`.
        generated: What it would be given without one.

    Returns:
        The settings, and notes that name every value which is overridden or dropped.

    Raises:
        InputError: With every problem of the file at once.
    """
    path = Path(str(config.deepspeed_config))
    reading = Reading(path, config, generated, read_deepspeed_file(path))
    for understand in (
        _drop_null, _refuse_unknown, _check_scalars, _resolve_batches, _resolve_half, _resolve_optimizer, drop_others,
        check_monitors, _resolve_zero, _resolve_clipping, check_gradients, check_checkpointing, _keep_needed,
    ):  # fmt: skip
        understand(reading)
    if reading.problems:
        raise InputError(reading.problems)
    settings = _without_auto(reading.settings, generated)
    _check_with_deepspeed(config, path, settings)
    return {**generated, **settings}, reading.notes


def _drop_null(reading: Reading) -> None:
    """A block that is null is none; one that must be an object is refused."""
    blocks = ("zero_optimization", "optimizer", "scheduler", "activation_checkpointing", "torch_autocast", *_HALF)
    for key in blocks:
        if key not in reading.settings or isinstance(value := reading.settings[key], dict):
            continue
        if value == "auto":
            reading.settings.pop(key)
            continue
        reading.refuse(f"{key} must be an object, got {json.dumps(value)}. Remove it or write its values.")
        reading.settings.pop(key)
    for key, value in list(reading.settings.items()):
        if value is None:
            reading.drop(key, "is null and was left to DeepSpeed's default.")


def _refuse_unknown(reading: Reading) -> None:
    reading.refuse_others(reading.settings, _KNOWN)


def _check_scalars(reading: Reading) -> None:
    """What DeepSpeed takes as it is and fails on later."""
    for key in _SWITCHES:
        if not isinstance(value := reading.settings.get(key, False), bool) and value != "auto":
            reading.refuse(f"{key} must be true or false, got {json.dumps(value)}. Correct it.")
    every = reading.settings.get("steps_per_print", 1)
    if every != "auto" and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        reading.refuse(f"steps_per_print must be a whole number above 0, got {json.dumps(every)}. Correct it.")


def _resolve_batches(reading: Reading) -> None:
    config, settings = reading.config, reading.settings
    total = config.global_batch * world_size()
    decided = dict(zip(_FLAGS_DECIDE, (config.batch_size, config.accumulation_steps, total), strict=True))
    flags = dict(zip(_FLAGS_DECIDE, ("--batch_size", "--accumulation_steps", "their product"), strict=True))
    for key, value in decided.items():
        said = settings.pop(key, "auto")
        if said in ("auto", value) and not isinstance(said, bool):
            continue
        if isinstance(said, bool) or not isinstance(said, int) or said < 1:
            reading.refuse(f'{key} must be a whole number above 0 or "auto", got {json.dumps(said)}. Use "auto".')
        else:
            reading.note(f"{key} {said} is overridden by {flags[key]}: {value}.")


def _resolve_half(reading: Reading) -> None:
    """Half types are the precision's: DeepSpeed's own blocks would cast the trained parameters."""
    precision = reading.config.precision
    for key, meant in _HALF.items():
        block = reading.settings.pop(key, None)
        if block is None:
            continue
        enabled = block.get("enabled", False)
        if not isinstance(enabled, bool) and enabled != "auto":
            reading.refuse(f'{key}.enabled must be true, false or "auto", got {json.dumps(enabled)}. Use "auto".')
        elif enabled is True and precision == meant:
            reading.note(f"{key} is replaced by --precision {meant}: autocast, trained parameters stay fp32.")
        elif enabled is True and block.get("auto_cast") is True:
            reading.note(
                f"{key} with auto_cast is dropped, --precision {precision} decides. Add --precision {meant} to cast."
            )
        elif enabled is True:
            reading.refuse(
                f"{key}.enabled would cast the trained parameters, and --precision is {precision}. "
                f"Use --precision {meant}, which casts products alone, or remove the block."
            )
    _resolve_autocast(reading, precision)


def _resolve_autocast(reading: Reading, precision: str) -> None:
    block = reading.settings.pop("torch_autocast", None)
    if block is None or block.get("enabled") in ("auto", None):
        return
    if block["enabled"] is False:
        if reading.config.is_half:
            reading.note(f"torch_autocast.enabled false is overridden by --precision {precision}.")
        return
    meant = _DTYPES.get(str(block.get("dtype", "bfloat16")).removeprefix("torch."), "")
    if meant != precision:
        reading.refuse(
            f"torch_autocast asks for {block.get('dtype', 'bfloat16')}, and --precision is {precision}. "
            f"Use --precision {meant or 'bf16'} or remove the block."
        )
    for key in [name for name in block if name not in ("enabled", "dtype")]:
        reading.note(f"torch_autocast.{key} is dropped; --precision {precision} decides which products are cast.")


def _resolve_optimizer(reading: Reading) -> None:
    config = reading.config
    decided = {"lr": ("--learning_rate", config.learning_rate), "weight_decay": ("--weight_decay", config.weight_decay)}
    block = reading.settings.pop("optimizer", None)
    if block is not None:
        kind, parameters = block.pop("type", None), block.pop("params", None) or {}
        if kind is not None and str(kind).casefold() != config.optimizer:
            reading.note(f"optimizer.type {kind} is overridden by --optimizer {config.optimizer}.")
        if not isinstance(parameters, dict):
            reading.refuse(f"optimizer.params must be an object, got {json.dumps(parameters)}. Remove it.")
            parameters = {}
        for key, value in parameters.items():
            flag, here = decided.get(key, ("", None))
            if value == "auto" or value is None or (flag and value == here):
                continue
            by = f"is overridden by {flag} {here:g}" if flag else "is dropped; no flag sets it"
            reading.note(f"optimizer.{key} {json.dumps(value)} {by}.")
        for key, value in block.items():
            reading.note(f"optimizer.{key} {json.dumps(value)} is dropped; no flag sets it.")
    block = reading.settings.pop("scheduler", None)
    if block is not None:
        reading.note(f"scheduler {block.get('type', '')} is overridden by --lradj {config.lradj}.".replace("  ", " "))


def _resolve_zero(reading: Reading) -> None:
    zero = reading.settings.get("zero_optimization")
    if zero is None:
        return
    stage = zero.get("stage", 0)
    if stage == "auto":
        zero["stage"] = stage = 2
    if stage == 3 and not isinstance(stage, bool):
        reading.refuse(
            "zero_optimization.stage 3 splits the frozen model too, which is not for a model that fits one device. "
            "Use stage 2."
        )
        return
    if isinstance(stage, bool) or stage not in (0, 1, 2):
        reading.refuse(f"zero_optimization.stage must be 0, 1 or 2, got {json.dumps(stage)}. Use 2.")
    for old, new in _REPLACED_ZERO.items():
        if zero.get(old) not in (None, False):
            reading.refuse(f'zero_optimization.{old} was replaced by DeepSpeed. Use {new}: {{"device": "cpu"}}.')
        zero.pop(old, None)
    reading.refuse_others(zero, _zero_names(reading.config), "zero_optimization.")
    if zero.pop("zenflow", None) is not None:
        reading.note("zero_optimization.zenflow is for another kind of training and was dropped.")
    for key in [name for name in zero if name.startswith("stage3_") or name in _OF_STAGE_3]:
        block = zero.pop(key)
        is_off = block in (None, False) or (isinstance(block, dict) and block.get("device") in (None, "none"))
        if not is_off:
            reading.note(f"zero_optimization.{key} is of stage 3 and was dropped.")
    _resolve_offload(reading, zero)


def _resolve_offload(reading: Reading, zero: dict[str, Any]) -> None:
    config, block = reading.config, zero.pop("offload_optimizer", None)
    if block in (None, "auto", "none", False):
        block = {"device": "none"}
    if not isinstance(block, dict):
        reading.refuse(f"zero_optimization.offload_optimizer must be an object, got {json.dumps(block)}. Remove it.")
        return
    device = block.get("device", "none")
    device = "none" if device in ("auto", None) else device
    if device not in _OFFLOAD_DEVICES:
        reading.refuse(
            f"zero_optimization.offload_optimizer.device must be cpu or none, got {json.dumps(device)}. Use cpu."
        )
        return
    if config.offload_optimizer in ("cpu", "none") and device != config.offload_optimizer:
        reading.note(
            f"offload_optimizer.device {device} is overridden by --offload_optimizer {config.offload_optimizer}."
        )
        device = config.offload_optimizer
    if device == "none":
        return
    if block.get("pin_memory") == "auto":
        block = {**block, "pin_memory": config.pin_memory}
    if block.get("nvme_path") not in (None, "auto"):
        reading.note("offload_optimizer.nvme_path is dropped; the device is cpu.")
    zero["offload_optimizer"] = {**{k: v for k, v in block.items() if k != "nvme_path"}, "device": "cpu"}


def _resolve_clipping(reading: Reading) -> None:
    said = reading.settings.get("gradient_clipping", "auto")
    if said == "auto":
        reading.settings["gradient_clipping"] = reading.config.max_grad_norm
        return
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 0:
        reading.refuse(f'gradient_clipping must be a number from 0 or "auto", got {json.dumps(said)}. Use "auto".')
    elif reading.config.max_grad_norm > 0 and said != reading.config.max_grad_norm:
        reading.note(f"gradient_clipping {said} is overridden by --max_grad_norm {reading.config.max_grad_norm:g}.")
        reading.settings["gradient_clipping"] = reading.config.max_grad_norm


def _keep_needed(reading: Reading) -> None:
    """What this project's own optimizer and printing need."""
    for key in ("zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"):
        said = reading.settings.pop(key, "auto")
        if said not in ("auto", reading.generated[key]):
            reading.note(f"{key} {json.dumps(said)} is overridden: {json.dumps(reading.generated[key])}.")


def _without_auto(settings: Mapping[str, Any], generated: Mapping[str, Any]) -> dict[str, Any]:
    """Values "auto" taken from what the flags make, or left out, so that DeepSpeed's default holds."""
    resolved = {}
    for key, value in settings.items():
        known = generated.get(key)
        if isinstance(value, dict):
            resolved[key] = _without_auto(value, known if isinstance(known, dict) else {})
        elif not _holds_auto(value):
            resolved[key] = value
        elif known is not None:
            resolved[key] = known
    return resolved


def _zero_names(config: RunConfig) -> set[str]:
    fields = _deepspeed(config, lambda: _zero_model().model_fields)
    return {name for key, entry in fields.items() for name in (key, entry.alias) if name} | {"elastic_checkpoint"}


def _zero_model() -> Any:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    return DeepSpeedZeroConfig


def _check_with_deepspeed(config: RunConfig, path: Path, settings: Mapping[str, Any]) -> None:
    """Let DeepSpeed's own classes judge types and ranges.

    Raises:
        InputError: With what they say, each value at once.
    """
    batches = {"train_micro_batch_size_per_gpu": config.batch_size, "gradient_accumulation_steps": 1}

    def build() -> None:
        from deepspeed.runtime.config import DeepSpeedConfig

        DeepSpeedConfig(json.loads(json.dumps({**settings, **batches})))

    try:
        _deepspeed(config, build)
    except Exception as error:  # pydantic's, DeepSpeed's own, and plain TypeError and AttributeError for wrong types
        details = getattr(error, "errors", None)
        said = details() if callable(details) else []
        problems = [
            f"{path}: {'.'.join(map(str, entry['loc']))}: {entry['msg']}, got {str(entry.get('input'))[:40]!r}."
            if entry["loc"]  # of several values together otherwise
            else f"{path}: {entry['msg'].rstrip('.')}. Correct it."
            for entry in said
        ]
        text = one_line(error, type(error).__name__)
        raise InputError(problems or [f"{path}: DeepSpeed refuses its values: {text}. Correct them."]) from error


def _deepspeed(config: RunConfig, use: Callable[[], Any]) -> Any:
    """Use DeepSpeed without letting its import choose the device."""
    import torch

    if config.device == "cpu" or not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return use()


def _holds_auto(value: object) -> bool:
    """Whether a value is "auto", or a list with one in it: neither can be given to DeepSpeed."""
    if isinstance(value, dict):
        return any(map(_holds_auto, value.values()))
    return any(map(_holds_auto, value)) if isinstance(value, list) else value == "auto"
