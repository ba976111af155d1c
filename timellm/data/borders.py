"""Where the training, validation and test rows of a data set lie: the published borders."""

from dataclasses import dataclass

from timellm.contract.config import RunConfig
from timellm.contract.datasets import DATA_SETS
from timellm.contract.errors import InputError


@dataclass(frozen=True, slots=True)
class Borders:
    """Row ranges [start, stop) of the splits; validation and test begin seq_len rows early, for their first input.

    Attributes:
        train: Rows that are trained on, shortened by `percent`.
        validation: Rows of the validation split.
        test: Rows of the test split.
        scaler: Rows that the scaler is fitted on: the training rows, whatever `percent` is.
    """

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]
    scaler: tuple[int, int]


def published_borders(config: RunConfig, rows: int) -> Borders:
    """Split `rows` rows as published: 12, 4 and 4 months of 30 days for ETT, 70, 10 and 20 % otherwise.

    Raises:
        InputError: If the data set has too few rows, or a split is shorter than seq_len + pred_len.
    """
    ends = DATA_SETS[config.data].split.ends(config.data, rows)
    _check_lengths(config, rows, ends)
    shortened = (ends[0] - config.seq_len) * config.percent // 100 + config.seq_len
    return Borders(
        train=(0, shortened),
        validation=(ends[0] - config.seq_len, ends[1]),
        test=(ends[1] - config.seq_len, ends[2]),
        scaler=(0, ends[0]),
    )


def _check_lengths(config: RunConfig, rows: int, ends: tuple[int, int, int]) -> None:
    seq_len, pred_len = config.seq_len, config.pred_len
    shortened = max(0, ends[0] - seq_len) * config.percent // 100 + seq_len
    lengths = {
        "training": min(ends[0], shortened),
        "validation": ends[1] - ends[0] + min(seq_len, ends[0]),
        "test": ends[2] - ends[1] + min(seq_len, ends[1]),
    }
    short = {name: length for name, length in lengths.items() if length < seq_len + pred_len}
    if not short:
        return
    share = f" at {config.percent} percent" if config.percent < 100 and "training" in short else ""
    found = ", ".join(f"{name} {length}" for name, length in short.items())
    raise InputError(
        f"Every split must hold seq_len + pred_len = {seq_len} + {pred_len} = {seq_len + pred_len} rows, "
        f"got {found} (with {seq_len} rows of input before validation and test) of {rows} rows in all{share}. "
        "Use a smaller --seq_len or --pred_len, or more rows."
    )
