"""Whether the error of a short training ranks settings as a longer one does, and from how many windows on."""

import argparse
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.document import conditions, device_heading
from benchmarks.harness import RESAMPLES, Interval, benchmark_parser, run_settings, show_progress, whole_numbers
from benchmarks.kept_runs import KeptRuns
from benchmarks.record import Section, Table, table
from benchmarks.runner import Benchmark
from timellm.check import check_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.numbers import numbers_key
from timellm.data import load_data, stratified_subset
from timellm.data.naive import naive_errors
from timellm.machine.environment import choose_device

CHOICES: dict[str, tuple[Any, ...]] = {
    "batch_size": (8, 16, 32, 64),
    "accumulation_steps": (1, 2),
    "lr_scaling": ("none", "sqrt"),
    "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3),
    "dropout": (0.0, 0.1, 0.3),
}
"""Values that the sets of numbers are drawn from; every set makes whole steps of the shortest training."""
DEFAULTS: dict[str, Any] = {
    "llm_layers": 2,
    "num_prototypes": 100,
    "prompt_prefix": "reuse",
    "attention": "sdpa",
    "val_samples": 512,
    "eval_batch_size": 64,
}
"""A small model, so that many trainings can be afforded; what a flag says wins."""
INTRODUCTION = """# Fidelity

A search trains on a part of the windows. Does the error after so few rank sets of numbers as the error after more does?
Sets of numbers are drawn at random; each is trained once at every fidelity, as a trial of that fidelity is: from
scratch, its learning rate's schedule stretched to its windows, judged on one subset of validation windows. Some are
trained again with a second seed at the highest fidelity: how well an error ranks the same settings a second time is
the ceiling. Rank correlations are Spearman's, with their 95 % bootstrap interval over sets. `below controls` counts the
sets whose error lies below every forecast that needs no training."""


class FidelityRanks(Benchmark):
    """Trains sets of numbers at several fidelities and compares their ranks."""

    name = "fidelity"
    title = "Trains sets of numbers at several fidelities and compares their ranks."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--samples", default="256,1024,4096,8192", help="training windows (256,1024,4096,8192)")
        parser.add_argument("--sets", type=int, default=24, help="sets of numbers (24)")
        parser.add_argument("--again", type=int, default=12, help="sets that are trained with a second seed (12)")
        parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time (1)")
        parser.add_argument("--runs", default="fidelity_runs", help="folder that keeps finished trainings")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        samples = sorted(whole_numbers("samples", arguments.samples))
        if arguments.sets < 3 or not 0 <= arguments.again <= arguments.sets:
            raise InputError(
                f"--sets must be at least 3 and --again at most --sets, got {arguments.sets} and {arguments.again}."
            )
        config = run_settings(arguments, **DEFAULTS)
        label = check_run(config)["backbone"]["label"]
        runs = KeptRuns(Path(arguments.runs), arguments.threads)
        sets = drawn_sets(config, arguments.sets, samples[0])
        errors = _errors(runs, sets, samples, arguments.jobs)
        second = [one.replace(seed=one.seed + 1) for one in sets[: arguments.again]]
        again = _errors(runs, second, samples[-1:], arguments.jobs)[samples[-1]] if second else np.empty(0)
        torch.set_num_threads(arguments.threads)
        data = load_data(config)
        naive = naive_errors(
            data.validation, stratified_subset(data.validation, config.val_samples or 1), data.frequency
        )
        device = choose_device(config)
        notes = conditions(
            device,
            f"Run: {label}, {config.llm_layers} layers, {config.num_prototypes} prototypes, {config.data}, "
            f"{config.val_samples} validation windows",
            f"Sets: {len(sets)}, of {', '.join(CHOICES)}; {arguments.again} of them with a second seed",
            "Forecasts without training: " + ", ".join(f"{name} {error:.4f}" for name, error in naive.items()),
            f"Trained now: {runs.trained} of {len(sets) * len(samples) + len(second)} runs; the others were kept",
        )
        ranks = _ranks_table(errors, samples, again, min(naive.values()))
        return [Section(device_heading(device, label, config.data), (notes, ranks))]


def drawn_sets(base: RunConfig, count: int, fewest: int) -> list[RunConfig]:
    """Runs with different sets of numbers, the same at every call.

    Args:
        base: Settings that they share.
        count: How many.
        fewest: Training windows of the shortest training: no global batch is larger.

    Raises:
        InputError: If there are not so many.
    """
    generator, found = random.Random(0), {}
    for _ in range(100 * count):
        config = base.replace(**{name: generator.choice(values) for name, values in CHOICES.items()})
        if config.global_batch <= fewest:
            found.setdefault(numbers_key(config.to_dict()), config)
        if len(found) == count:
            return list(found.values())
    raise InputError(f"--sets must be at most {len(found)}, the sets of numbers there are, got {count}.")


def _errors(runs: KeptRuns, sets: list[RunConfig], samples: list[int], jobs: int) -> dict[int, np.ndarray]:
    """Validation error of every set [sets] by the number of training windows."""
    plan = [one.replace(train_samples=windows) for windows in samples for one in sets]

    def train(config: RunConfig) -> float:
        result = runs.result(config, clock="error", prompt_memory_gib=8.0)
        show_progress(f"{config.train_samples} windows: val mse {result['val_mse']:.4f}")
        return result["val_mse"]

    with ThreadPoolExecutor(jobs) as pool:
        found = np.array(list(pool.map(train, plan))).reshape(len(samples), len(sets))
    return dict(zip(samples, found, strict=True))


def _ranks_table(errors: dict[int, np.ndarray], samples: list[int], again: np.ndarray, control: float) -> Table:
    last = errors[samples[-1]]
    rows = [
        (
            f"{windows}",
            f"{np.median(errors[windows]):.4f}",
            f"{int((errors[windows] < control).sum())} of {len(last)}",
            "1" if windows == samples[-1] else f"{rank_correlation(errors[windows], last):.2f}",
        )
        for windows in samples
    ]
    if len(again) > 2:
        ceiling = rank_correlation(again, last[: len(again)])
        rows.append((f"{samples[-1]}, a second seed", f"{np.median(again):.4f}", "-", f"{ceiling:.2f}"))
    heading = f"rank correlation with {samples[-1]}"
    return table(("training windows", "median error", "below controls", heading), rows)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> Interval:
    """Spearman's rank correlation of paired values [n], with its 95 % bootstrap interval over pairs."""
    picks = np.random.default_rng(0).integers(0, len(one), size=(RESAMPLES, len(one)))
    resampled = [spearmanr(one[pick], other[pick]).statistic for pick in picks if len(set(pick)) > 2]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Interval(float(spearmanr(one, other).statistic), float(low), float(high))
