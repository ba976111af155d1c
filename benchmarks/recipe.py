"""The best recipe that a search finds against the guide's baseline: its speed, its error, and which levers did it."""

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import results
from benchmarks.document import conditions, device_heading
from benchmarks.harness import FOLDER, Interval, benchmark_parser, median_of, ratio_of, run_settings, show_progress
from benchmarks.kept_runs import KeptRuns
from benchmarks.record import Section, Table, Text, table
from benchmarks.runner import Benchmark
from results.analysis.judgement import Difference, difference
from search.decide.clocks.cheapest import cheapest
from timellm.check import check_run
from timellm.contract.columns import BASELINE
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.files import write_atomically
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder
from timellm.contract.numbers import numbers_key
from timellm.machine.environment import choose_device

DATA = ("data", "root_path", "data_path", "features", "target", "seq_len", "label_len", "pred_len", "percent")
MODEL = ("llm_model", "llm_path", "llm_weights", "llm_dim")
"""Settings that the search takes from this benchmark's flags."""
PROMPT_MEMORY_GIB = 24.0
"""Size limit of the prompts that the error trainings share."""
REQUIRED_SPEED = 10.0
REQUIRED_ERROR = 1.03
"""What a recipe must reach: windows per second over the baseline's, and the upper end of its error's interval."""
LADDER = ("prompt_prefix", "attention", "num_workers", "compile_mode", "precision", "llm_layers", "num_prototypes")
"""Settings in the order in which the baseline is turned into the recipe; the others follow."""
INTRODUCTION = """# Recipe

How much faster can Time-LLM be trained than as the guide does, at no higher an error? A search looks for sets of
numbers that are fast; the most promising are trained for many more windows than a trial of it, with a seed of their
own, and the best of them is the recipe. Then recipe and baseline are trained with the same further seeds, on the same
windows, each on the cheapest path that computes its numbers, and judged on one subset of validation windows: the
difference is the mean of the pairs, with its 95 % interval. Windows per second are those of steady training steps, as
configured, in processes of their own: the baseline, the recipe and the steps from one to the other are timed in turns,
every other round in reverse, and ratios are taken within a round."""


class Recipe(Benchmark):
    """Searches for a recipe, and weighs it against the baseline."""

    name = "recipe"
    title = "Searches for a recipe, and weighs it against the baseline."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=5)
        parser.add_argument("--windows", type=int, default=4096, help="training windows of an error (4096)")
        parser.add_argument("--seeds", type=int, default=5, help="seeds that recipe and baseline are trained with (5)")
        parser.add_argument("--screened", type=int, default=6, help="sets of numbers that the recipe is chosen of (6)")
        parser.add_argument("--space", default="speed", help="search space (speed)")
        parser.add_argument("--search_budget", default="40m", help="time of the search (40m)")
        parser.add_argument("--runs", default="recipe_runs", help="folder that keeps the search and finished trainings")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        for name, least in (("windows", 64), ("seeds", 2), ("screened", 1), ("repeats", 2)):
            if getattr(arguments, name) < least:
                raise InputError(f"--{name} must be at least {least}, got {getattr(arguments, name)}.")
        config = run_settings(arguments, data="ETTh1", val_samples=2048, eval_batch_size=64)
        label = check_run(config)["backbone"]["label"]
        folder = Path(arguments.runs)
        baseline, fast = fast_sets(_searched(arguments, config, folder), REQUIRED_SPEED)
        weighing = Weighing(KeptRuns(folder / "errors", arguments.threads), arguments.windows, config)
        recipe = weighing.best(fast[: arguments.screened])
        errors = weighing.paired({"baseline": baseline, "recipe": recipe}, arguments.seeds)
        steps = ladder(baseline, recipe)
        speeds = _speeds(steps, folder, arguments)
        device = choose_device(config)
        notes = conditions(
            device,
            f"Run: {label}, {config.data}, {arguments.repeats} rounds of timing",
            f"Errors: {arguments.seeds} seeds, {arguments.windows} windows, {config.val_samples} validation windows",
            f"Search: {arguments.space}, {arguments.search_budget}; {len(fast)} sets of numbers at least "
            f"{REQUIRED_SPEED:.0f} times as fast, the best {min(len(fast), arguments.screened)} by its errors trained",
        )
        found = difference(errors, "recipe", "baseline")
        tables = (_settings_table(baseline, recipe), _errors_table(errors, found), _speeds_table(speeds))
        parts = (notes, *tables, _verdict(speeds, found))
        return [Section(device_heading(device, label, config.data, f"{arguments.windows} windows"), parts)]


