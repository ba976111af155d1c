"""Whether the ways to compute the same numbers do so at real size, in fp32 and in half precision."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import conditions, device_heading
from benchmarks.harness import benchmark_parser, run_settings, show_progress
from benchmarks.kept_runs import KeptRuns
from benchmarks.record import Section, Table, Text, table
from benchmarks.runner import Benchmark
from timellm.check import check_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.numbers import same_numbers
from timellm.machine.environment import choose_device

WAYS: Mapping[str, Mapping[str, Any]] = {
    "attention sdpa": {"attention": "sdpa"},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "2 loader workers": {"num_workers": 2},
    "evaluation batch 7": {"eval_batch_size": 7},
    "fused optimizer": {"fused_optimizer": True},
    "ZeRO-2": {"offload_optimizer": "none"},
    "ZeRO-2, optimizer on the CPU": {"offload_optimizer": "cpu"},
    "prompt reused": {"prompt_prefix": "reuse"},
    "prompt reused, attention sdpa": {"prompt_prefix": "reuse", "attention": "sdpa"},
    "prompt stored, attention sdpa": {"prompt_prefix": "store", "attention": "sdpa"},
}
"""Ways to compute that are declared to change no number, beside the published one."""
PUBLISHED: Mapping[str, Any] = {"prompt_prefix": "recompute", "attention": "eager", "num_workers": 0}
TOLERANCE = 1e-4
"""Largest relative difference of an error in fp32."""
SMALL: Mapping[str, Any] = {"precision": "bf16", "llm_layers": 2, "num_prototypes": 100}
"""What is trained in half precision, with several seeds."""
INTRODUCTION = """# Same numbers

