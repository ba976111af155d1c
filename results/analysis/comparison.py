"""Two runs side by side."""

import os
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
import pandas as pd
from scipy import stats

from results.analysis.fidelity import Compared, fidelity_words
from results.analysis.pareto import hypervolume
from results.analysis.reference import baseline_lack
from results.analysis.table import load_trials
from timellm.contract.columns import (
    FIDELITY,
    OBJECTIVES,
    SECONDS_PER_EPOCH,
    VAL_MSE,
    knob_column,
    knob_columns,
)
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest

Path = str | os.PathLike[str]

TASK_SETTINGS = ("data", "features", "seq_len", "pred_len", "percent", "llm_model", "llm_weights")
"""Settings that two runs of the same task share; paths may differ where checksums agree."""


def compare(run_a: Path, run_b: Path) -> pd.DataFrame:
    """What two runs found, and how equal configurations fared in both.

    Args:
        run_a: A run folder.
        run_b: Another run folder.

    Returns:
        One row per `measure`: columns `a`, `b`, `ratio` (b over a) and its 95 % interval `ratio_low`, `ratio_high`
        (only for configurations that both ran, at least 2). Hypervolumes share one reference point, the worse of
        both. `attrs["note"]` says which fidelity was compared; runs that differ in fidelity, data, language model or
        task get no ratio and no hypervolume, and the note says why. Where a baseline did not complete, the first
        complete trial takes its place: the rows are then called reference, without ratio, and the note says so.

    Raises:
        InputError: If a folder is missing or cannot be read.
    """
    loaded = load_trials([run_a, run_b])
    runs = [loaded[(loaded["run"] == name).to_numpy()] for name in loaded["run"].cat.categories]
    tables = [Compared.of(run) for run in runs]
    parts, rows = [table.main for table in tables], [table.configurations for table in tables]
    manifests = [RunFolder(path).read_manifest() for path in (run_a, run_b)]
    problems = [*_task_problems(manifests), *_fidelity_problems(parts, rows)]
    same = not problems
    table = [
        _measure("trials", [len(part) for part in parts]),
        _measure("complete configurations", [len(part) for part in rows]),
    ]
    for name, words in ((SECONDS_PER_EPOCH, "fastest seconds_per_epoch"), (VAL_MSE, "lowest val_mse")):
        table.append(_measure(words, [part[name].min() if len(part) else np.nan for part in rows], ratio=same))
    bases = [table.references for table in tables]
    substitutes = _substitutes(runs, bases)
    for name in OBJECTIVES:
        words = f"{'reference' if substitutes else 'baseline'} {name}"
        values = [base[name].iloc[0] if len(base) else np.nan for base in bases]
        table.append(_measure(words, values, ratio=same and not substitutes))
    if same:
        corner = _common_reference(manifests, rows)
        table.append(_measure("hypervolume", [hypervolume(part, corner) for part in rows], ratio=True))
        table.append(_measure("front points that the other run dominates", _dominated(rows)))
        table += _shared(rows, manifests)
    frame = pd.DataFrame(table, columns=["measure", "a", "b", "ratio", "ratio_low", "ratio_high"]).set_index("measure")
    frame.attrs["note"] = " ".join([*(problems or [f"Both: {fidelity_words(parts[0])}."]), *substitutes])
    frame.attrs["runs"] = dict(zip("ab", loaded.attrs["runs"].values(), strict=True))
    return frame


def _measure(words: str, sides: Sequence[float], ratio: bool = False) -> dict[str, Any]:
    a, b = sides
    return {"measure": words, "a": float(a), "b": float(b), "ratio": float(b) / float(a) if ratio and a else np.nan}


