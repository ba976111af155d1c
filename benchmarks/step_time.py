"""Published computation against each step away from it: seconds, parity, memory."""

import argparse
import json
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from benchmarks.arithmetic import flops_of, peak_flops_per_second
from benchmarks.document import conditions, device_heading, rounding_notes
from benchmarks.harness import (
    Interval,
    benchmark_parser,
    call_apart,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
)
from benchmarks.record import Part, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import data_label, made_settings
from benchmarks.variants import PUBLISHED, PUBLISHED_AMP, VARIANTS, Contestant, answer, find_variant
from timellm.contract.config import RunConfig
from timellm.machine.environment import choose_device
from timellm.machine.memory import GIB, MemoryWatch, resident_bytes
from timellm.model.timellm import DTYPES

STEPS_HELD = 2
INTRODUCTION = """# Step time

One optimizer step of the published computation (`recompute`: prompt and patches through the whole backbone, eager
attention, plain Adam, padding attended to, fp32) against each step away from it. All variants train on the same
windows in one process with one allocator, interleaved; seconds are medians with their 95 % interval, ratios are medians
of ratios pair by pair. With `store`, every window is in the store, and what is timed is a later epoch. An evaluation
batch holds its share of what an evaluation computes once. Differences are the largest of a forecast and of a gradient
on one batch, dropout off, relative to the largest value of the published computation in fp32 with the same weights and
the same padding. Operations count the matrix products alone; peak speed is that of the fastest matrix product measured
beside. Memory is each variant's in a process of its own, above that of the process with its imports."""


@dataclass
class Measured:
    """What is known of one variant."""

    contestant: Contestant
    seconds: list[float]
    evaluation: list[float]
    flops: int
    difference: tuple[float, float]
    memory_gib: float | None

    @property
    def per_window(self) -> list[float]:
        """Seconds of training, per window."""
        return [seconds / self.contestant.config.global_batch for seconds in self.seconds]


class StepTime(Benchmark):
    """Times the published computation against each step away from it."""

    name = "step_time"
    title = "Times the published computation against each step away from it."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=6)
        parser.add_argument("--variants", default=None, help="names of variants, comma-separated (default: all)")
        parser.add_argument("--memory", choices=("on", "off"), default="on", help="measure memory, a process each (on)")
        parser.add_argument(
            "--memory_of", default=None, help="print the peak memory of one variant and do nothing else"
        )
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **made_settings(vars(arguments)))
        device = choose_device(config)
        if arguments.memory_of:
            print(json.dumps(_memory_of(arguments.memory_of, config, device)))
            return []
        names = _chosen(arguments.variants)
        memory = {name: call_apart("--memory_of", name) if arguments.memory == "on" else None for name in names}
        measured = _measure(names, config, device, arguments.repeats, memory)
        first = measured[PUBLISHED.name].contestant
        heading = device_heading(device, first.prepared.backbone_label, f"batch {config.batch_size}")
        return [Section(heading, _body(measured, config, device))]


def _chosen(names: str | None) -> list[str]:
    wanted = [variant.name for variant in VARIANTS] if names is None else names.split(",")
    return list(dict.fromkeys([PUBLISHED.name, *(find_variant(name.strip()).name for name in wanted)]))


def _build(name: str, config: RunConfig, device: torch.device) -> Contestant:
    return Contestant(find_variant(name), config, device, STEPS_HELD)


def _memory_of(name: str, config: RunConfig, device: torch.device) -> float:
    """Peak memory of a few steps above that of the process with its imports, GiB."""
    imported = 0.0 if device.type == "cuda" else resident_bytes(psutil.Process()) / GIB
    with MemoryWatch(device) as watch:
        contestant = _build(name, config, device)
        for _ in range(2 * STEPS_HELD):
            contestant.step()
        return watch.peak_gib - imported


def _measure(
    names: list[str], config: RunConfig, device: torch.device, repeats: int, memory: dict[str, float | None]
) -> dict[str, Measured]:
    contestants: dict[str, Contestant] = {}
    for name in names:
        show_progress(f"building {name}")
        contestants[name] = _build(name, config, device)
        contestants[name].share_weights(contestants[names[0]])
    differences = _differences(contestants, config, device)
    for contestant in contestants.values():
        for _ in range(STEPS_HELD):  # the store fills here, so what is timed is a later epoch
            contestant.step()
    flops = {name: flops_of(contestant.step) for name, contestant in contestants.items()}
    seconds = time_interleaved(
        {name: contestant.step for name, contestant in contestants.items()}, device, repeats=repeats, warmup=1
    )
    evaluation = _evaluation_seconds(contestants, device, repeats)
    return {
        name: Measured(contestant, seconds[name], evaluation[name], flops[name], differences[name], memory[name])
        for name, contestant in contestants.items()
    }