Settings that choose a way to compute the same numbers share one error in a search. Here each of them is trained at
real size, beside the published computation: the same seed, windows and steps, then the same validation. In fp32 the
errors after training differ by rounding alone, at most by 1e-4 of themselves. In bf16 rounding is coarse, and two ways
to compute end apart; every way is trained with the same seeds, and the mean of its differences is held against the
spread between seeds of the published way."""


class SameNumbers(Benchmark):
    """Trains every way to compute the same numbers, and compares the errors."""

    name = "same_numbers"
    title = "Trains every way to compute the same numbers, and compares the errors."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--steps", type=int, default=50, help="optimizer steps of a training (50)")
        parser.add_argument("--seeds", type=int, default=5, help="seeds in half precision (5)")
        parser.add_argument("--runs", default="same_numbers_runs", help="folder that keeps finished trainings")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        for name, least in (("steps", 2), ("seeds", 2)):
            if getattr(arguments, name) < least:
                raise InputError(f"--{name} must be at least {least}, got {getattr(arguments, name)}.")
        whole = run_settings(arguments, batch_size=8, val_samples=64, **PUBLISHED)
        whole = whole.replace(train_samples=arguments.steps * whole.global_batch)
        small = whole.replace(**SMALL)
        trainings = Trainings(KeptRuns(Path(arguments.runs), arguments.threads))
        label = check_run(whole)["backbone"]["label"]
        device = choose_device(whole)
        notes = conditions(
            device,
            f"Run: {label}, {whole.data}, batch {whole.batch_size}, {arguments.steps} steps, "
            f"{whole.val_samples} validation windows",
            f"fp32: {whole.llm_layers} layers, {whole.num_prototypes} prototypes",
            f"bf16: {small.llm_layers} layers, {small.num_prototypes} prototypes, {arguments.seeds} seeds",
        )
        exact = {name: trainings.errors(_changed(whole, way)) for name, way in {"published": {}, **WAYS}.items()}
        seeds = [whole.seed + number for number in range(arguments.seeds)]
        rounded = {
            name: [trainings.errors(_changed(small, way).replace(seed=seed))[0] for seed in seeds]
            for name, way in {"published": {}, **WAYS}.items()
        }
        parts = (notes, exact_table(exact), Text(exact_verdict(exact)), rounded_table(rounded))
        return [Section(device_heading(device, label, whole.data), (*parts, Text(rounded_verdict(rounded))))]


class Trainings:
    """Trains runs whose errors are compared.

    Args:
        runs: Where finished ones are kept.
    """

    def __init__(self, runs: KeptRuns) -> None:
        self._runs = runs

    def errors(self, config: RunConfig) -> tuple[float, float]:
        """Validation MSE and MAE of a run, trained just as it is configured."""
        result = self._runs.result(config, clock="error")
        ways = [f"{name} {getattr(config, name)}" for name in ("precision", "prompt_prefix", "attention")]
        show_progress(f"{', '.join(ways)}, seed {config.seed}: val mse {result['val_mse']:.6f}")
        return result["val_mse"], result["val_mae"]


def _changed(base: RunConfig, way: Mapping[str, Any]) -> RunConfig:
    """A run that computes in another way.

    Raises:
        InputError: If its settings are not declared to keep the numbers.
    """
    config = base.replace(**way)
    if not same_numbers(base.to_dict(), config.to_dict()):
        raise InputError(f"A way to compute must keep the numbers, got {dict(way)}.")
    return config


def exact_table(errors: Mapping[str, tuple[float, float]]) -> Table:
    """Errors in fp32 and their relative differences.

    Args:
        errors: MSE and MAE by way, the published one first.
    """
    base = errors["published"]
    rows = [
        (
            name,
            *(f"{value:.6f}" for value in found),
            *(f"{abs(a / b - 1):.1e}" for a, b in zip(found, base, strict=True)),
        )
        for name, found in errors.items()
    ]
    return table(("fp32", "validation MSE", "MAE", "MSE differs by", "MAE differs by"), rows)


def exact_verdict(errors: Mapping[str, tuple[float, float]]) -> str:
    """Whether every way stays within the tolerance."""
    base = errors["published"]
    largest = {name: max(abs(a / b - 1) for a, b in zip(found, base, strict=True)) for name, found in errors.items()}
    name = max(largest, key=lambda one: largest[one])
    word = "all are the same numbers" if largest[name] <= TOLERANCE else "NOT all are the same numbers"
    return f"Largest relative difference: {largest[name]:.1e} ({name}); allowed {TOLERANCE:.0e}: {word}."


def rounded_table(errors: Mapping[str, Sequence[float]]) -> Table:
    """Errors in half precision over seeds.

    Args:
        errors: MSE of each seed by way, the published one first.
    """
    rows = []
    for name, found in errors.items():
        differences = _differences(errors, name)
        spread = statistics.stdev(differences) if name != "published" else _spread(errors)
        cells = (f"{statistics.fmean(found):.4f}", f"{statistics.fmean(differences):+.2%}", f"{spread:.2%}")
        rows.append((name, *cells, f"{max(map(abs, differences)):.2%}"))
    heads = ("bf16", "mean validation MSE", "mean difference", "standard deviation", "largest difference")
    return table(heads, rows)


def rounded_verdict(errors: Mapping[str, Sequence[float]]) -> str:
    """Whether the mean difference of every way is smaller than the spread of seeds lets expect."""
    spread, count = _spread(errors), len(errors["published"])
    limit = 2 * spread / count**0.5
    means = {name: statistics.fmean(_differences(errors, name)) for name in errors}
    name = max(means, key=lambda one: abs(means[one]))
    word = "no way is told from the published one" if abs(means[name]) <= limit else f"NOT the same: {name}"
    return (
        f"Seeds differ by {spread:.2%} (standard deviation), so the mean of {count} by about {limit:.2%}. Largest mean "
        f"difference: {means[name]:+.2%} ({name}): {word}."
    )


def _differences(errors: Mapping[str, Sequence[float]], name: str) -> list[float]:
    return [a / b - 1 for a, b in zip(errors[name], errors["published"], strict=True)]


def _spread(errors: Mapping[str, Sequence[float]]) -> float:
    published = errors["published"]
    return statistics.stdev(published) / statistics.fmean(published)
