"""Learning rate over the run, as published Time-LLM has it."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from timellm.contract.config import RunConfig

COS_PERIOD_EPOCHS = 20
COS_LEAST = 1e-8


def learning_rate_factor(config: RunConfig, epoch: float) -> float:
    """Share of the scaled learning rate at a point of the run.

    Args:
        config: The run's settings.
        epoch: Epochs done, as a fraction of the whole schedule's train_epochs.
    """
    whole = math.floor(epoch + 1e-9)
    if config.lradj == "type1":
        return 0.5 ** max(0, whole - 1)
    if config.lradj == "COS":
        least = COS_LEAST / config.scaled_learning_rate
        return least + (1 - least) * (1 + math.cos(math.pi * whole / COS_PERIOD_EPOCHS)) / 2
    return 1.0


class _OneCycle(OneCycleLR):
    """One cycle that stays at its end: steps taken only to be timed come after it."""

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.total_steps - 1:
            super().step(epoch)


def build_schedule(config: RunConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """A scheduler that is stepped once per optimizer step.

    Args:
        config: The run's settings.
        optimizer: Its optimizer.
        steps: Optimizer steps of the whole run; the schedule is stretched to them.
    """
    if config.lradj == "TST":
        total_steps, pct_start = steps + 1, config.pct_start
        if pct_start * total_steps == 1:  # the rise would take no step, and torch would divide by its length
            pct_start = math.nextafter(pct_start, 1.0)
        return _OneCycle(optimizer, config.scaled_learning_rate, total_steps=total_steps, pct_start=pct_start)
    return LambdaLR(optimizer, lambda step: learning_rate_factor(config, config.train_epochs * step / steps))
