"""Which windows are used, and in which order: the same for every precision, worker count and resume."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from timellm.data.splits import Split

_PHASES = 1 << 16
_GOLDEN_RATIO = 0.6180339887498949


def training_order(windows: int, epoch: int, seed: int) -> Tensor:
    """The order in which one epoch visits the training windows.

    Depends on its arguments alone. `RandomState` is used because its stream is frozen across NumPy releases.

    Args:
        windows: Number of windows.
        epoch: Epoch, from 0; each has its own order.
        seed: The run's seed.

    Returns:
        A permutation of range(windows), int64 [windows].
    """
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, epoch])))
    return torch.from_numpy(generator.permutation(windows).astype(np.int64, copy=False))


@dataclass(frozen=True, slots=True)
class EpochOrders(Sequence[Tensor]):
    """The orders of all epochs, each made when it is asked for: one of 14 million windows takes a second and 115 MB.

    The last one is kept, because the start of a run asks for its first epoch several times.

    Attributes:
        windows: Training windows.
        epochs: Passes over them.
        seed: The run's seed.
    """

    windows: int
    epochs: int
    seed: int
    _last: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.epochs

    def __getitem__(self, epoch):  # type: ignore[no-untyped-def]
        """The order of an epoch [windows], as `training_order`; whoever asks for it does not change it."""
        if isinstance(epoch, slice):
            return [self[number] for number in range(*epoch.indices(self.epochs))]
        if not -self.epochs <= epoch < self.epochs:
            raise IndexError(f"epoch must be below {self.epochs}, got {epoch}.")
        number = epoch % self.epochs
        if number not in self._last:
            self._last.clear()  # before the next one is made, so that there is one at a time
            self._last[number] = training_order(self.windows, number, self.seed)
        return self._last[number]


def stratified_subset(split: Split, samples: int) -> Tensor:
    """A fixed subset of windows, spread evenly over the channels and, in each channel, over time.

    No seed: every trial gets the same. Channels are shifted against each other, so that together they cover more
    time spans than one does.

    Args:
        split: The split to choose from.
        samples: Number of windows wanted, at least 1.

    Returns:
        Distinct window indices in increasing order, int64 [min(samples, len(split))].
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    if samples >= len(split):
        return torch.arange(len(split))
    windows, channels = split.windows_per_channel, split.channels
    bounds = [channel * samples // channels for channel in range(channels + 1)]
    chosen = []
    for channel in range(channels):
        count = bounds[channel + 1] - bounds[channel]
        if count == 0:
            continue
        phase = int(_PHASES * ((channel + 0.5) * _GOLDEN_RATIO % 1.0))
        # Whole numbers: steps of windows / count >= 1 rows, so no two fall on the same row.
        rows = (torch.arange(count) * _PHASES + phase) * windows // (count * _PHASES)
        chosen.append(channel * windows + rows)
    return torch.cat(chosen)
