"""Errors over validation and test windows: every window counts once, whatever the batch size."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timellm.contract.config import RunConfig
from timellm.machine.environment import synchronize
from timellm.optimize.engine import Engine
from timellm.run.batches import Batch, Batches, micro_batches

LARGE_BATCH = 512
"""Windows that a GPU evaluates at once if it can and nothing else is asked for."""


@dataclass(frozen=True)
class Scores:
    """Errors over a set of windows, in scaled units.

    Attributes:
        mse: Mean squared error.
        mae: Mean absolute error.
        windows: Windows they are over.
        seconds: Wall clock of the pass.
        warmup_seconds: What its first batch took before the pass, where that was asked for.
    """

    mse: float
    mae: float
    windows: int
    seconds: float
    warmup_seconds: float = 0.0


def batch_that_fits(config: RunConfig, network: Any, batches: Batches, windows: Tensor, device: torch.device) -> int:
    """Windows of an evaluation's batch: on a GPU as many, up to 512, as the memory that training took has room for.

    A GPU takes hardly longer for 512 windows than for 32. What the run asks for is taken as it is, and so is the batch
    of training where the shape of a batch matters: to compiled code, and to padding that is attended to.

    Args:
        config: The run's settings.
        network: The TimeLLM.
        batches: Cuts the windows.
        windows: Numbers of some of those to evaluate [windows].
        device: Where it runs.
    """
    least = config.evaluation_batch
    has_shape = config.compile_mode != "off" or config.prompt_padding == "published"
    if device.type != "cuda" or config.eval_batch_size is not None or has_shape or not len(windows):
        return least
    taken = torch.cuda.max_memory_reserved(device) / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, taken), device)
    try:
        return _largest_that_fits(config, network, batches, windows, least)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


@torch.no_grad()
def _largest_that_fits(config: RunConfig, network: Any, batches: Batches, windows: Tensor, least: int) -> int:
    """Halve the batch until the allocator, whose limit is set, gives it room."""
    was_training, size = network.training, LARGE_BATCH
    network.eval()
    while size > least:
        some = windows.repeat(math.ceil(size / len(windows)))[:size]
        try:
            prototypes = network.prototypes() if config.prompt_prefix != "recompute" else None
            for batch in batches([some]):
                network(batch.x, batch.prompt, prototypes)
            break
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            size //= 2
    network.train(was_training)
    return max(size, least)


@torch.no_grad()
def evaluate(
    network: Any,
    batches: Batches,
    windows: Tensor,
    batch_size: int,
    device: torch.device,
    *,
    shares_prototypes: bool,
    warms_up: bool = False,
    between_batches: Callable[[], None] = lambda: None,
    on_forecast: Callable[[Batch, Tensor], None] | None = None,
    engine: Engine | None = None,
) -> Scores:
    """Score a model on windows, in order.

    Args:
        network: The TimeLLM.
        batches: Cuts the windows.
        windows: Their numbers [windows].
        batch_size: Windows per forward pass.
        device: Synchronised before the clock is read.
        shares_prototypes: Compute the prototypes once, instead of in every batch as published.
        warms_up: Compute the first batch once before the clock starts: compiled code and kernels are made there.
        between_batches: Called after each batch; may raise to stop.
        on_forecast: Called with each batch and its scaled forecasts [windows, pred_len].
        engine: Processes that share the windows, each scored by one of them (default: this one alone).
    """
    was_training = network.training
    network.eval()
    mine = windows if engine is None else windows[engine.rank :: engine.world]
    warmup = _seconds_of_first(network, batches, mine[:batch_size], device, shares_prototypes) if warms_up else 0.0
    stopwatch = _Stopwatch(device)
    prototypes = network.prototypes() if shares_prototypes else None
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # squared errors, absolute errors, values
    for batch in batches(micro_batches(mine, batch_size) if len(mine) else [], stopwatch.stopped):
        forecast = network(batch.x, batch.prompt, prototypes)[: len(batch.y)]
        error = (forecast - batch.y).double()
        sums[0] += error.square().sum()
        sums[1] += error.abs().sum()
        sums[2] += error.numel()
        if on_forecast is not None:
            on_forecast(batch, forecast)
        between_batches()
    squared, absolute, values = (sums if engine is None else engine.gather(sums)).tolist()
    network.train(was_training)
    return Scores(squared / values, absolute / values, len(windows), stopwatch.seconds(), warmup)


class _Stopwatch:
    """Wall clock of a pass, without what it was stopped for.

    Args:
        device: Synchronised before the clock starts or is stopped.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        synchronize(device)
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop for a while."""
        synchronize(self._device)
        stopped = time.perf_counter()
        yield
        self._started += time.perf_counter() - stopped

    def seconds(self) -> float:
        """Seconds counted so far."""
        return time.perf_counter() - self._started


def _seconds_of_first(
    network: Any, batches: Batches, windows: Tensor, device: torch.device, shares_prototypes: bool
) -> float:
    """Compute one batch of a pass, and what it needs once; returns how long that took."""
    stopwatch = _Stopwatch(device)
    prototypes = network.prototypes() if shares_prototypes else None
    for batch in batches([windows] if len(windows) else [], stopwatch.stopped):
        network(batch.x, batch.prompt, prototypes)
    synchronize(device)
    return stopwatch.seconds()
