"""Forecasts of many windows: this project's path against a plain loop over the published forward pass."""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    benchmark_parser,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
)
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.variants import PUBLISHED_SETTINGS
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.data import SeriesData, load_data
from timellm.forecasting.network import ForecastNetwork
from timellm.machine.environment import choose_device
from timellm.run.facts import facts_of_data

WINDOWS, GOAL = 1024, 1.8
INTRODUCTION = """# Forecast speed

Windows of the test split, forecast as `timellm/forecast.py` does (the prompt's keys and values reused, prototypes
computed once, batches filled across columns and origins) against a plain loop over the published forward pass (prompt
and patches through the whole backbone, prototypes computed for every batch, padding attended to). Both in fp32, with
the same weights, on the same windows in one process, interleaved round by round; both make the words and tokens of
their prompts, by the same code. Trained parameters are as they start, which changes no time. Seconds are medians of
the rounds with their 95 % interval, the ratio is the median of ratios round by round."""


class ForecastSpeed(Benchmark):
    """Times forecasts of many windows against the published forward pass."""

    name = "forecast_speed"
    title = "Times forecasts of many windows against the published forward pass."
    introduction = INTRODUCTION
    gpu_flags = "--root_path DATA"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=8)
        parser.add_argument("--windows", type=int, default=WINDOWS, help=f"windows of all rounds together ({WINDOWS})")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        config = run_settings(arguments, data="ETTh1")
        if not 0 < arguments.repeats <= arguments.windows:
            raise InputError(f"windows must be at least repeats = {arguments.repeats}, got {arguments.windows}.")
        use_worker_environment(arguments.threads)
        device = choose_device(config)
        data = load_data(config)
        if arguments.windows > len(data.test):
            raise InputError(
                f"windows must be at most the {len(data.test)} of the test split, got {arguments.windows}."
            )
        published = _network(config, data, PUBLISHED_SETTINGS, as_trained=True)
        ours = _network(config, data, {}, as_trained=False)
        _share_weights(ours, published)
        windows = torch.linspace(0, len(data.test) - 1, arguments.windows).long()
        difference = _difference(ours, config, data, windows[:: max(1, len(windows) // 32)])
        rounds = [windows[first :: arguments.repeats] for first in range(arguments.repeats)]
        actions = {"published": _rounds_of(published, data, rounds), "ours": _rounds_of(ours, data, rounds)}
        started = time.perf_counter()
        _forecast(_network(config, data, {}, as_trained=False), data, windows[:1])
        once = time.perf_counter() - started
        seconds = time_interleaved(actions, device, repeats=arguments.repeats, warmup=1)
        notes = conditions(
            device,
            f"Model: {ours.source.label if ours.source else 'none'}, {config.llm_layers} layers, {config.data} "
            f"{config.seq_len} -> {config.pred_len}",
            f"Windows: {len(windows)} of the {len(data.test)} of the test split, evenly spaced, in {arguments.repeats} "
            f"rounds of {len(rounds[0])}; before them a round of warm-up",
            f"Batch: {published.batch_size} published, {ours.batch_size} ours",
            f"Loading the language model, what is computed once and a first window: {once:.1f} s",
        )
        heading = device_heading(device, ours.source.label if ours.source else "none", config.data)
        return [Section(heading, (notes, *_body(seconds, len(rounds[0]), len(data.test), difference)))]


def _network(config: RunConfig, data: SeriesData, settings: dict[str, object], *, as_trained: bool) -> ForecastNetwork:
    config = config.replace(**{**settings, "precision": "fp32"})
    return ForecastNetwork(config, facts_of_data(config, data), as_trained=as_trained)


def _share_weights(ours: ForecastNetwork, other: ForecastNetwork) -> None:
    """Give another network these weights; the tensors are shared, to save memory."""
    theirs = dict(ours.network.named_parameters())
    for name, parameter in other.network.named_parameters():
        parameter.data = theirs[name].data


def _rounds_of(network: ForecastNetwork, data: SeriesData, rounds: list[Tensor]) -> Callable[[], None]:
    """An action that forecasts the next round's windows; the first call, the warm-up, takes the last round's."""
    calls = -1

    def forecast() -> None:
        nonlocal calls
        _forecast(network, data, rounds[calls])
        calls += 1

    return forecast


def _forecast(network: ForecastNetwork, data: SeriesData, windows: Tensor) -> Tensor:
    return torch.cat([forecast for _, forecast in network.forecasts(data.test, windows)])


def _difference(ours: ForecastNetwork, config: RunConfig, data: SeriesData, windows: Tensor) -> float:
    """Largest difference from the whole forward pass without attention to padding, relative to the largest forecast."""
    settings = {**PUBLISHED_SETTINGS, "prompt_padding": ours.config.prompt_padding}
    whole = _network(config, data, settings, as_trained=True)
    _share_weights(ours, whole)
    reference = _forecast(whole, data, windows)
    return ((_forecast(ours, data, windows) - reference).abs().max() / reference.abs().max()).item()


def _body(seconds: dict[str, list[float]], per_round: int, split: int, difference: float) -> tuple[Table, Notes]:
    rows = []
    for name, spent in seconds.items():
        per_window = median_of(spent).scaled(1 / per_round)
        rows.append(
            (
                name,
                f"{per_window.scaled(1000):.2f}",
                f"{ratio_of(seconds['published'], spent):.2f}",
                f"{per_window.scaled(split / 60):.1f}",
            )
        )
    show_progress("done")
    ratio = ratio_of(seconds["published"], seconds["ours"]).median
    verdict = f"{ratio:.2f} times the published pass: {'at least' if ratio >= GOAL else 'NOT'} the {GOAL} aimed at."
    lines = (
        verdict,
        f"Forecasts differ by {difference:.1e} of the largest from the whole pass that does not attend to padding.",
    )
    headings = ("forecasts", "ms per window", "times published", f"minutes for all {split} windows, projected")
    return table(headings, rows), Notes(lines)
