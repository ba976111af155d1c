"""Which settings of a run change its numbers, and which its times.

Both are deny lists: a setting counts as changing numbers and times unless its declaration says otherwise. So a new
setting never makes two runs share an error by accident.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timellm.contract.config import (
    BASE_BATCH,
    SETTINGS,
    RunConfig,
    is_fused_by_default,
    lr_scaling_factor,
    names_no_backbone,
)
from timellm.contract.declarations import SAME_NUMBERS, SAME_TIMES

WAYS = frozenset(name for name, declared in SETTINGS.items() if SAME_NUMBERS.what in declared.unchanged)
"""Settings that choose a way to compute the same numbers, except for rounding; `_exceptions` says when one does not."""

TIMELESS = frozenset(name for name, declared in SETTINGS.items() if SAME_TIMES.what in declared.unchanged)
"""Settings that change no time."""


def numbers_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run's errors are, resolved; runs with equal ones have equal errors.

    The learning rate's scaling is its factor, so that every scaling counts as none at a global batch of 32. A DeepSpeed
    file counts by its content. Settings that choose between ways to compute the same numbers are left out.

    Args:
        settings: Settings of a run by name; those that are missing take their defaults.

    Returns:
        Values by the setting's name, as JSON types.
    """
    values = _complete(settings)
    numbers = {name: value for name, value in values.items() if name not in WAYS}
    numbers["lr_scaling"] = _learning_rate_factor(values)
    if values["deepspeed_config"]:
        numbers["deepspeed_config"] = _content(values["deepspeed_config"])
    if not _draws_masks(values):
        del numbers["compile_mode"]
    if values["train_samples"] is not None:
        del numbers["validate_every"]  # such a run is validated once, at its end
    return numbers | {name: values[name] for name in _exceptions(values)}


def times_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide how long a run's steps take, resolved.

    Args:
        settings: Settings of a run by name; those that are missing take their defaults.

    Returns:
        Values by the setting's name, as JSON types.
    """
    values = {name: value for name, value in _complete(settings).items() if name not in TIMELESS}
    if values["fused_optimizer"] is None:
        values["fused_optimizer"] = is_fused_by_default(values["prompt_prefix"])
    if values["deepspeed_config"]:
        values["deepspeed_config"] = _content(values["deepspeed_config"])
    return values


def numbers_key(settings: Mapping[str, Any]) -> str:
    """A short name of the settings that decide a run's errors, equal where they are."""
    return _digest(numbers_of(settings))


def times_key(settings: Mapping[str, Any]) -> str:
    """A short name of the settings that decide a run's times, equal where they are."""
    return _digest(times_of(settings))


def same_numbers(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs have equal errors, except for rounding, because they only differ in how they compute."""
    return numbers_of(one) == numbers_of(other)


def _exceptions(values: Mapping[str, Any]) -> set[str]:
    """Ways to compute that do change numbers beside these settings."""
    found: set[str] = set()
    if values["prompt_padding"] == "published":  # a forecast depends on the shape of its batch
        found |= {"eval_batch_size", "prompt_prefix"}
    if values["backbone_dropout"]:  # fused attention draws other masks
        found |= {"attention", "gradient_checkpointing"}
    if values["compile_mode"] != "off" and _draws_masks(values):  # compiled code decides the order of its own draws
        found |= {"attention", "gradient_checkpointing", "offload_optimizer", "prompt_prefix"}
    if values["deepspeed_config"] or values["precision"] == "fp16":  # its clipping, its own loss scaling
        found.add("offload_optimizer")
    return found


def _draws_masks(values: Mapping[str, Any]) -> bool:
    """Whether training draws dropout masks, which compiled code draws otherwise.

    The reprogramming attention always drops out, so only the control without a language model may draw none.
    """
    return not names_no_backbone(str(values["llm_model"])) or bool(values["dropout"])


def _learning_rate_factor(values: Mapping[str, Any]) -> Any:
    """The factor; what it is made of where no run can have such values, as in an edited table."""
    rule, batch_size, steps = values["lr_scaling"], values["batch_size"], values["accumulation_steps"]
    try:
        return lr_scaling_factor(rule, batch_size * steps / BASE_BATCH)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return [rule, batch_size, steps]


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    return {**defaults, **settings}


def _content(path: str) -> str:
    """A digest of an ordinary file; its path where no such file can be read."""
    try:
        if not (place := Path(path).expanduser()).is_file():
            return path
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RuntimeError, ValueError):
        return path


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
