"""A split: one tensor of scaled values and the windows that are cut from it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Split:
    """Consecutive rows of a data set; a window is one channel of one time span in them.

    Window `index` is channel `index // windows_per_channel`, starting at row `index % windows_per_channel`.
    Only the values are kept, so memory does not grow with the number of windows.

    Attributes:
        values: Scaled values [rows, channels], float32, kept with each channel contiguous.
        seq_len: Length of the input window, time steps.
        pred_len: Length of the forecast, time steps.
    """

    values: Tensor
    seq_len: int
    pred_len: int

    def __post_init__(self) -> None:
        """Lay the values out channel by channel, so that a window is read from consecutive memory."""
        if self.values.ndim != 2:
            raise ValueError(f"values must be [rows, channels], got shape {tuple(self.values.shape)}.")
        if self.values.shape[0] < self.seq_len + self.pred_len:
            raise ValueError(
                f"A split needs at least seq_len + pred_len = {self.seq_len + self.pred_len} rows, "
                f"got {self.values.shape[0]}."
            )
        object.__setattr__(self, "values", self.values.float().t().contiguous().t())

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.values.shape[1]

    @property
    def windows_per_channel(self) -> int:
        """Number of windows of one channel."""
        return self.values.shape[0] - self.seq_len - self.pred_len + 1

    def __len__(self) -> int:
        return self.windows_per_channel * self.channels

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Copy the windows with these indices out of the values.

        Args:
            indices: Window indices [n], int64, on any device.

        Returns:
            Inputs x [n, seq_len] and targets y [n, pred_len], float32, on the values' device.

        Raises:
            IndexError: If an index is not a window's (on a GPU, torch reports it as a device error).
        """
        return self.cut(*self.places(indices.to(self.values.device)))

    def places(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Channel and first row of windows, each [n], from their indices [n]."""
        channel = torch.div(indices, self.windows_per_channel, rounding_mode="floor")
        return channel, torch.remainder(indices, self.windows_per_channel)

    def cut(self, channel: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Copy windows out of the values, as `gather`, by their `places`."""
        # A view of every window, [windows_per_channel, channels, seq_len + pred_len]: only the chosen rows are copied.
        windows = self.values.unfold(0, self.seq_len + self.pred_len, 1)
        chosen = windows[start, channel]
        return chosen[:, : self.seq_len], chosen[:, self.seq_len :]

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its values on another device."""
        return Split(self.values.to(device), self.seq_len, self.pred_len)