def _searched(arguments: argparse.Namespace, config: RunConfig, folder: Path) -> RunFolder:
    """The search's folder; it is begun, or goes on, unless it ended.

    Raises:
        InputError: If it does not end with status 0.
    """
    run, done = RunFolder(folder / "search"), folder / "search_ended"
    if done.is_file():
        return run
    given = [f"--{name}={value}" for name in (*DATA, *MODEL) if (value := getattr(arguments, name, None)) is not None]
    given += [] if hasattr(arguments, "data") else [f"--data={config.data}"]
    begin = ["--name", run.name, "--space", arguments.space, *given]
    begin = ["--resume", run.name] if run.manifest.is_file() else begin
    command = [sys.executable, "search/run.py", "--no-dashboard", "--runs_dir", str(folder.resolve()), *begin]
    status = subprocess.run([*command, "--time_budget", arguments.search_budget], cwd=FOLDER.parent).returncode
    if status:
        raise InputError(f"The search must end with status 0, got {status}. The same command goes on with it.")
    write_atomically(done, "")
    return run


def fast_sets(folder: RunFolder, least: float) -> tuple[RunConfig, list[RunConfig]]:
    """The baseline, and the fastest trial of every set of numbers that is fast enough, lowest error first.

    Args:
        folder: A search's folder.
        least: Times the baseline's speed that a set reaches at least.

    Raises:
        InputError: If the baseline was not timed, or nothing is so fast.
    """
    trials = results.load_trials(folder.path)
    timed = trials[trials["speedup_vs_baseline"].notna().to_numpy()].sort_values("speedup_vs_baseline", ascending=False)
    base = timed[(timed["source"] == BASELINE).to_numpy()]
    if base.empty:
        raise InputError(f"The search must time its baseline, but {folder.trials_csv} has none.")
    fast = timed[((timed["speedup_vs_baseline"] >= least) & timed["val_mse"].notna()).to_numpy()]
    found: dict[str, tuple[float, RunConfig]] = {}
    for _, row in fast.iterrows():
        config = _settings_of(folder, row)
        found.setdefault(numbers_key(config.to_dict()), (row["val_mse"], config))
    if not found:
        best = timed["speedup_vs_baseline"].max()
        raise InputError(f"A set of numbers must be {least:.0f} times as fast as the baseline, the best is {best:.1f}.")
    ranked = sorted(found.values(), key=lambda pair: pair[0])
    return _settings_of(folder, base.iloc[0]), [config for _, config in ranked]


def _settings_of(folder: RunFolder, row: pd.Series) -> RunConfig:
    timed = row["trial_id"] if pd.isna(row["time_from"]) else row["time_from"]
    job = Job.from_json(folder.trial(timed).job.read_text())
    return RunConfig.from_dict(dict(job.config))


@dataclass(frozen=True)
class Weighing:
    """Trains errors, all of the same windows.

    Attributes:
        runs: Where finished trainings are kept.
        windows: Training windows of each.
        judged: A run whose validation windows and seed are used.
    """

    runs: KeptRuns
    windows: int
    judged: RunConfig

    def error(self, config: RunConfig, seed: int) -> float:
        """Validation MSE of these settings' numbers, scaled units squared, trained with this seed."""
        run = cheapest(config).replace(
            seed=seed,
            train_samples=self.windows,
            val_samples=self.judged.val_samples,
            eval_batch_size=self.judged.eval_batch_size,
        )
        kept = {"clock": "error", "prompt_memory_gib": PROMPT_MEMORY_GIB, "order_seed": self.judged.seed}
        mse = self.runs.result(run, **kept)["val_mse"]
        show_progress(f"seed {seed}, {run.llm_layers} layers, batch {run.global_batch}: val mse {mse:.4f}")
        return mse

    def best(self, candidates: list[RunConfig]) -> RunConfig:
        """The candidate with the lowest error at a seed that no later comparison uses."""
        return min(candidates, key=lambda config: self.error(config, self.judged.seed))

    def paired(self, settings: Mapping[str, RunConfig], seeds: int) -> dict[str, dict[int, float]]:
        """Errors by name and seed, of seeds after the one that chose; a pair of each seed is trained in turn."""
        first = self.judged.seed + 1
        errors: dict[str, dict[int, float]] = {name: {} for name in settings}
        for seed in range(first, first + seeds):
            for name, config in settings.items():
                errors[name][seed] = self.error(config, seed)
        return errors