def _differences(
    contestants: dict[str, Contestant], config: RunConfig, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Against the published computation with the padding that a variant has."""
    masked = _build("recompute, masked padding", config, device)
    masked.share_weights(contestants[PUBLISHED.name])
    references = {"published": answer(contestants[PUBLISHED.name]), "masked": answer(masked)}
    return {
        name: answer(contestant).difference(references[contestant.config.prompt_padding])
        for name, contestant in contestants.items()
    }


def _evaluation_seconds(
    contestants: dict[str, Contestant], device: torch.device, repeats: int
) -> dict[str, list[float]]:
    """Seconds per batch of an evaluation of every validation window, what it computes once spread over its batches."""
    actions: dict[str, Any] = {}
    once: dict[str, Any] = {}
    for name, contestant in contestants.items():
        contestant.model.eval()
        prototypes = contestant.shared_prototypes()
        actions[name] = lambda contestant=contestant, prototypes=prototypes: contestant.evaluate_batch(prototypes)
        once[name] = contestant.shared_prototypes
    batches = time_interleaved(actions, device, repeats=repeats, warmup=2)
    shared = time_interleaved(once, device, repeats=repeats, warmup=1)
    count = {name: c.prepared.windows.all_validation / c.config.batch_size for name, c in contestants.items()}
    return {
        name: [batch + part / count[name] for batch, part in zip(batches[name], shared[name], strict=True)]
        for name in contestants
    }


def _body(measured: dict[str, Measured], config: RunConfig, device: torch.device) -> tuple[Part, ...]:
    peaks = {dtype: peak_flops_per_second(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    first = measured[PUBLISHED.name].contestant
    shape = (
        f"{config.llm_layers} layers, {config.seq_len} -> {config.pred_len}, batch {config.batch_size}, "
        f"{first.first_batch().prompt.ids.shape[1]} prompt tokens, {config.patches} patches, "
        f"{data_label(config.data, config.data_path)}"
    )
    head = conditions(
        device,
        f"Model: {first.prepared.backbone_label}, {shape}",
        "Peak speed of matrix products: "
        + ", ".join(f"{name} {peaks[DTYPES[name]] / 1e9:.0f} GFLOP/s" for name in ("fp32", "bf16")),
        *rounding_notes(name for name, this in measured.items() if _multiplies_otherwise(this)),
    )
    return head, _training_table(measured), _evaluation_table(measured), _floor_table(measured, peaks)


def _multiplies_otherwise(this: Measured) -> bool:
    """Whether a variant's products are computed in another type than its precision's."""
    model = this.contestant.model
    return model.product_dtype != model.compute_dtype


def _training_table(measured: dict[str, Measured]) -> Table:
    base, amp = measured[PUBLISHED.name], measured.get(PUBLISHED_AMP.name)
    rows = []
    for name, this in measured.items():
        against_amp = f"{ratio_of(amp.per_window, this.per_window):.2f}" if amp else "-"
        rows.append(
            (
                name,
                f"{median_of(this.seconds):.3f}",
                this.contestant.config.global_batch,
                f"{ratio_of(base.per_window, this.per_window):.2f}",
                against_amp,
                *_memory_cells(this, base),
            )
        )
    headings = ("training", "s per step", "windows", "times published, per window", "times published + bf16 autocast")
    return table((*headings, "peak memory, GiB", "published's / this"), rows)


def _memory_cells(this: Measured, base: Measured) -> tuple[str, str]:
    if this.memory_gib is None or base.memory_gib is None:
        return "-", "-"
    return f"{this.memory_gib:.2f}", f"{base.memory_gib / this.memory_gib:.2f}"


def _evaluation_table(measured: dict[str, Measured]) -> Table:
    base = measured[PUBLISHED.name]
    rows = [
        (
            name,
            f"{median_of(this.evaluation):.3f}",
            f"{ratio_of(base.evaluation, this.evaluation):.2f}",
            f"{this.difference[0]:.1e}",
            f"{this.difference[1]:.1e}",
        )
        for name, this in measured.items()
    ]
    return table(
        ("evaluation and parity", "s per batch", "times published", "forecast difference", "gradient difference"), rows
    )


def _floor_table(measured: dict[str, Measured], peaks: dict[torch.dtype, float]) -> Table:
    rows = []
    for name, this in measured.items():
        peak = peaks[this.contestant.model.product_dtype]
        seconds: Interval = median_of(this.seconds)
        floor = this.flops / peak
        rows.append(
            (
                name,
                f"{this.flops / 1e9:.0f}",
                f"{this.flops / seconds.median / 1e9:.0f}",
                f"{floor:.3f}",
                f"{seconds.scaled(1 / floor):.2f}",
            )
        )
    return table(
        ("arithmetic", "GFLOP per step", "GFLOP/s", "floor, s per step", "step / floor"),
        rows,
    )
