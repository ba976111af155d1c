"""Errors over validation and test windows: every window counts once, whatever the batch size."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timellm.training.batches import WindowBatches, micro_batches
from timellm.training.environment import synchronize


@dataclass(frozen=True)
class Scores:
    """Errors over a set of windows, in scaled units.

    Attributes:
        mse: Mean squared error.
        mae: Mean absolute error.
        windows: Windows they are over.
        seconds: Wall clock of the pass.
    """

    mse: float
    mae: float
    windows: int
    seconds: float


@torch.no_grad()
def evaluate(
    network: Any,
    batches: WindowBatches,
    windows: Tensor,
    batch_size: int,
    device: torch.device,
    *,
    shares_prototypes: bool,
    between_batches: Callable[[], None] = lambda: None,
) -> Scores:
    """Score a model on windows, in order.

    Args:
        network: The TimeLLM.
        batches: Cuts the windows.
        windows: Their numbers [windows].
        batch_size: Windows per forward pass.
        device: Synchronised before the clock is read.
        shares_prototypes: Compute the prototypes once, instead of in every batch as published.
        between_batches: Called after each batch; may raise to stop.
    """
    was_training = network.training
    network.eval()
    synchronize(device)
    started = time.perf_counter()
    prototypes = network.prototypes() if shares_prototypes else None
    squared = torch.zeros((), dtype=torch.float64, device=device)
    absolute = torch.zeros((), dtype=torch.float64, device=device)
    values = 0
    for batch in batches(micro_batches(windows, batch_size)):
        error = (network(batch.x, batch.prompt, prototypes)[: len(batch.y)] - batch.y).double()
        squared += error.square().sum()
        absolute += error.abs().sum()
        values += error.numel()
        between_batches()
    scores = (squared / values).item(), (absolute / values).item()
    synchronize(device)
    network.train(was_training)
    return Scores(*scores, len(windows), time.perf_counter() - started)