def changes(baseline: RunConfig, recipe: RunConfig) -> list[str]:
    """Settings that differ; how many windows the timing of a trial took does not count."""
    old, new = baseline.to_dict(), recipe.to_dict()
    return [name for name in old if old[name] != new[name] and name not in ("train_samples", "val_samples")]


def ladder(baseline: RunConfig, recipe: RunConfig) -> list[tuple[str, RunConfig]]:
    """The way from the baseline to the recipe, one setting at a time: what changed and the settings then.

    A change that cannot stand alone is made together with the next.

    Args:
        baseline: Where it begins.
        recipe: Where it ends.
    """
    new, changed = recipe.to_dict(), changes(baseline, recipe)
    changed.sort(key=lambda name: LADDER.index(name) if name in LADDER else len(LADDER))
    steps, held = [(BASELINE, baseline)], {}
    for name in changed:
        held[name] = new[name]
        try:
            step = steps[-1][1].replace(**held)
        except InputError:
            continue
        steps.append((", ".join(f"{key} {value}" for key, value in held.items()), step))
        held = {}
    return steps


def _speeds(steps: list[tuple[str, RunConfig]], folder: Path, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Windows per second of every step of the ladder, by round."""
    speeds: dict[str, list[float]] = {name: [] for name, _ in steps}
    for number in range(arguments.repeats):
        runs = KeptRuns(folder / f"round_{number + 1}", arguments.threads)
        for name, config in steps if number % 2 == 0 else steps[::-1]:
            timed = runs.result(config.replace(train_samples=arguments.windows), clock="time", max_timing_seconds=20.0)
            speeds[name].append(timed["samples_per_second"])
            show_progress(f"round {number + 1}, {name}: {speeds[name][-1]:.2f} windows/s")
    return speeds


def _settings_table(baseline: RunConfig, recipe: RunConfig) -> Table:
    old, new = baseline.to_dict(), recipe.to_dict()
    rows = [(name, old[name], new[name]) for name in changes(baseline, recipe)]
    return table(("setting", "baseline", "recipe"), rows)


def _errors_table(errors: Mapping[str, Mapping[int, float]], found: Difference | None) -> Table:
    base, recipe = errors["baseline"], errors["recipe"]
    pairs = [(seed, base[seed], recipe[seed]) for seed in base]
    rows = [(f"{seed}", f"{old:.4f}", f"{new:.4f}", f"{new / old - 1:+.1%}") for seed, old, new in pairs]
    if found:
        shown = f"{found.ratio - 1:+.1%} ({found.low - 1:+.1%} to {found.high - 1:+.1%})"
        means = (statistics.fmean(one.values()) for one in (base, recipe))
        rows.append(("mean", *(f"{mean:.4f}" for mean in means), shown))
    return table(("seed", "baseline's validation MSE", "recipe's", "difference"), rows)


def _speeds_table(speeds: Mapping[str, list[float]]) -> Table:
    names = list(speeds)
    rows = []
    for before, name in zip([names[0], *names], names, strict=False):
        ratios = (ratio_of(speeds[name], speeds[other]) for other in (names[0], before))
        rows.append((name, f"{median_of(speeds[name]):.2f}", *(f"{ratio:.2f}" for ratio in ratios)))
    headings = ("changed, one after the other", "windows per second", "times the baseline", "times the row above")
    return table(headings, rows)


def _verdict(speeds: Mapping[str, list[float]], found: Difference | None) -> Text:
    names = list(speeds)
    ratio: Interval = ratio_of(speeds[names[-1]], speeds[names[0]])
    fast = ratio.median >= REQUIRED_SPEED
    good = found is not None and found.ratio <= 1 and not math.isnan(found.high) and found.high <= REQUIRED_ERROR
    asked = (
        f"asked: {REQUIRED_SPEED:.0f} times, an error no higher, its interval up to {REQUIRED_ERROR - 1:+.0%} at most"
    )
    words = f"{'reached' if fast else 'missed'} the speed, {'reached' if good else 'missed'} the error"
    return Text(f"The recipe trains {ratio:.1f} times as many windows a second as the baseline. It {words} ({asked}).")
