"""Checks the types of a manifest's keys, because a run folder may be somebody else's, edited or cut off."""

import math
import re
from collections.abc import Mapping
from typing import Any

_NUMBER = "a finite number of at least 0"
_SETTINGS = "an object of settings"
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,99}")
_RUN_COMMAND = "python timellm/run_main.py, with PyTorch's launcher before it or without"
_LAUNCHED = re.compile(
    r"python (-m torch\.distributed\.run --standalone --nproc_per_node [0-9]{1,4} )?timellm/run_main\.py"
)
KINDS: dict[str, str] = {
    "name": "text",
    "status": "text",
    "created_at": "text",
    "finished_at": "text",
    "project_root": "text",
    "python": "text",
    "git_revision": "text",
    "baseline_trial_id": "text",
    "elapsed_seconds": _NUMBER,
    "time_budget_seconds": _NUMBER,
    "num_trials": _NUMBER,
    "space": "an object",
    "fidelity": "an object",
    "expected": "an object",
    "reference_point": "an object of numbers",
    "time_spent": "an object of numbers",
    "features": "a list of texts",
    "clocks": "text",
    "machine": "an object",
    "versions": "an object",
    "data": "an object",
    "backbone": "an object",
    "run_defaults": _SETTINGS,
    "run_config": _SETTINGS,
    "options": "an object",
    "notes": "a list of texts",
    "command": "a list of texts",
    "train_command": _RUN_COMMAND,
    "controls": "a list of objects",
}
INSIDE: dict[str, Mapping[str, str]] = {
    "space": {
        "fixed": _SETTINGS,
        "baseline": _SETTINGS,
        "plans": "an object of such objects",
    },
    "expected": {"baseline_seconds": _NUMBER, "trials": _NUMBER, "spending": "an object"},
    "fidelity": {"kind": "text", "train_samples": _NUMBER, "val_samples": _NUMBER},
    "data": {
        "name": "text",
        "columns": "a list of texts",
        "notes": "a list of texts",
        "windows": "an object of numbers",
    },
    "machine": {"cores": _NUMBER},
}


def manifest_problems(manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the types in a manifest, as "key must be ..., got ..."; keys may lack or be null."""
    found = [*_problems("", manifest, KINDS)]
    for key, kinds in INSIDE.items():
        if isinstance(manifest.get(key), dict):
            found += _problems(f"{key}.", manifest[key], kinds)
    return found


def _problems(prefix: str, values: Mapping[str, Any], kinds: Mapping[str, str]) -> list[str]:
    return [
        f"{prefix}{name} must be {kind}, got {_short(values[name])}"
        for name, kind in kinds.items()
        if values.get(name) is not None and not _is(kind, values[name])
    ]


def _is(kind: str, value: Any) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == _NUMBER:
        return _is_number(value) and value >= 0
    if kind == _RUN_COMMAND:
        return _is("a list of texts", value) and _LAUNCHED.fullmatch(" ".join(value)) is not None
    if kind == _SETTINGS:
        return isinstance(value, dict) and all(map(_SETTING.fullmatch, value))
    if kind == "an object of such objects":
        return isinstance(value, dict) and all(_is(_SETTINGS, item) for item in value.values())
    if kind.startswith("a list"):
        inside = dict if kind.endswith("objects") else str
        return isinstance(value, list) and all(isinstance(item, inside) for item in value)
    return isinstance(value, dict) and (kind == "an object" or all(map(_is_number, value.values())))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63 and math.isfinite(value)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
