"""The stages of the check on a GPU: each yields rows as it goes, so that a limit loses only what comes later."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_exactness import Row, exactness
from benchmarks.harness import median_of, time_interleaved
from benchmarks.variants import PUBLISHED, Contestant, Variant
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.machine.environment import synchronize
from timellm.measure.launches import LaunchCounter
from timellm.model.timellm import PromptBatch
from timellm.run.training import RunOptions, TrainingRun

_FAST: dict[str, Any] = {"precision": "bf16", "attention": "sdpa", "prompt_prefix": "reuse"}
TIMED: dict[str, dict[str, Any]] = {
    "reuse fp32": {"prompt_prefix": "reuse"},
    "reuse bf16 sdpa": _FAST,
    "reuse bf16 sdpa, step graph": {**_FAST, "step_graph": True},
    "store bf16 sdpa": {**_FAST, "prompt_prefix": "store", "prompt_store_gib": 8.0},
}
LEVERS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "fp16 reuse, accumulation 2, clipped": {
        "precision": "fp16", "prompt_prefix": "reuse", "accumulation_steps": 2, "max_grad_norm": 1.0
    },
    **TIMED,
    "gradient checkpointing": {"gradient_checkpointing": True, "prompt_prefix": "reuse"},
    "loader workers": {"num_workers": 2, **_FAST},
    "wavelet patches": {"use_swt": True, "prompt_prefix": "reuse"},
    "layer norms tuned": {"tune_layer_norm": True, "precision": "bf16"},
    "no language model": {"llm_model": "none", "llm_path": None, "precision": "bf16"},
    "ZeRO-2": {"offload_optimizer": "none", "precision": "bf16"},
    "ZeRO-2, fp16": {"offload_optimizer": "none", "precision": "fp16", "prompt_prefix": "reuse"},
    "ZeRO-2, optimizer on the CPU": {"offload_optimizer": "cpu", "precision": "bf16"},
    "compiled": {"compile_mode": "default", **_FAST},
    "compiled, CUDA graphs": {"compile_mode": "reduce-overhead", **_FAST},
    "compiled, CUDA graphs, accumulation 2": {"compile_mode": "reduce-overhead", "accumulation_steps": 2, **_FAST},
}  # fmt: skip
SMALL = ("fp32", "bf16", "reuse bf16 sdpa, step graph", "no language model")
"""Levers of a small run."""


@dataclass(frozen=True)
class Stage:
    """One part of the check.

    Attributes:
        limit_seconds: It is ended after this long; the limits sum to less than ten minutes.
        run: Yields rows for settings, a device, and whether to be small.
    """

    limit_seconds: int
    run: Callable[[RunConfig, torch.device, bool], Iterator[Row]]


def golden(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """Largest relative differences from the published model's outputs, losses and gradients, in fp32."""
    from tests.timellm import test_model_golden as published

    for case, path in published.paths()[: 2 if small else None]:
        for attention in ("eager", "sdpa"):
            settings = published.published_config(case, prompt_prefix=path, attention=attention)
            worst = _golden_errors(published, case, settings, device)
            is_right = worst[0] < 1e-5 and worst[1] < 1e-5 and worst[2] < 1e-4
            text = "output {:.1e}, loss {:.1e}, gradient {:.1e}".format(*worst)
            yield f"{case.id} {path} {attention}", text, "right" if is_right else "WRONG"


def _golden_errors(published: Any, case: Any, config: RunConfig, device: torch.device) -> tuple[float, float, float]:
    arrays, model = case.arrays(), published.build_model(case, config).to(device)
    x, y = (published.rows(arrays[name]).to(device) for name in ("x", "y"))
    ids = torch.from_numpy(arrays["prompt_ids"]).to(device)
    if config.prompt_prefix == "reuse":
        kept = published.shared_tokens(ids)
        model.keep_prefix(ids[0, :kept])
        ids = ids[:, kept:]
    forecast = model(x, PromptBatch(ids))
    loss = (forecast - y).square().mean()
    loss.backward()
    gradients = {name: one.grad.cpu().numpy() for name, one in model.named_parameters() if one.grad is not None}
    output = forecast.detach().cpu().view(case.batch, case.channels, -1).transpose(1, 2).numpy()
    worst = 0.0
    for name, expected in arrays.items():
        kind, _, parameter = name.partition(".")
        if kind in ("grad", "gradnorm") and parameter != published.ZERO_IN_THEORY:
            ours = gradients[parameter] if kind == "grad" else np.linalg.norm(gradients[parameter])
            worst = max(worst, published.relative_error(ours, expected))
    error = published.relative_error
    return error(output, arrays["output"]), error(loss.item(), arrays["loss"]), worst


def levers(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """A short training with every lever: how it ended and its error."""
    for name in SMALL if small else LEVERS:
        began = time.perf_counter()
        try:
            run = config.replace(train_samples=64 if small else 512, val_samples=32, train_epochs=1, **LEVERS[name])
            result = TrainingRun(run, RunOptions(folder=Path(mkdtemp()))).run()
            notes = [f"; {note}" for note in result.notes if note.startswith("step_graph")]  # none was recorded
            outcome = f"val mse {result.val_mse:.4f}" if result.state == State.COMPLETE else str(result.error)
            outcome += "".join(notes)
            state = result.state
        except InputError as error:
            state, outcome = "refused", str(error)
        yield name, outcome, f"{state}, {time.perf_counter() - began:.1f} s"


def launches(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """Operations of a step that launch a kernel, and those that make the process wait."""
    for name, settings in _timed(small).items():
        contestant = Contestant(Variant(name, settings), config, device, 2)
        for _ in range(6):
            contestant.step()
        with LaunchCounter() as counter:
            contestant.step()
        waits = ", ".join(f"{operation} {count}" for operation, count in counter.waits.items()) or "none"
        yield name, str(counter.total), f"launches; waits: {waits}"


def step_time(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """Seconds of a step, interleaved, the published computation among them."""
    variants = {PUBLISHED.name: PUBLISHED.settings, **_timed(small)}
    contestants = {name: Contestant(Variant(name, one), config, device, 2) for name, one in variants.items()}
    actions = {name: one.step for name, one in contestants.items()}
    seconds = time_interleaved(actions, device, repeats=2 if small else 20, warmup=1 if small else 10)
    for name, measured in seconds.items():
        yield name, f"{1000 * median_of(measured).median:.2f}", "ms a step"


def epoch_time(config: RunConfig, device: torch.device, small: bool) -> Iterator[Row]:
    """Seconds of whole epochs, batch 32 and 256, after a few steps of warm-up."""
    chosen = {name: one for name, one in _timed(small).items() if name.startswith("reuse bf16")}
    for name, settings in chosen.items():
        for batch in (config.batch_size,) if small else (256, 32):
            variant = Variant(name, {**settings, "batch_size": batch})
            contestant = Contestant(variant, config, device, 2 if small else None)
            for _ in range(1 if small else 10):
                contestant.step()
            synchronize(device)
            began = time.perf_counter()
            contestant.epoch()
            synchronize(device)
            yield f"{name}, batch {batch}", f"{time.perf_counter() - began:.2f}", f"s, {len(contestant.groups)} steps"


def _timed(small: bool) -> dict[str, dict[str, Any]]:
    return {name: TIMED[name] for name in list(TIMED)[1:3]} if small else TIMED


STAGES = {
    "golden": Stage(60, golden),
    "exactness": Stage(70, exactness),
    "levers": Stage(180, levers),
    "launches": Stage(40, launches),
    "step_time": Stage(80, step_time),
    "epoch_time": Stage(160, epoch_time),
}
"""By name, in the order they run."""
