"""Where the time of a training step goes, above the arithmetic floor. `profile_step.py --help`."""

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from benchmarks.arithmetic import flops_of, peak_flops_per_second  # noqa: E402
from benchmarks.document import conditions, device_heading, publish, table  # noqa: E402
from benchmarks.harness import (  # noqa: E402
    Interval,
    benchmark_parser,
    median_of,
    run_settings,
    show_progress,
    time_interleaved,
    use_worker_environment,
)
from benchmarks.series import data_label, made_settings  # noqa: E402
from benchmarks.variants import Contestant, find_variant  # noqa: E402
from timellm.contract.config import RunConfig  # noqa: E402
from timellm.machine.environment import choose_device, synchronize  # noqa: E402

PROG = "profile_step.py"
NAME = "profile_step"
STEPS_HELD = 2
WARMUP_STEPS = 3
SHOWN_OPERATIONS = 15
GPU_COMMAND = "python benchmarks/profile_step.py --llm_model gpt2 --llm_weights random"
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


def main() -> int:
    """Measure and write the section of this device, model and variant."""
    parser = benchmark_parser(PROG, "Shows where the time of a training step goes.", repeats=8)
    parser.add_argument("--variant", default="reuse bf16", help="variant of step_time (reuse bf16)")
    arguments = parser.parse_args()
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
    body = _body(contestant, config, device, median_of(seconds), operations)
    publish(NAME, arguments.output, INTRODUCTION, heading, body, GPU_COMMAND)
    return 0


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
) -> str:
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
    return "\n\n".join([head, kinds, _operations_table(operations)])


def _kinds_table(operations: list[Operation], step: float, floor: float, waits: bool) -> str:
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


def _operations_table(operations: list[Operation]) -> str:
    rows = [
        (f"`{this.name[:60]}`", f"{this.milliseconds:.1f}", f"{this.calls:g}", this.shapes)
        for this in operations[:SHOWN_OPERATIONS]
    ]
    return table(("operation", "ms per step, profiled", "calls", "inputs"), rows)


if __name__ == "__main__":
    from timellm.arguments import run_command

    run_command(main, PROG)
