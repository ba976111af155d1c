"""Run folders made up for tests: a manifest and rows with planted effects, no training."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from results.analysis.pareto import add_scores
from results.analysis.table import write_trials
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest

SPEED = {"precision": {"fp32": 1.0, "bf16": 0.5}, "batch_size": {16: 1.15, 32: 1.0, 64: 0.8, 128: 0.7}}
SPEED |= {"llm_layers": {2: 0.5, 4: 0.75, 6: 1.0}, "prompt_prefix": {"recompute": 1.0, "reuse": 0.45}}
SPEED |= {"num_workers": {0: 1.0, 2: 1.0}, "compile_mode": {"off": 1.0, "default": 0.9}}
"""Planted effect of each knob's values on seconds_per_epoch, as factors."""

ACCURACY = {"precision": {"fp32": 1.0, "bf16": 1.002}, "batch_size": {16: 0.995, 32: 1.0, 64: 1.02, 128: 1.05}}
ACCURACY |= {"llm_layers": {2: 1.06, 4: 1.02, 6: 1.0}}
"""Planted effect on val_mse, as factors; knobs that are not here have none."""

BASELINE = {name: next(iter(values)) for name, values in SPEED.items()} | {"batch_size": 32, "llm_layers": 6}
PLAN_A = {**BASELINE, "precision": "bf16", "batch_size": 64}
START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

FAILURES: tuple[tuple[str, str], ...] = (
    ("out_of_memory", "Peak memory reached 20.4 GiB of 20.0 GiB. Use a smaller --batch_size or --llm_layers."),
    ("diverged", "Loss became NaN at step 41 (fp16). Use --precision bf16 or a lower --learning_rate."),
    ("failed", "The worker was killed (SIGKILL).\n<script>alert('not run')</script> & \"quotes\""),
    ("interrupted", "The time budget ended before the trial."),
    ("stopped_early", "Stopped at rung 2: worse than its peers."),
)


FIDELITY = {"train_samples": 32_000, "val_samples": 5_000}
"""Of the rows and their trainings; the run's own settings are of a whole training."""


