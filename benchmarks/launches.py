"""Kernels that a training step launches on a GPU, and where it waits for one; counted on a CPU."""

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from benchmarks.document import conditions
from benchmarks.harness import benchmark_parser, run_settings, show_progress, use_worker_environment
from benchmarks.launches_places import PLACES, PlacedLaunches
from benchmarks.record import Notes, Section, Table, table
from benchmarks.runner import Benchmark
from benchmarks.series import made_settings
from benchmarks.variants import OURS, PUBLISHED, Contestant, Variant, find_variant
from timellm.contract.config import RunConfig
from timellm.model.layers import LeanDropout, fused_attention
from timellm.run.batches import DeviceTable, WindowBatches, build_table
from timellm.run.stepping import Stepper

MOST_SHOWN = 12
"""Operations that are listed of a variant."""
_SDPA: dict[str, Any] = {"attention": "sdpa", "precision": "bf16"}
VARIANTS = (
    PUBLISHED,
    find_variant("recompute sdpa"),
    Variant("recompute bf16 sdpa", {**_SDPA, "prompt_prefix": "recompute"}),
    find_variant("reuse fp32, fused Adam"),
    OURS,
    Variant("reuse fp32 sdpa", {"prompt_prefix": "reuse", "attention": "sdpa"}),
    Variant("reuse bf16 sdpa", {**_SDPA, "prompt_prefix": "reuse"}),
    Variant("reuse bf16 sdpa, no prompt", {**_SDPA, "prompt_prefix": "reuse", "prompt": "none"}),
    Variant("store bf16", {"prompt_prefix": "store", "prompt_store_gib": 1e6, "precision": "bf16"}),
    Variant("store bf16 sdpa", {**_SDPA, "prompt_prefix": "store", "prompt_store_gib": 1e6}),
)
INTRODUCTION = """# Launches

What one optimizer step asks of a GPU: operations that launch a kernel (every aten operation that is not a view, from
the cut of the batch to the update), and operations for which the process would wait for the GPU (numbers that are read,
copies that block, indices whose number of rows must be known). At a small batch a fast GPU stands still between
kernels, and the number of launches decides how long a step takes. Nothing is computed on a GPU here: the step runs on a
CPU, at batch 2, with the code that a GPU would run (its dropout, attention, activation, table of token ids and number
formats). Time is not measured. A fused Adam counts as one operation, a plain one as those of torch's foreach
implementation. A product whose result is fp32 counts as one operation, because cuBLAS writes either type; so does a
root-mean-square norm, each way, listed as `clone`. With `store`, the step finds every prompt in the store."""


@dataclass(frozen=True)
class Counted:
    """What one step did.

    Attributes:
        launches: How often each operation ran that launches a kernel.
        waits: How often each operation ran that a GPU is waited for.
        places: Launches by where in the step they are.
    """

    launches: Counter[str]
    waits: Counter[str]
    places: Counter[str]


class Launches(Benchmark):
    """Counts what a training step launches."""

    name = "launches"
    title = "Counts the kernels that a training step launches on a GPU, and where it waits for one; needs none."
    introduction = INTRODUCTION

    def parser(self) -> argparse.ArgumentParser:
        """Its flags."""
        parser = benchmark_parser(self.name, self.title)
        parser.add_argument("--only", default=None, help="names of variants, comma-separated (default: all)")
        return parser

    def measure(self, arguments: argparse.Namespace) -> list[Section]:
        """Count the steps of each variant."""
        use_worker_environment(arguments.threads)
        config = run_settings(arguments, **{"batch_size": 2, "device": "cpu", **made_settings(vars(arguments))})
        chosen = [one for one in VARIANTS if arguments.only is None or one.name in arguments.only.split(",")]
        counted, label = {}, ""
        for variant in chosen:
            show_progress(f"counting {variant.name}")
            counted[variant.name], label = count_steps(variant, config)
        rows = [(name, one.launches.total(), one.waits.total(), _listed(one.waits)) for name, one in counted.items()]
        most = [(name, _listed(one.launches)) for name, one in counted.items()]
        head = conditions(torch.device("cpu"), f"Model: {label}, {config.llm_layers} layers")
        return [
            Section(
                f"{label}, {config.llm_layers} layers",
                (
                    head,
                    table(("a step", "launches", "waits", "which"), rows),
                    Notes(tuple(f"{name}: {text}" for name, text in most)),
                    *_by_place(counted),
                ),
            )
        ]


