"""Seconds against windows, input length, batch and channels; memory against windows."""

import argparse
import json
from collections.abc import Callable

import psutil
import torch

from benchmarks.arithmetic import faster_precision
from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    benchmark_parser,
    call_apart,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
    whole_numbers,
)
from benchmarks.record import Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import made_series, made_settings
from benchmarks.variants import Contestant, Variant
from timellm.contract.config import RunConfig
from timellm.machine.environment import choose_device
from timellm.machine.memory import GIB, MemoryWatch, resident_bytes

STEPS_HELD = 2
ROWS = 1200
"""Time steps of a made series of many channels."""
INTRODUCTION = """# Scaling

Seconds of training steps (`reuse`, fused Adam, the device's faster precision) against the number of windows, the length
of the input, the batch and the number of channels, all on made series, interleaved in one process; medians with their
95 % interval. The last column compares seconds per window with the first row, pair by pair: 1 is linear, less is better
than linear. A step also pays for what does not depend on the batch, the mapping layer and its optimizer. Memory is the
peak of a process of its own that holds every window of its data set and its prompts, above that of the process with its
imports."""


class Scaling(Benchmark):
    """Times how training grows with its sizes."""

    name = "scaling"
    title = "Times how training grows with its sizes."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=5)
        parser.add_argument("--batches", default="8,16,32,64,128", help="batch sizes (8,16,32,64,128)")
        parser.add_argument("--lengths", default="96,336,512", help="input lengths (96,336,512)")
        parser.add_argument("--channels", default="7,21,84,321", help="numbers of channels (7,21,84,321)")
        parser.add_argument("--steps", default="1,2,4,8", help="steps of a pass, for seconds against windows (1,2,4,8)")
        parser.add_argument("--memory_of", type=int, default=None, help="print the memory with this many channels only")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        own = {"prompt_prefix": "reuse"}
        config = run_settings(arguments, **{**made_settings(vars(arguments)), **own})
        device = choose_device(config)
        if getattr(arguments, "precision", None) is None:
            config = config.replace(precision=faster_precision(device))
        if arguments.memory_of:
            print(json.dumps(_memory_of(arguments.memory_of, config, device)))
            return []
        sizes = {
            name: whole_numbers(name, getattr(arguments, name)) for name in ("batches", "lengths", "channels", "steps")
        }
        label, tables = _measure(config, device, sizes, arguments.repeats)
        note = f"Model: {label}, {config.llm_layers} layers, {config.precision}, {config.prompt_prefix}"
        return [Section(device_heading(device, label), (conditions(device, note), *tables))]


def _measure(
    config: RunConfig, device: torch.device, sizes: dict[str, list[int]], repeats: int
) -> tuple[str, list[Table]]:
    """Name of the model, and the tables."""
    tables = []
    groups = {
        "windows of a pass": _passes(config, device, sizes["steps"]),
        "batch": {n: _contestant(config, device, batch_size=n) for n in sizes["batches"]},
        "input length": {n: _contestant(config, device, seq_len=n) for n in sizes["lengths"]},
        "channels": {n: _contestant(config, device, **_channels(n)) for n in sizes["channels"]},
    }
    label = groups["batch"][sizes["batches"][0]][0].prepared.backbone_label
    for name, group in groups.items():
        show_progress(f"seconds against {name}")
        actions = {str(size): action for size, (_, action, _) in group.items()}
        seconds = time_interleaved(actions, device, repeats=repeats, warmup=1)
        tables.append(_time_table(name, group, seconds))
    memory = {n: call_apart("--memory_of", str(n)) for n in sizes["channels"]}
    rows = [(n, memory[n]["windows"], f"{memory[n]['gib']:.3f}") for n in sizes["channels"]]
    return label, [*tables, table(("memory: channels", "training windows", "peak, GiB"), rows)]


Timed = tuple[Contestant, Callable[[], object], int]
"""A contestant, what to time of it, and the windows that it covers."""


def _contestant(config: RunConfig, device: torch.device, **settings: object) -> Timed:
    contestant = Contestant(_variant(config, settings), config, device, STEPS_HELD)
    return contestant, contestant.step, contestant.config.global_batch


def _passes(config: RunConfig, device: torch.device, steps: list[int]) -> dict[int, Timed]:
    contestant = Contestant(_variant(config, {}), config, device, STEPS_HELD)

    def take(count: int) -> Callable[[], object]:
        def steps() -> None:
            for _ in range(count):
                contestant.step()

        return steps

    size = config.global_batch
    return {count * size: (contestant, take(count), count * size) for count in steps}


def _variant(config: RunConfig, settings: dict[str, object]) -> Variant:
    kept = {"precision": config.precision, "attention": config.attention, "prompt_padding": config.prompt_padding}
    return Variant("ours", {**kept, "accumulation_steps": config.accumulation_steps, **settings})


def _channels(count: int) -> dict[str, object]:
    """Data settings of a made series of this many channels."""
    path = made_series(f"channels{count}-made.csv", ROWS, tuple(f"channel{number}" for number in range(count)))
    return {"data": "custom", "root_path": str(path.parent), "data_path": path.name, "target": None}


def _time_table(name: str, group: dict[int, Timed], seconds: dict[str, list[float]]) -> Table:
    rows = []
    first = next(iter(group))
    per_window = {size: [value / windows for value in seconds[str(size)]] for size, (_, _, windows) in group.items()}
    for size, (contestant, _, _) in group.items():
        epoch = median_of(per_window[size]).median * contestant.prepared.windows.epoch_windows
        rows.append(
            (
                size,
                f"{median_of(seconds[str(size)]):.3f}",
                f"{median_of(per_window[size]).scaled(1000):.2f}",
                contestant.prepared.windows.epoch_windows,
                f"{epoch:.0f}",
                f"{ratio_of(per_window[size], per_window[first]):.2f}",
            )
        )
    headings = (name, "seconds", "ms per window", "windows of an epoch", "s per epoch, projected", "against linear")
    return table(headings, rows)


def _memory_of(channels: int, config: RunConfig, device: torch.device) -> dict[str, float]:
    imported = 0.0 if device.type == "cuda" else resident_bytes(psutil.Process()) / GIB
    with MemoryWatch(device) as watch:
        contestant = Contestant(_variant(config, _channels(channels)), config, device, None)
        for _ in range(2 * STEPS_HELD):
            contestant.step()
        return {"windows": contestant.prepared.windows.epoch_windows, "gib": watch.peak_gib - imported}