def make_manifest(**changes: Any) -> Manifest:
    """A manifest as search writes it, fields changed."""
    defaults = RunConfig().to_dict()
    values = {
        "name": "synthetic",
        "status": "finished",
        "created_at": START.isoformat(),
        "finished_at": (START + timedelta(minutes=10)).isoformat(),
        "space": {
            "name": "speed",
            "knobs": [{"name": name, "values": list(values)} for name, values in SPEED.items()],
            "baseline": BASELINE,
            "plans": {"plan-a": PLAN_A},
        },
        "objective": "pareto",
        "time_weight": 0.05,
        "fidelity": {"kind": "full", "train_samples": None, "val_samples": None},
        "time_budget_seconds": 600.0,
        "num_trials": None,
        "sampler": "tpe",
        "scheduler": "moasha",
        "seed": 2021,
        "reference_point": {"seconds_per_epoch": 400.0, "val_mse": 1.0},
        "baseline_trial_id": "t0000",
        "machine": {"cpu": "Made-up CPU", "cores": 2, "memory_gib": 23.5, "gpus": [], "platform": "Linux"},
        "versions": {"torch": "2.13.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "git_revision": "0123456789abcdef",
        "data": {
            "name": "nyc-weather",
            "checksum": "ab12",
            "notes": ["26 missing hours filled forward."],
            "columns": [],
        },
        "backbone": {"name": "smollm2-135m", "checksum": "cd34", "label": "SmolLM2-135M"},
        "run_defaults": defaults,
        "run_config": {**defaults, "train_epochs": 2},
        "train_command": ["python", "timellm/run_main.py"],
        "project_root": str(Path(__file__).resolve().parents[2]),
        "python": "python3",
        "command": ["python", "search/run.py", "--space", "speed"],
        "controls": [{"name": "window mean", "val_mse": 0.9}],
        "notes": ["plan-a: num_workers 8 became 2, the machine has 2 cores."],
        **changes,
    }
    return Manifest.from_json(json.dumps(values))


def make_row(number: int, knobs: dict[str, Any], rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    """A complete row whose objectives follow the planted effects, with noise of 1 %."""
    seconds, mse = 200.0, 0.4
    for name, value in knobs.items():
        seconds *= SPEED.get(name, {}).get(value, 1.0)
        mse *= ACCURACY.get(name, {}).get(value, 1.0)
    seconds, mse = seconds * rng.normal(1, 0.01), mse * rng.normal(1, 0.002)
    return {
        "trial_id": f"t{number:04d}",
        "state": "complete",
        "source": "sampler",
        "val_mse": mse,
        "val_mae": mse**0.5 * 0.8,
        "test_mse": mse * 1.1,
        "test_mae": mse**0.5 * 0.85,
        "seconds_per_epoch": seconds,
        "seconds_per_epoch_low": seconds * 0.98,
        "seconds_per_epoch_high": seconds * 1.02,
        "is_projected": False,
        "seconds_per_epoch_with_validation": seconds * 1.2,
        "seconds_per_batch": seconds / 1000,
        "samples_per_second": 32_000 / seconds,
        "startup_seconds": 6.0,
        "compile_seconds": 12.0 if knobs["compile_mode"] != "off" else 1.0,
        "validation_seconds": seconds * 0.2,
        "total_seconds": 20 + seconds * 2.4,
        "peak_memory_gib": 1.5 + knobs["batch_size"] / 32,
        "epochs": 2.0,
        **FIDELITY,
        "trainable_parameters": 50_890_000,
        "total_parameters": 132_800_000,
        "timing_quality": "clean" if number % 9 else "contended",
        "seed": 2021,
        "started_at": (START + timedelta(seconds=70 * number)).isoformat(),
        **{f"config/{name}": value for name, value in knobs.items()},
        **changes,
    }


def make_rows(trials: int = 40, seed: int = 0, failures: bool = True) -> list[dict[str, Any]]:
    """Baseline, plan A, then distinct sampled configurations, some of them failed."""
    rng = np.random.default_rng(seed)
    every = [dict(zip(SPEED, values, strict=True)) for values in itertools.product(*SPEED.values())]
    sampled = [knobs for knobs in every if knobs not in (BASELINE, PLAN_A)]
    chosen = [sampled[i % len(sampled)] for i in rng.permutation(max(len(sampled), trials))]
    rows = [make_row(0, BASELINE, rng, source="baseline"), make_row(1, PLAN_A, rng, source="plan-a")]
    for number in range(2, trials):
        changes: dict[str, Any] = {}
        if failures and number % 8 == 7:
            state, error = FAILURES[number // 8 % len(FAILURES)]
            changes = {"state": state, "error": error}
            changes |= dict.fromkeys(("val_mse", "val_mae", "test_mse", "test_mae", "seconds_per_epoch"))
        rows.append(make_row(number, chosen[number - 2], rng, **changes))
    return rows


def confirm(rows: list[dict[str, Any]], trial_id: str, count: int = 2) -> list[dict[str, Any]]:
    """Repeats of a row with other seeds."""
    original = next(row for row in rows if row["trial_id"] == trial_id)
    repeats = []
    for number in range(count):
        factor = 1 + 0.004 * (-1) ** number
        repeats.append(
            {
                **original,
                "trial_id": f"{trial_id}-confirm-{number}",
                "source": "confirm",
                "seed": 2022 + number,
                "val_mse": original["val_mse"] * factor,
                "seconds_per_epoch": original["seconds_per_epoch"] * factor,
                "started_at": (START + timedelta(hours=2, seconds=70 * number)).isoformat(),
            }
        )
    return repeats


def make_run(path: Path, rows: list[dict[str, Any]] | None = None, **manifest: Any) -> RunFolder:
    """A run folder with manifest and trials table."""
    folder = RunFolder(path)
    folder.write_manifest(make_manifest(name=folder.name, **manifest))
    write_trials(folder, add_scores(make_rows() if rows is None else rows))
    return folder


def make_errors(folder: RunFolder, rows: list[dict[str, Any]]) -> None:
    """Trainings that measured the complete rows' errors apart, as a search writes them into errors.jsonl."""
    config = folder.read_manifest().run_config
    lines = []
    for row in rows:
        if row["val_mse"] is None:
            continue
        knobs = {name.removeprefix("config/"): value for name, value in row.items() if name.startswith("config/")}
        curve = [{"step": step, "samples": 32 * step, "val_mse": row["val_mse"] + 1 / step} for step in (100, 1000)]
        series = {"history": [0.0] * 8, "truth": [1.0] * 4, "forecast": [0.9] * 4, "naive": [0.5] * 4}
        examples = [{"window": index, "channel": "<temp>", **series, "naive_name": "last value"} for index in range(4)]
        lines.append(
            {"trial_id": row["trial_id"], "numbers": "x", "config": {**config, **knobs, **FIDELITY}, "seed": 2021}
            | {**FIDELITY, "steps": 1000, "val_mse": row["val_mse"], "state": "complete"}
            | {"curve": curve, "examples": examples}
        )
    folder.errors.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_manifest(folder: RunFolder, **changes: Any) -> None:
    """Change keys of manifest.json as somebody with an editor would: their types are not checked."""
    values = json.loads(folder.manifest.read_text())
    folder.manifest.write_text(json.dumps({**values, **changes}))
