"""Writes the recommended settings of a run as commands, JSON and DeepSpeed configurations."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from results.analysis.picks import Pick, Recommendation
from results.analysis.verdict import plain
from results.analysis.wording import multiple
from timellm.contract.columns import knob_columns, knob_name
from timellm.contract.config import SETTING_NAMES
from timellm.contract.errors import InputError
from timellm.contract.files import replace_files
from timellm.contract.layout import PickFolder, RunFolder
from timellm.contract.manifest import Manifest
from timellm.contract.words import MISSING, seconds_words
from timellm.contract.zero2 import zero2_settings

FIDELITY_SETTINGS = ("train_samples", "val_samples")
"""Settings that shorten a trial; a recommended run is whole."""

_NEEDED = ("run_defaults", "run_config", "train_command", "project_root", "python")


def write_recommendation(folder: RunFolder, recommendation: Recommendation, manifest: Manifest) -> None:
    """Write recommended/{exact,fastest,balanced,accurate}/ and recommended/command.sh.

    The latter is the balanced pick's, or the exact one's where errors are not telling.

    Args:
        folder: The run folder.
        recommendation: What `results.analysis.picks.recommend` chose; without picks nothing is written.
        manifest: The run's manifest.

    Raises:
        InputError: If the manifest lacks a part of the command, or a knob is not a setting of a run.
        OSError: If the disk refuses.
    """
    if not recommendation.picks:
        return
    missing = [name for name in _NEEDED if not getattr(manifest, name)]
    if missing:
        raise InputError(f"{folder.manifest} must hold {', '.join(missing)} for a command to be written.")
    contents: dict[Path, str | bytes] = {}
    for pick in recommendation.picks:
        files = folder.recommendation(pick.name)
        config = run_config_of(pick.row, manifest)
        command = command_script(pick, config, manifest)
        contents[files.command] = command
        contents[files.run_config] = json.dumps(config, indent=2) + "\n"
        contents[files.deepspeed_config] = _deepspeed_file(folder, pick, config)
        contents[files.reasons] = reasons_text(pick, recommendation, manifest)
        if pick is recommendation.headline:
            contents[folder.recommended_command] = command
    replace_files(contents)
    for path in contents:
        if path.suffix == ".sh":
            path.chmod(0o755)


def run_config_of(row: pd.Series, manifest: Manifest) -> dict[str, Any]:
    """The whole training run of a row, as a run configuration.

    Args:
        row: A row of the trials table.
        manifest: The run's manifest: its `run_config` holds what the row's knobs do not set.

    Returns:
        Every setting by name; those that shorten a trial are back at their defaults.

    Raises:
        InputError: If a knob is not a setting of a run.
    """
    defaults = manifest.run_defaults
    knobs = {knob_name(name): row[name] for name in knob_columns(row.index) if pd.notna(row[name])}
    unknown = sorted(set(knobs) - set(defaults))
    if unknown:
        raise InputError(f"Every knob must be a setting of a run, but run_defaults has no {', '.join(unknown)}.")
    _require_known({**defaults, **manifest.run_config}, defaults)
    if pd.notna(row["seed"]):
        knobs["seed"] = row["seed"]
    settings = {name: plain(value, defaults[name]) for name, value in knobs.items()}
    whole = {name: defaults[name] for name in FIDELITY_SETTINGS if name in defaults}
    return {**defaults, **manifest.run_config, **settings, **whole}


def _require_known(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse names that are not settings: a run folder may be somebody else's, and names become part of a script.

    Raises:
        InputError: If there are any; it names them.
    """
    foreign = sorted(name for name in config if name not in SETTING_NAMES and config[name] != defaults.get(name))
    if foreign:
        raise InputError(f"run_config must hold settings of a run only, got {', '.join(map(repr, foreign))}.")


def command_script(pick: Pick, config: Mapping[str, Any], manifest: Manifest) -> str:
    """A shell script that trains a pick from anywhere and passes further flags on; flags given later win.

    What it trains is written to the pick's own folder, which is found from the script's place and where
    `timellm/forecast.py` looks.
    """
    defaults = manifest.run_defaults
    _require_known(config, defaults)
    script, *rest = (manifest.train_command or ())[1:]
    lines = [f'exec "${{PYTHON:-$python}}" {shlex.join([script, *rest])}']
    for name, value in config.items():
        if value == defaults.get(name):
            continue
        if value is None:
            raise InputError(f"{name} has no flag for an empty value; its default is {defaults.get(name)!r}.")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        between = "=" if text.startswith("-") else " "  # otherwise it would be read as the next flag
        lines.append(f"  --{name}{between}{shlex.quote(text)}")
    place = PickFolder(Path("$pick"))
    lines += [f'  --checkpoints "{place.trainings}"', f'  --checkpoint "{place.checkpoint}"']
    title = f"{pick.title} pick of run {manifest.name or ''}, trial {pick.trial_id}"
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {' '.join(title.split())}. Further flags are passed on and win over those below.",
            "# TIMELLM_ROOT names another checkout of the project, PYTHON another interpreter.",
            "set -euo pipefail",
            f"root={shlex.quote(manifest.project_root or '')}",
            f"python={shlex.quote(manifest.python or '')}",
            'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"',
            f'pick="${{here%/{pick.name}}}/{pick.name}"  # beside recommended/command.sh, or this folder',
            'cd "${TIMELLM_ROOT:-$root}"',
            " \\\n".join([*lines, '  "$@"']),
            "",
        ]
    )


def reasons_text(pick: Pick, recommendation: Recommendation, manifest: Manifest) -> str:
    """why.md: the reason, what changes against the reference, what was measured, what to keep in mind."""
    row = pick.row
    lines = [f"# {pick.title}: trial {pick.trial_id} of {manifest.name or 'the run'}", "", pick.reason, ""]
    if not recommendation.beats_in_score:
        lines += [f"Nothing beats {recommendation.reference_name} in the joint score.", ""]
    lines += [f"- {caveat}" for caveat in recommendation.caveats]
    lines += [""] if recommendation.caveats else []
    if pick.changes:
        lines += ["| setting | value | was |", "|---|---|---|"]
        lines += ["| " + " | ".join(_cell(part) for part in change) + " |" for change in pick.changes]
        lines.append("")
    memory = MISSING if pd.isna(row["peak_memory_gib"]) else f"{row['peak_memory_gib']:.1f} GiB"
    error = MISSING if pd.isna(row["val_mse"]) else f"{row['val_mse']:.4f}"
    error += "" if pick.is_reference else f" ({pick.error_words})"
    seeds = int(row["repeats"])
    lines += [
        "| measured | |",
        "|---|---|",
        f"| seconds per epoch | {seconds_words(row['seconds_per_epoch'])} |",
        *([] if pick.is_reference else [f"| against the reference | {multiple(pick.speedup)} |"]),
        f"| validation MSE | {error} |",
        f"| peak memory | {memory} |",
        f"| seeds | {seeds}{'' if seeds > 1 else ', so the spread of the MSE is not known'} |",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _deepspeed_file(folder: RunFolder, pick: Pick, config: Mapping[str, Any]) -> bytes | str:
    """The file the trial trained with, or one made for its settings where it did not use DeepSpeed."""
    own = folder.trial(pick.trial_id).deepspeed_config
    if config["offload_optimizer"] != "off" and own.is_file():
        return own.read_bytes()
    return json.dumps(zero2_settings(config), indent=2) + "\n"
