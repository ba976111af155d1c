"""Where the time of a training step goes, above the arithmetic floor."""

import argparse
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.arithmetic import flops_of, peak_flops_per_second
from benchmarks.document import conditions, device_heading
from benchmarks.harness import (
    Interval,
    benchmark_parser,
    median_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
)
from benchmarks.record import Part, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import data_label, made_settings
from benchmarks.variants import Contestant, find_variant
from timellm.contract.config import RunConfig
from timellm.machine.environment import choose_device, synchronize

STEPS_HELD = 2
WARMUP_STEPS = 3
SHOWN_OPERATIONS = 15
INTRODUCTION = """# Profile of a step

Where a training step's time goes, and what is left above the arithmetic floor: the operations of its matrix products at
the speed of the fastest matrix product that was measured beside. Seconds of a step are measured without the profiler;
shares of kinds of operations, each operation's own time without what it calls, are the profiler's, scaled to that step.
On a GPU they are times of kernels; what the sum lacks of the step is then time in which the GPU waited."""

KINDS: dict[str, tuple[str, ...]] = {
    "matrix products": ("::mm", "::addmm", "::bmm", "::baddbmm", "gemm", "cutlass", "_linear_pointwise", "mkldnn"),
    "fused attention": ("scaled_dot_product", "flash", "fmha"),
    "softmax": ("softmax",),
    "norms": ("layer_norm", "rms_norm"),
    "activations": ("gelu", "silu"),
    "optimizer": ("adam",),
    "convolution": ("conv",),
    "dropout": ("dropout", "bernoulli"),
    "copies, casts, joins": ("copy", "::cat", "clone", "contiguous", "Memcpy", "CatArray", "gather", "index", "fill"),
    "masks": ("masked_fill", "where"),
    "sums and element-wise": ("::add", "::mul", "::sub", "::div", "::sum", "::mean", "::neg", "reduce", "elementwise"),
}
"""Parts of the names of operations, the first that fits decides; the rest is "other"."""


@dataclass(frozen=True)
class Operation:
    """One operation of a step.

    Attributes:
        name: As torch names it, or the kernel.
        shapes: Of its inputs.
        milliseconds: Its own time in a step.
        calls: In a step.
    """

    name: str
    shapes: str
    milliseconds: float
    calls: float


class ProfileStep(Benchmark):
    """Shows where the time of a training step goes."""

    name = "profile_step"
    title = "Shows where the time of a training step goes."
    introduction = INTRODUCTION
    gpu_flags = "--llm_model gpt2 --llm_weights random"

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title, repeats=8)
        parser.add_argument("--variant", default="reuse bf16", help="variant of step_time (reuse bf16)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """The section of this device and model."""
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **made_settings(vars(arguments)))
        device = choose_device(config)
        contestant = Contestant(find_variant(arguments.variant), config, device, STEPS_HELD)
        for _ in range(WARMUP_STEPS):
            contestant.step()
        seconds = time_interleaved({"step": contestant.step}, device, repeats=arguments.repeats, warmup=1)["step"]
        show_progress("profiling")
        operations = _operations(contestant, device, arguments.repeats)
        heading = device_heading(device, contestant.prepared.backbone_label, arguments.variant)
        return [Section(heading, _body(contestant, config, device, median_of(seconds), operations))]


def _operations(contestant: Contestant, device: torch.device, steps: int) -> list[Operation]:
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(steps):
            contestant.step()
        synchronize(device)
    found = []
    for event in profiler.key_averages(group_by_input_shape=True):
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0 and (not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA):
            shapes = _shapes(event.input_shapes)
            found.append(Operation(event.key, shapes, microseconds / 1e3 / steps, event.count / steps))
    return sorted(found, key=lambda operation: -operation.milliseconds)


def _shapes(shapes: Any) -> str:
    """The shapes of the tensors among the inputs."""
    return " ".join("x".join(map(str, shape)) for shape in shapes or [] if shape) or "-"


def _body(
    contestant: Contestant,
    config: RunConfig,
    device: torch.device,
    step: Interval,
    operations: list[Operation],
) -> tuple[Part, ...]:
    peak = peak_flops_per_second(device, contestant.model.compute_dtype)
    flops = flops_of(contestant.step)
    floor = flops / peak
    head = conditions(
        device,
        f"Model: {contestant.prepared.backbone_label}, {config.llm_layers} layers, batch {config.batch_size}, "
        f"{data_label(config.data, config.data_path)}",
        f"Step: {step:.3f} s; floor {floor:.3f} s ({flops / 1e9:.0f} GFLOP at {peak / 1e9:.0f} GFLOP/s); "
        f"{step.median / floor:.2f} times the floor",
    )
    waits = device.type == "cuda"
    kinds = _kinds_table(operations, step.median, floor, waits)
    return head, kinds, _operations_table(operations)


def _kinds_table(operations: list[Operation], step: float, floor: float, waits: bool) -> Table:
    """Seconds of a step by kind, and what they take above the floor.

    Args:
        operations: Of a profiled step.
        step: Seconds of a step without the profiler.
        floor: Seconds that its arithmetic takes at least.
        waits: Whether the device may be idle in a step, so that kernels' times are not scaled to fill it.
    """
    milliseconds: dict[str, float] = defaultdict(float)
    for operation in operations:
        milliseconds[_kind(operation.name)] += operation.milliseconds
    profiled = sum(milliseconds.values())
    scale = 1e-3 if waits else step / profiled
    rows = []
    for kind, total in sorted(milliseconds.items(), key=lambda pair: -pair[1]):
        seconds = total * scale
        above = seconds - floor if kind == "matrix products" else seconds
        rows.append((kind, f"{seconds:.3f}", f"{100 * seconds / step:.0f} %", f"{above:.3f}"))
    rows.append(("step", f"{step:.3f}", "100 %", f"{step - floor:.3f}"))
    return table(("kind", "s per step", "share", "above the floor, s"), rows)


def _kind(name: str) -> str:
    lowered = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part.lower() in lowered for part in parts)), "other")


def _operations_table(operations: list[Operation]) -> Table:
    rows = [
        (f"`{this.name[:60]}`", f"{this.milliseconds:.1f}", f"{this.calls:g}", this.shapes)
        for this in operations[:SHOWN_OPERATIONS]
    ]
    return table(("operation", "ms per step, profiled", "calls", "inputs"), rows)
