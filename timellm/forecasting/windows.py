"""A history in a network's own units, and the windows that are forecast from it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from timellm.contract.errors import InputError
from timellm.data import Split
from timellm.forecasting.frames import Panel
from timellm.run.facts import Facts


@dataclass(frozen=True, eq=False, slots=True)
class Scaler:
    """Mean and standard deviation of each column [columns], own units."""

    mean: np.ndarray
    std: np.ndarray

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values [..., columns] in scaled units, float32, as a training scales them."""
        return ((values - self.mean) / self.std).astype(np.float32)

    def own_units(self, scaled: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Scaled values [windows, steps] of columns [windows] in own units, float64."""
        return scaled.astype(np.float64) * self.std[columns, None] + self.mean[columns, None]


def trained_scaler(facts: Facts) -> Scaler:
    """The scaler of a training."""
    return Scaler(np.asarray(facts.mean), np.asarray(facts.std))


def own_scaler(values: np.ndarray) -> Scaler:
    """A scaler for columns that were not trained on, from their own history [rows, columns]."""
    is_constant = values.max(axis=0) == values.min(axis=0)
    return Scaler(values.mean(axis=0), np.where(is_constant, 1.0, values.std(axis=0)))


def matching_columns(panel: Panel, facts: Facts) -> Panel:
    """The columns that a checkpoint forecasts, in its order.

    Raises:
        InputError: If one is missing, or there are others that were not trained on.
    """
    missing = [name for name in facts.columns if name not in panel.columns]
    # Where one target was asked for, what stands beside it in a file was left out by choice.
    unknown = [] if facts.target is not None else [name for name in panel.columns if name not in facts.columns]
    if missing or unknown:
        parts = [f"lacks {_listed(missing)}"] if missing else []
        parts += [f"has also {_listed(unknown)}"] if unknown else []
        raise InputError(
            f"{panel.source} must have the columns that were trained on ({_listed(list(facts.columns))}), in any "
            f"order, and it {' and '.join(parts)}. Rename or drop them, or forecast untrained ones with --other_data."
        )
    return panel.chosen(facts.columns)


def split_of(scaled: np.ndarray, seq_len: int, pred_len: int) -> Split:
    """Scaled rows [rows, columns] as a split; what is to come is not known and is left out with NaN."""
    return Split(torch.from_numpy(scaled), seq_len, pred_len)


def windows_at(split: Split, starts: np.ndarray) -> Tensor:
    """Numbers of the windows that start at these rows [origins], of every column, increasing."""
    first = torch.arange(split.channels)[:, None] * split.windows_per_channel
    return (first + torch.from_numpy(np.sort(starts))).flatten()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