def _by_place(counted: dict[str, Counted]) -> tuple[Table, ...]:
    """Where the launches of the variants with the fewest are."""
    shown = [name for name in ("reuse bf16 sdpa", "store bf16 sdpa") if name in counted]
    places = [one for one in dict.fromkeys((*PLACES, "elsewhere")) if any(counted[name].places[one] for name in shown)]
    rows = [(place, *(counted[name].places[place] for name in shown)) for place in places]
    return (table(("where in the step", *shown), rows),) if shown else ()


def count_steps(variant: Variant, base: RunConfig) -> tuple[Counted, str]:
    """What a step of a variant asks of a GPU, and the name of its language model.

    With a prompt store, the step is one that finds every prompt there.
    """
    with as_on_a_gpu():
        contestant = Contestant(variant, base, torch.device("cpu"), 1)
        for _ in range(2):  # buffers are made in the first
            contestant.step()
        with PlacedLaunches() as counter:
            contestant.step()
    return Counted(counter.launches, counter.waits, counter.places), contestant.prepared.backbone_label


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the branches that a GPU takes, on a CPU: its dropout, activation, number formats and table of token ids."""
    build = WindowBatches.__init__

    def with_table(self: Any, config: Any, split: Any, prompts: Any, prefix: int, device: Any, *widths: Any) -> None:
        width = widths[0] if widths else None
        if width is None and prompts is not None and config.prompt_padding == "masked":
            width = int(prompts.lengths.max())
        build(self, config, split, prompts, prefix, device, width, *widths[1:])
        self.table = build_table(config, split, prompts, prefix, torch.device("cuda"), width)

    with (
        mock.patch.object(WindowBatches, "__init__", with_table),
        mock.patch.object(LeanDropout, "forward", lambda self, x: _dropout(x, self.p, self.training)),
        mock.patch.object(F, "dropout", _dropout),
        mock.patch("timellm.model.devices.launches_kernels", return_value=True),
        mock.patch("timellm.model.devices.product_in_fp32", _product_in_fp32),
        mock.patch("timellm.model.layers.fused_attention", _fused_attention),
        mock.patch.object(Stepper, "_loss_to_report", return_value=None),  # on a GPU, about once a second
        mock.patch.object(DeviceTable, "numbers", _on_host(DeviceTable.numbers)),
        mock.patch("torch.optim.adam._get_value", _on_host(lambda value: value.item())),  # step counts: main memory
        mock.patch("timellm.model.frozen.gelu_tanh", lambda hidden: F.gelu(hidden, approximate="tanh")),
        mock.patch("timellm.run.preparation.product_dtype", lambda dtype, device: dtype),
        mock.patch.object(F, "rms_norm", _rms_norm),
    ):
        yield


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """One kernel, as on a GPU."""
    return torch.native_dropout(x, p, True)[0] if training and p else x


def _fused_attention(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """One kernel, as on a GPU, where it drops out too."""
    return fused_attention(queries, keys, values, 0.0)


class _RmsNorm(torch.autograd.Function):
    """One kernel each way, as on a GPU, where torch's own norm is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """The norm of rows."""
        ctx.given = x, weight, eps
        return _one_kernel(_plain_rms_norm, x, weight, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the rows; the weight is frozen."""

        def differentiate(grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                return torch.autograd.grad(_plain_rms_norm(leaf, weight, eps), leaf, grad)[0]

        return _one_kernel(differentiate, *grads, *ctx.given), None, None


_plain_norm = F.rms_norm


def _plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _plain_norm(x, x.shape[-1:], weight, eps)


def _rms_norm(x: Tensor, shape: Any, weight: Tensor, eps: float) -> Tensor:
    return _RmsNorm.apply(x, weight, eps)


def _one_kernel(work: Callable[..., Tensor], *given: Any) -> Tensor:
    """The result of some work that counts as one operation."""
    with _disable_current_modes():
        result = work(*given)
    return result.clone()


def _product_in_fp32(left: Tensor, right: Tensor) -> Tensor:
    """One kernel, as on a GPU, where the product itself may be of another type than its operands."""
    product = torch.mm(left, right)
    with _disable_current_modes():
        return product.float()


def _on_host(work: Callable[..., Any]) -> Callable[..., Any]:
    """Work on numbers in main memory, which no GPU has to do with."""

    def uncounted(*arguments: Any) -> Any:
        with _disable_current_modes():
            return work(*arguments)

    return uncounted


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(MOST_SHOWN)) or "-"
