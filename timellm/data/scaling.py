"""Mean and standard deviation of the training rows, as scikit-learn's StandardScaler fits them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from timellm.contract.errors import InputError
from timellm.data.tables import Table

FAR = 100.0
"""Distance from the training rows' mean, in their standard deviations, beyond which a column is named."""
_LARGEST = 1e15
"""Largest scaled value: squared and summed over a batch it still is a float32."""
_SHOWN = 8


def fit_scaler(table: Table, training: slice) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Mean and standard deviation [columns] of the training rows.

    A column counts as constant by scikit-learn's tolerance, which allows for rounding in its mean and variance
    (`sklearn.preprocessing._data._is_constant_feature`), and keeps its scale: its standard deviation is 1.

    Args:
        table: The data set.
        training: Rows that the scaler is fitted on.

    Returns:
        Mean, standard deviation, and notes that name constant columns and those that later leave the training range.

    Raises:
        InputError: If a column's values are too large for a standard deviation.
    """
    rows = table.values[training]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, variance = rows.mean(axis=0), rows.var(axis=0)
        rounding = np.finfo(np.float64).eps * len(rows)
        is_constant = np.isfinite(variance) & (variance <= rounding * variance + (rounding * mean) ** 2)
        std = np.where(is_constant, 1.0, np.sqrt(variance))
    too_large = [name for name, scale in zip(table.columns, mean + std, strict=True) if not np.isfinite(scale)]
    if too_large:
        raise InputError(
            f"Every column must have a finite standard deviation, got values too large for one in "
            f"{_listed(too_large)}. Correct or rescale them."
        )
    return mean, std, _notes(table, training, mean, std, is_constant)


def scale(table: Table, mean: np.ndarray, std: np.ndarray) -> Tensor:
    """Scaled values [rows, columns], float32.

    Raises:
        InputError: If a scaled value is too large for its square to be summed in float32.
    """
    scaled = (table.values - mean) / std
    bad = np.abs(scaled) > _LARGEST
    if bad.any():
        found = []
        for column in np.flatnonzero(bad.any(axis=0))[:_SHOWN]:
            row = int(bad[:, column].argmax())
            found.append(f"{table.columns[column]} {table.values[row, column]:g} in row {row + 1}")
        raise InputError(
            f"Scaled values must be at most {_LARGEST:g} standard deviations of the training rows, got more: "
            f"{', '.join(found)}. Leave those fields empty if they mark missing values."
        )
    return torch.from_numpy(scaled.astype(np.float32))


def _notes(table: Table, training: slice, mean: np.ndarray, std: np.ndarray, is_constant: np.ndarray) -> list[str]:
    names, notes = np.array(table.columns, dtype=object), []
    after = table.values[training.stop :]
    moves = (after != table.values[training.start]).any(axis=0)
    still, starts = is_constant & ~moves, is_constant & moves & (np.ptp(after, axis=0) > 0 if len(after) else moves)
    if still.any():
        notes.append(f"Columns constant in all rows keep scale 1: {_listed(names[still])}.")
    if starts.any():
        notes.append(
            "Columns constant in the training rows but not later keep scale 1, as published: "
            f"{_listed(names[starts])}. "
            "What such a column does later cannot be learnt, and its error counts in its own units."
        )
    steps = is_constant & moves & ~starts
    if steps.any():
        notes.append(
            f"Columns constant in the training rows with another value later have scale 1: {_listed(names[steps])}."
        )
    if len(after):
        with np.errstate(over="ignore"):
            reach = np.abs((after - mean) / std).max(axis=0)
        far = (reach > FAR) & ~is_constant
        if far.any():
            listed = _listed([f"{name} {reach[at]:.3g}" for at, name in enumerate(names) if far[at]])
            notes.append(
                f"Far beyond the training rows later, in their standard deviations: {listed}. Almost constant in "
                "training, or a wrong value? Such columns decide the error alone."
            )
    return notes


def _listed(names: Sequence[str] | np.ndarray) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