def _fidelity_of(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(str(value) for value in rows[list(FIDELITY)].iloc[0]) if len(rows) else ()


def _fidelity_problems(parts: list[pd.DataFrame], rows: list[pd.DataFrame]) -> list[str]:
    if len({_fidelity_of(part) for part in rows}) == 1 and all(len(part) for part in rows):
        return []
    a, b = (fidelity_words(part) for part in parts)
    return [f"Not comparable, because the fidelity differs or is missing: a has {a}; b has {b}."]


def _task_problems(manifests: list[Manifest]) -> list[str]:
    """What two runs differ in that makes their errors and times those of different tasks, in one sentence."""
    a, b = (_task_of(manifest) for manifest in manifests)
    if a["model checksum"] and a["model checksum"] == b["model checksum"]:
        a["llm_model"] = b["llm_model"]  # one language model, found under two names
    differing = [f"{name} ({_words(a[name])}; {_words(b[name])})" for name in a if a[name] != b[name]]
    if not differing:
        return []
    return [f"Not comparable, because the runs (a; b) differ in {', '.join(differing)}; there are no ratios."]


def _task_of(manifest: Manifest) -> dict[str, Any]:
    """What was forecast from what, and with which language model; None where the manifest does not say."""
    config = manifest.run_config
    settings = {name: config.get(name) for name in TASK_SETTINGS}
    target = config.get("target") or next(iter(reversed(manifest.data.columns)), None)
    return {
        **settings,
        "target": None if settings["features"] == "M" else target,
        "data checksum": manifest.data.checksum,
        "model checksum": manifest.backbone.checksum,
    }


def _words(value: Any) -> str:
    """A setting in a sentence; a checksum by its beginning."""
    text = "not given" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _substitutes(runs: list[pd.DataFrame], bases: list[pd.DataFrame]) -> list[str]:
    """One sentence for each run whose baseline did not complete, on what takes its place."""
    sentences = []
    for side, run, base in zip("ab", runs, bases, strict=True):
        lack = baseline_lack(run, base.iloc[0]) if len(base) else None
        if lack is not None:
            trial = base["trial_id"].iloc[0]
            sentences.append(f"The baseline of {side} {lack}, so its reference is the first complete trial, {trial}.")
    return sentences


def _common_reference(manifests: list[Manifest], rows: list[pd.DataFrame]) -> dict[str, float]:
    """The worse of both reference points, or of both tables where a manifest has none."""
    return {
        name: max(
            float((manifest.reference_point or {}).get(name, part[name].max() * 1.1))
            for manifest, part in zip(manifests, rows, strict=True)
        )
        for name in OBJECTIVES
    }


def _dominated(rows: list[pd.DataFrame]) -> tuple[int, int]:
    """How many points of each front are beaten by a point of the other run."""
    fronts = []
    for part in rows:
        points = part[list(OBJECTIVES)].to_numpy(dtype=float)
        fronts.append(points[moocore.is_nondominated(points)])
    counts = []
    for own, other in (fronts, fronts[::-1]):
        not_worse = (other[None] <= own[:, None]).all(axis=2)
        better = (other[None] < own[:, None]).any(axis=2)
        counts.append(int((not_worse & better).any(axis=1).sum()))
    return counts[0], counts[1]


def _key(value: Any, fixed: Any) -> str:
    """A knob's value as text that is equal for equal numbers; the run's fixed setting where it is missing."""
    value = fixed if pd.isna(value) else value
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool)
    return repr(float(value)) if number else str(value)


def _shared(rows: list[pd.DataFrame], manifests: list[Manifest]) -> list[dict[str, Any]]:
    """Ratios over the configurations that both runs hold; a knob one run lacks takes its fixed setting there."""
    names = [
        name for name in dict.fromkeys(n for part in rows for n in knob_columns(part)) if name != knob_column("seed")
    ]
    keyed = []
    for part, manifest in zip(rows, manifests, strict=True):
        settings = {knob_column(name): value for name, value in manifest.run_config.items()}
        keys = {name: [_key(value, settings.get(name)) for value in part[name]] for name in names}
        keyed.append(pd.DataFrame(keys, index=part.index).join(part[list(OBJECTIVES)]))
    both = keyed[0].merge(keyed[1], on=names, suffixes=("_a", "_b")) if names else keyed[0].iloc[:0]
    table = [_measure("configurations in both", [len(both)] * 2)]
    if len(both) < 2:
        return table
    for name in OBJECTIVES:
        logs = np.log((both[f"{name}_b"] / both[f"{name}_a"]).to_numpy(dtype=float))
        half = float(stats.sem(logs) * stats.t.ppf(0.975, len(logs) - 1))
        low, ratio, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
        means = [float(both[f"{name}_{side}"].mean()) for side in "ab"]
        entry = _measure(f"mean {name} of configurations in both", means)
        table.append({**entry, "ratio": ratio, "ratio_low": low, "ratio_high": high})
    return table
