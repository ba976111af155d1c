"""The factor of an fp16 loss that DeepSpeed is driven with, and the count of updates skipped in a row."""

from typing import Any

import torch
from torch import Tensor

MOST_SKIPPED = 10
"""Updates skipped in a row that end a run: from 65,536 the scale has fallen to 64 by then."""

_FIRST, _GROWTH, _BACKOFF, _STEPS_TO_GROWTH = 2.0**16, 2.0, 0.5, 2000
"""As torch's GradScaler has them."""


class ZeroLossScale:
    """Scales the loss of DeepSpeed's ZeRO in fp16, as torch's GradScaler does.

    With a torch_autocast block, ZeRO (0.19) scales by a GradScaler of its own. An overflow is found, and the update
    left out, before that scaler is told: its scale never falls, and nothing is trained any more. Gradients are clipped
    while they are still scaled, too. So the scaler is replaced by the scale that ZeRO takes from outside, which it
    divides by before it clips.

    Args:
        optimizer: DeepSpeed's ZeRO optimizer.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self.scale, self._steps = _FIRST, 0
        self.skipped = 0
        optimizer.torch_autocast_gradscaler = None
        optimizer.override_loss_scale(self.scale)

    def update(self) -> None:
        """Fall after an update that was skipped, grow after many that were not."""
        if self._optimizer.overflow:
            self.scale, self._steps = self.scale * _BACKOFF, 0
            self.skipped += 1
        else:
            self._steps, self.skipped = self._steps + 1, 0
            if self._steps % _STEPS_TO_GROWTH == 0:
                self.scale *= _GROWTH
        self._optimizer.override_loss_scale(self.scale)


class SkippedUpdates:
    """Counts the updates in a row that a GradScaler skipped, on the device: reading its scale would wait for it.

    Args:
        scaler: What scales the loss.
    """

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self._scaler = scaler
        self._count: Tensor | None = None
        self._before: Tensor | None = None

    def begin(self) -> None:
        """Called before the update."""
        scale = self._scaler._get_scale_async()
        self._before = None if scale is None else scale.clone()

    def end(self) -> None:
        """Called after it: a scale that fell says that it was skipped."""
        after = self._scaler._get_scale_async()
        if after is None or self._before is None:
            return
        if self._count is None:
            self._count = torch.zeros_like(after)
        self._count.add_(1).mul_(after < self._before)

    def read(self) -> int:
        """Updates skipped in a row so far; waits for the device."""
        return 0 if self._count is None else int(self._count.item())
