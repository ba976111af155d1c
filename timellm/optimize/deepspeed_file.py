"""The user's own DeepSpeed file, understood value by value, every problem found at once.

The run's flags decide what they can say; whatever the file says otherwise is named. "auto", which Hugging Face writes,
is taken from the flags or left to DeepSpeed's default.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError, one_line
from timellm.machine.process import world_size
from timellm.optimize.deepspeed_json import read_deepspeed_file

_HALF = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16"}
_DTYPES = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16"}
_NOT_HERE = (
    "amp", "elasticity", "autotuning", "curriculum_learning", "data_efficiency", "compression_training",
    "sparse_attention", "hybrid_engine", "pipeline", "sequence_parallel_size", "tensor_parallel", "expert_parallel",
    "aio", "weight_quantization", "progressive_layer_drop", "eigenvalue", "quantize_training", "zenflow", "nebula",
)  # fmt: skip
"""Blocks of other kinds of training: dropped and named."""
_PASSED_ON = (
    "steps_per_print", "dump_state", "disable_python_gc", "disable_allgather", "communication_data_type",
    "seq_parallel_communication_data_type", "prescale_gradients", "gradient_predivide_factor", "gradient_allreduce_op",
    "wall_clock_breakdown", "memory_breakdown", "flops_profiler", "comms_logger", "tensorboard", "wandb", "csv_monitor",
    "comet", "monitor_config", "checkpoint", "data_types", "dataloader_drop_last", "log_level", "datastates", "timers",
    "use_data_before_expert_parallelism", "use_node_local_storage", "load_universal_checkpoint", "compile",
    "gradient_clipping", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "activation_checkpointing",
    "zero_optimization", "torch_autocast", "managed_gradient_accumulation",
)  # fmt: skip
_FLAGS_DECIDE = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
_KNOWN = (*_PASSED_ON, *_FLAGS_DECIDE, *_NOT_HERE, *_HALF, "optimizer", "scheduler")
_SWITCHES = (
    "dump_state", "disable_allgather", "prescale_gradients", "wall_clock_breakdown", "memory_breakdown",
    "dataloader_drop_last", "disable_python_gc", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer",
)  # fmt: skip
_COMMENT_KEYS = ("comment", "comments", "description")
_REPLACED_ZERO = {"cpu_offload": "offload_optimizer", "cpu_offload_params": "offload_param"}
_OFFLOAD_DEVICES = ("none", "cpu")


@dataclass(slots=True)
class _Reading:
    """A file on its way to settings that DeepSpeed is given."""

    path: Path
    config: RunConfig
    generated: Mapping[str, Any]
    settings: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, text: str) -> None:
        self.problems.append(f"{self.path}: {text}")

    def note(self, text: str) -> None:
        self.notes.append(f"{self.path.name}: {text}")

    def drop(self, key: str, reason: str) -> None:
        self.settings.pop(key)
        self.note(f"{key} {reason}")


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
    reading = _Reading(path, config, generated, read_deepspeed_file(path))
    for understand in (
        _drop_null, _refuse_unknown, _check_scalars, _resolve_batches, _resolve_half, _resolve_optimizer, _drop_others,
        _resolve_zero, _resolve_clipping, _check_checkpointing, _keep_needed,
    ):  # fmt: skip
        understand(reading)
    if reading.problems:
        raise InputError(reading.problems)
    settings = _without_auto(reading.settings, generated)
    _check_with_deepspeed(config, path, settings)
    return {**generated, **settings}, reading.notes


def _drop_null(reading: _Reading) -> None:
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


def _refuse_unknown(reading: _Reading) -> None:
    _refuse_others(reading, reading.settings, _KNOWN, "")


def _refuse_others(reading: _Reading, block: dict[str, Any], known: Iterable[str], prefix: str) -> None:
    names = list(known)
    for key in list(block):
        if key in names:
            continue
        if key.startswith(("_", "//", "$")) or key.casefold() in _COMMENT_KEYS:
            block.pop(key)
            continue
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
        advice = f"Did you mean {close[0]}?" if close else "Remove it."
        reading.refuse(f"{prefix}{key} is not a setting of DeepSpeed. {advice}")


def _check_scalars(reading: _Reading) -> None:
    """What DeepSpeed takes as it is and fails on later."""
    for key in _SWITCHES:
        if not isinstance(value := reading.settings.get(key, False), bool) and value != "auto":
            reading.refuse(f"{key} must be true or false, got {json.dumps(value)}. Correct it.")
    every = reading.settings.get("steps_per_print", 1)
    if every != "auto" and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        reading.refuse(f"steps_per_print must be a whole number above 0, got {json.dumps(every)}. Correct it.")


def _resolve_batches(reading: _Reading) -> None:
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


def _resolve_half(reading: _Reading) -> None:
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


def _resolve_autocast(reading: _Reading, precision: str) -> None:
    block = reading.settings.pop("torch_autocast", None)
    if block is None or block.get("enabled") in (False, "auto", None):
        return
    meant = _DTYPES.get(str(block.get("dtype", "bfloat16")).removeprefix("torch."), "")
    if meant != precision:
        reading.refuse(
            f"torch_autocast asks for {block.get('dtype', 'bfloat16')}, and --precision is {precision}. "
            f"Use --precision {meant or 'bf16'} or remove the block."
        )


def _resolve_optimizer(reading: _Reading) -> None:
    config = reading.config
    decided = {"lr": ("--learning_rate", config.learning_rate), "weight_decay": ("--weight_decay", config.weight_decay)}
    block = reading.settings.pop("optimizer", None)
    if block is not None:
        kind, parameters = block.get("type"), block.get("params") or {}
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
    block = reading.settings.pop("scheduler", None)
    if block is not None:
        reading.note(f"scheduler {block.get('type', '')} is overridden by --lradj {config.lradj}.".replace("  ", " "))


def _drop_others(reading: _Reading) -> None:
    for key in _NOT_HERE:
        block = reading.settings.get(key)
        if block is None:
            continue
        if isinstance(block, dict) and block.get("enabled", True) is False:
            reading.settings.pop(key)
        else:
            reading.drop(key, "is for another kind of training and was dropped.")


def _resolve_zero(reading: _Reading) -> None:
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
    _refuse_others(reading, zero, _zero_names(reading.config), "zero_optimization.")
    for key in [name for name in zero if name.startswith("stage3_") or name == "offload_param"]:
        block = zero.pop(key)
        if block is not None and not (isinstance(block, dict) and block.get("device") in (None, "none")):
            reading.note(f"zero_optimization.{key} is of stage 3 and was dropped.")
    _resolve_offload(reading, zero)


def _resolve_offload(reading: _Reading, zero: dict[str, Any]) -> None:
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


def _resolve_clipping(reading: _Reading) -> None:
    said = reading.settings.get("gradient_clipping", "auto")
    if said == "auto":
        reading.settings["gradient_clipping"] = reading.config.max_grad_norm
        return
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 0:
        reading.refuse(f'gradient_clipping must be a number from 0 or "auto", got {json.dumps(said)}. Use "auto".')
    elif reading.config.max_grad_norm > 0 and said != reading.config.max_grad_norm:
        reading.note(f"gradient_clipping {said} is overridden by --max_grad_norm {reading.config.max_grad_norm:g}.")
        reading.settings["gradient_clipping"] = reading.config.max_grad_norm


def _check_checkpointing(reading: _Reading) -> None:
    block, config = reading.settings.get("activation_checkpointing"), reading.config
    if not block:
        return
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


def _keep_needed(reading: _Reading) -> None:
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
