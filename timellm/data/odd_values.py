"""Values that a person would ask about: marks of missing values among the numbers, a column that counts the rows."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from timellm.data.reading import counts_rows

_NINES = re.compile(r"-?9{2,}(\.9+|\.0)?")
_BINARY_LIMITS = {float(limit) for bits in (15, 16, 31, 32) for limit in (2**bits - 1, -(2**bits), 2**bits)}
_HUGE = 1e10
_FAR = 2.0
"""Distance from all other values, in ranges of them, from which a repeated value stands out."""
_SHOWN_COLUMNS = 8


def value_notes(numbers: pd.DataFrame, source: str) -> list[str]:
    """Notes that ask whether something was meant.

    Args:
        numbers: Columns as read, NaN where a value is missing.
        source: What the notes call the data.
    """
    notes = []
    marks = [text for name in numbers for text in _marks(str(name), numbers[name].to_numpy())]
    if marks:
        more = f" and {len(marks) - _SHOWN_COLUMNS} more" if len(marks) > _SHOWN_COLUMNS else ""
        notes.append(
            f"{source}: values that stand far from all others are used as they are: "
            f"{', '.join(marks[:_SHOWN_COLUMNS])}{more}. Do they mark missing values? Then leave those fields empty."
        )
    counters = [str(name) for name in numbers if numbers.shape[1] > 1 and counts_rows(numbers[name])]
    if counters:
        notes.append(
            f"{source}: {', '.join(counters[:_SHOWN_COLUMNS])} counts the rows and is forecast like any column. "
            "Is it an index? Then remove it."
        )
    return notes


def _marks(name: str, values: np.ndarray) -> Iterator[str]:
    """The smallest or largest value of a column [rows], if it looks like a mark and not like a measurement."""
    values = values[~np.isnan(values)]
    if len(values) < 3:
        return
    for extreme in (values.min(), values.max()):
        rest = values[values != extreme]
        if not len(rest):
            return
        count = len(values) - len(rest)
        with np.errstate(over="ignore"):
            gap, spread = np.abs(rest - extreme).min(), float(np.ptp(rest))
        if spread == 0 or count * 2 > len(values):
            continue
        if _is_mark(extreme, gap, spread, rest) or (count > 1 and gap > _FAR * spread):
            yield f"{name} {extreme:g} ({count} {'time' if count == 1 else 'times'})"


def _is_mark(value: float, gap: float, spread: float, rest: np.ndarray) -> bool:
    """Whether a value is one that people write for a missing one, and stands apart from the others."""
    is_known = _NINES.fullmatch(f"{value:.10g}") is not None or value in _BINARY_LIMITS or abs(value) >= _HUGE
    return is_known and (gap > spread or (value < 0 <= rest.min()))
