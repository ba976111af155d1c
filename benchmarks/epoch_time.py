"""A whole ETTm1-sized epoch, published computation against ours."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.arithmetic import faster_precision, flops_of, peak_flops_per_second
from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    benchmark_parser,
    median_of,
    ratio_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
    whole_numbers,
)
from benchmarks.record import Part, Section, table
from benchmarks.runner import Benchmark
from benchmarks.series import data_label, made_settings
from benchmarks.variants import OURS, PUBLISHED, PUBLISHED_AMP, STORE, Contestant, Variant
from timellm.contract.config import RunConfig
from timellm.machine.environment import choose_device, synchronize
from timellm.machine.memory import GIB
from timellm.machine.monitor import DeviceMonitor
from timellm.model.timellm import DTYPES

CPU_STEPS = 6
STEPS_HELD = 2
WARMUP_STEPS = 3
INTRODUCTION = """# Epoch time

One training epoch over an ETTm1-sized data set (34 369 x 7 windows), published computation (`recompute`, eager
attention, plain Adam, fp32) against ours, in the precision whose matrix products are faster, on the same device. The
acceleration guide needs 34 min for this pass on its own GPU (7 519 batches of 32 at 0.2744 s). Projected: the median
step, all variants interleaved in one process, times the steps of an epoch. Measured: every step of the epoch, one
variant after the other. The filling epoch of a store computes every prompt, later epochs read what is stored within
`--prompt_store_gib`; with prompts per span, a time span's channels share one. Speed is the matrix products' operations
over the time, its peak that of the fastest matrix product measured."""


@dataclass(frozen=True)
class Entry:
    """A row to measure."""

    label: str
    variant: Variant
    fills: bool = False


@dataclass
class Timed:
    """An epoch of one entry.

    Attributes:
        seconds: Of the epoch; one value where it was measured as a whole.
        steps: Optimizer steps of an epoch.
        windows: Windows of an epoch.
        flops: Operations of a step.
        precision: Compute type.
        stored: Share of the prompts that the store holds.
        busy_percent: Share of time in which the GPU ran a kernel.
        memory_gib: Peak memory of the GPU.
    """

    seconds: list[float]
    steps: int
    windows: int
    flops: int
    precision: str
    stored: float | None
    busy_percent: float | None = None
    memory_gib: float | None = None


class EpochTime(Benchmark):
    """Times an ETTm1-sized epoch of the published computation and of ours."""

    name = "epoch_time"
    title = "Times an ETTm1-sized epoch of the published computation and of ours."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random --batches 32,256"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        steps_help = "project from this many steps, 0 trains the whole epoch (6 on a CPU, 0 on a GPU)"
        parser.add_argument("--steps", type=int, default=None, help=steps_help)
        parser.add_argument("--batches", default="32,128", help="batch sizes of ours, comma-separated (32,128)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **made_settings(vars(arguments)))
        device = choose_device(config)
        default = 0 if device.type == "cuda" else CPU_STEPS
        steps = default if arguments.steps is None else arguments.steps
        entries = _entries(whole_numbers("batches", arguments.batches), faster_precision(device))
        contestants = _Contestants(config, device, None if steps == 0 else STEPS_HELD)
        timed = _project(entries, contestants, steps) if steps else _measure(entries, contestants)
        kind = f"projected from {steps} steps" if steps else "measured"
        heading = device_heading(device, contestants.label, kind.split()[0])
        return [Section(heading, _body(timed, config, device, contestants, kind))]


def _entries(batches: list[int], precision: str) -> list[Entry]:
    entries = [Entry("published fp32, batch 32", _sized(PUBLISHED, 32))]
    entries.append(Entry(f"{PUBLISHED_AMP.name}, batch 32", _sized(PUBLISHED_AMP, 32)))
    entries += [
        Entry(f"reuse {precision}, batch {batch}", _sized(OURS, batch, precision=precision)) for batch in batches
    ]
    for scope in ("channel", "span"):
        for batch in batches:
            variant = _sized(STORE, batch, precision=precision, prompt_scope=scope)
            label = f"store {precision}, prompts per {scope}, batch {batch}"
            entries += [Entry(f"{label}, filling epoch", variant, True), Entry(f"{label}, later epochs", variant)]
    return entries


def _sized(variant: Variant, batch: int, **settings: str) -> Variant:
    return Variant(variant.name, {**variant.settings, "batch_size": batch, **settings}, variant.keeps_fp32_weights)


class _Contestants:
    """Contestants of entries.

    Whole epochs of one variant share one, so that the later epoch finds what the filling one stored; interleaved steps
    have one each, so that emptying the store of one leaves the other's filled.
    """

    def __init__(self, config: RunConfig, device: torch.device, steps: int | None) -> None:
        self._config, self._steps, self.device = config, steps, device
        self._built: dict[str, Contestant] = {}
        self.label = ""

    def get(self, entry: Entry) -> Contestant:
        """The contestant of an entry."""
        key = self._key(entry)
        if key not in self._built:
            show_progress(f"building {entry.label}")
            self._built[key] = Contestant(entry.variant, self._config, self.device, self._steps)
            self._built[key].share_weights(next(iter(self._built.values())))
            self.label = self._built[key].prepared.backbone_label
        return self._built[key]

    def drop_others(self, entry: Entry) -> None:
        """Free the memory of all contestants but this one's."""
        self._built = {key: kept for key, kept in self._built.items() if key == self._key(entry)}

    def _key(self, entry: Entry) -> str:
        return str(entry.variant) if self._steps is None else entry.label


