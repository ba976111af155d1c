"""What the README's first command finds on this machine: every trial, the picks, and the machine's speed beside it."""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import results
from benchmarks.arithmetic import peak_flops_per_second
from benchmarks.document import device_heading
from benchmarks.harness import FOLDER, amx_sentence
from benchmarks.record import Notes, Section, Table, Text, table
from benchmarks.runner import Benchmark
from results.analysis.evidence import recommendation_of
from results.analysis.picks import Pick
from results.analysis.wording import multiple
from timellm.contract.columns import State, knob_columns, knob_name
from timellm.contract.errors import InputError
from timellm.contract.flags import StrictParser
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest, PlannedFidelity
from timellm.machine.cores import usable_cores

NARROW = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
"""Environment variables that hold a processor to an older instruction set."""
SEARCH = ("search/run.py", "--space", "speed")
"""The README's first command, after its installation."""
INTRODUCTION = """# A first search

What the README's first command finds in its ten minutes: real SmolLM2-135M weights, real weather, no GPU. A trial's
time was measured as it is configured; its error was trained on the cheapest path that computes the same numbers, once
for all trials that share them (`error from`). Seconds per epoch are **projected** to all training windows, with their
95 % interval. A machine is held to AVX2 by `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
MKL_ENABLE_INSTRUCTIONS=AVX2`; the speed of its matrix products, measured in the same environment after the search, says
what that changed: a processor whose AVX2 is as fast as its AVX-512 only loses bf16."""


class FirstSearch(Benchmark):
    """Runs the README's first search and lists what it found."""

    name = "first_search"
    title = "Runs the README's first search and lists what it found."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = StrictParser(prog=f"benchmarks {self.name}", description=self.title)
        parser.add_argument("--run", default=None, help="run folder of such a search (default: one is run now)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this machine."""
        if arguments.run:
            return [_section(RunFolder(arguments.run))]
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *SEARCH, "--runs_dir", folder, "--name", "first"]
            done = subprocess.run(command, cwd=FOLDER.parent)
            if done.returncode:
                raise InputError(f"The search must end with status 0, got {done.returncode}.")
            return [_section(RunFolder(Path(folder) / "first"))]


def _section(folder: RunFolder) -> Section:
    manifest = folder.read_manifest()
    trials = results.load_trials(folder.path)
    torch.set_num_threads(usable_cores())
    speeds = {name: peak_flops_per_second(torch.device("cpu"), dtype) / 1e9 for name, dtype in _DTYPES.items()}
    held = f"held to {held_to()}" if held_to() else f"as it is, with {torch.backends.cpu.get_cpu_capability()}"
    heading = device_heading(torch.device("cpu"), held)
    recommendation = recommendation_of(folder)
    parts = (_conditions(manifest, trials, speeds), _trials_table(trials), _picks_table(recommendation.picks))
    caveats = tuple(Text(caveat) for caveat in recommendation.caveats)
    return Section(heading, (*parts, *caveats))


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def held_to() -> str:
    """The instruction set that the environment holds this process to, as it is written there; empty for none."""
    return next((os.environ[name] for name in NARROW if os.environ.get(name)), "")


def _conditions(manifest: Manifest, trials: pd.DataFrame, speeds: Mapping[str, float]) -> Notes:
    machine, versions = manifest.machine, manifest.versions
    shown = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "ray", "optuna"))
    fidelity = manifest.fidelity or PlannedFidelity()
    controls = ", ".join(f"{name} {error:.4f}" for name, error in manifest.control_errors.items())
    spent = manifest.time_spent
    complete = trials[(trials["state"] == State.COMPLETE).to_numpy()]
    sampled = int((complete["source"] == "sampler").sum())
    lines = [
        f"Machine: {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB; {amx_sentence()}",
        "Matrix products: " + ", ".join(f"{name} {speed:.1f} GFLOP/s" for name, speed in speeds.items()),
        f"Versions: {shown}; revision {manifest.git_revision}",
        f"Command: `python {shlex.join(SEARCH)}`, {manifest.elapsed_seconds:.0f} s in all",
        f"Date: {(manifest.created_at or '')[:10]}",
        f"Errors: after {fidelity.train_samples} training windows, on {fidelity.val_samples} validation windows",
        f"Trials: {len(trials)}, {len(complete)} complete, {sampled} of those the sampler's",
    ]
    if spent:
        lines.append("Seconds spent: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items()))
    if controls:
        lines.append(f"Controls on the same validation windows: {controls}")
    return Notes(tuple(lines))


def _trials_table(trials: pd.DataFrame) -> Table:
    base = trials[(trials["source"] == "baseline").to_numpy()].iloc[0]
    headings = ("trial", "source", "state", "differs from the baseline", "seconds per epoch", "speed-up")
    rows = [
        (
            row["trial_id"],
            row["source"],
            row["state"],
            _differences(row, base) or "nothing",
            _interval(row, "seconds_per_epoch", ",.0f"),
            _number(row["speedup_vs_baseline"], ".2f", "x"),
            _interval(row, "val_mse", ".4f"),
            _text(row["error_from"]),
            _number(row["peak_memory_gib"], ".1f"),
        )
        for _, row in trials.iterrows()
    ]
    return table((*headings, "validation MSE", "error from", "GiB"), rows)


def _picks_table(picks: tuple[Pick, ...]) -> Table:
    rows = [(pick.name, pick.trial_id, multiple(pick.speedup), pick.reason) for pick in picks]
    return table(("pick", "trial", "speed", "why"), rows)


def _differences(row: pd.Series, base: pd.Series) -> str:
    changed = [name for name in knob_columns(row.index) if str(row[name]) != str(base[name]) and pd.notna(row[name])]
    return ", ".join(f"{knob_name(name)} {row[name]}" for name in changed)


def _interval(row: pd.Series, column: str, spec: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    if pd.isna(row[column]):
        return "-"
    known = pd.notna(low) and pd.notna(high)
    return f"{row[column]:{spec}} ({low:{spec}} to {high:{spec}})" if known else f"{row[column]:{spec}}"


def _number(value: Any, spec: str, unit: str = "") -> str:
    return "-" if pd.isna(value) else f"{value:{spec}}{unit}"


def _text(value: Any) -> str:
    return "-" if pd.isna(value) else str(value)