def _project(entries: list[Entry], contestants: _Contestants, repeats: int) -> dict[str, Timed]:
    actions: dict[str, Callable[[], object]] = {}
    for entry in entries:
        contestant = contestants.get(entry)
        contestant.epoch()  # fills the store
        actions[entry.label] = contestant.filling_step if entry.fills else contestant.step
    flops = {label: flops_of(action) for label, action in actions.items()}
    seconds = time_interleaved(actions, contestants.device, repeats=repeats, warmup=1)
    timed = {}
    for entry in entries:
        contestant = contestants.get(entry)
        per_epoch = [value * contestant.steps_per_epoch for value in seconds[entry.label]]
        timed[entry.label] = _timed(contestant, per_epoch, flops[entry.label])
    return timed


def _measure(entries: list[Entry], contestants: _Contestants) -> dict[str, Timed]:
    timed = {}
    for entry in entries:
        contestants.drop_others(entry)
        contestant = contestants.get(entry)
        action = contestant.filling_step if entry.fills else contestant.step
        for _ in range(WARMUP_STEPS):
            action()
        flops = flops_of(action)
        if entry.fills and contestant.prepared.store:
            contestant.prepared.store.forget()
        timed[entry.label] = _whole_epoch(contestant, flops)
        show_progress(f"{entry.label}: {timed[entry.label].seconds[0]:.1f} s")
    return timed


def _whole_epoch(contestant: Contestant, flops: int) -> Timed:
    device = contestant.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    synchronize(device)
    with DeviceMonitor(device) as monitor:
        started = time.perf_counter()
        contestant.epoch()
        synchronize(device)
        seconds = time.perf_counter() - started
    timed = _timed(contestant, [seconds], flops)
    if device.type == "cuda":
        timed.busy_percent = monitor.summary().get("mean_device_utilisation_percent")
    timed.memory_gib = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    return timed


def _timed(contestant: Contestant, seconds: list[float], flops: int) -> Timed:
    store = contestant.prepared.store
    return Timed(
        seconds,
        contestant.steps_per_epoch,
        contestant.prepared.windows.epoch_windows,
        flops,
        contestant.config.precision,
        store.share if store else None,
    )


def _body(
    timed: dict[str, Timed], config: RunConfig, device: torch.device, contestants: _Contestants, kind: str
) -> tuple[Part, ...]:
    peaks = {name: peak_flops_per_second(device, DTYPES[name]) for name in ("fp32", "bf16")}
    base = next(iter(timed.values()))
    head = conditions(
        device,
        f"Model: {contestants.label}, {config.llm_layers} layers, {config.seq_len} -> {config.pred_len}",
        f"Data: {data_label(config.data, config.data_path)}, {base.windows} training windows",
        f"Seconds of an epoch are {kind}; store limit {config.prompt_store_gib:g} GiB",
    )
    headings = ("epoch", "seconds", "minutes", "times published", "windows/s", "TFLOP/s", "of peak", "prompts stored")
    rows = [_row(label, this, base, peaks) for label, this in timed.items()]
    return head, table((*headings, "GPU busy", "peak memory, GiB"), rows)


def _row(label: str, this: Timed, base: Timed, peaks: dict[str, float]) -> tuple[str, ...]:
    speed = this.flops * this.steps / median_of(this.seconds).median
    return (
        label,
        f"{median_of(this.seconds):.1f}",
        f"{median_of(this.seconds).median / 60:.1f}",
        f"{ratio_of(base.seconds, this.seconds):.2f}",
        f"{this.windows / median_of(this.seconds).median:.0f}",
        f"{speed / 1e12:.2f}",
        f"{100 * speed / peaks[this.precision]:.0f} %",
        "-" if this.stored is None else f"{100 * this.stored:.1f} %",
        "-" if this.busy_percent is None else f"{this.busy_percent:.0f} %",
        "-" if this.memory_gib is None else f"{this.memory_gib:.2f}",
    )
