"""Which rows of a table may be compared, and what is said about the others."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from results.analysis.pareto import average_repeats, comparable, front_of, references_of
from timellm.contract.columns import BASELINE, FIDELITY, SECONDS_PER_EPOCH, State


def main_fidelity(df: pd.DataFrame) -> pd.DataFrame:
    """All rows of the fidelity that holds most complete rows; of several such the one with most training windows.

    Args:
        df: A trials table.

    Returns:
        Those rows, failed ones included. Rows that failed before their fidelity was known belong to every one. A
        table without complete rows is returned whole.
    """
    rows = comparable(df)
    if rows.empty:
        return df
    counts = rows.groupby(list(FIDELITY), dropna=False).size().rename("rows").reset_index()
    best = counts.sort_values(["rows", "train_samples", "val_samples"], na_position="first").iloc[-1]
    return rows_of_fidelity(df, best)


def rows_of_fidelity(df: pd.DataFrame, fidelity: pd.Series) -> pd.DataFrame:
    """The rows of one fidelity, failed ones included; those that failed before theirs was known belong to every one.

    Args:
        df: A trials table.
        fidelity: The columns of `timellm.contract.columns.FIDELITY`, such as a row of the table.
    """
    same = pd.Series(True, index=df.index)
    for name in FIDELITY:
        same &= df[name].isna() if pd.isna(fidelity[name]) else df[name].eq(fidelity[name]).fillna(False)
    unknown = df[list(FIDELITY)].isna().all(axis=1) & ~df.index.isin(comparable(df).index)
    return df[(same | unknown).to_numpy(dtype=bool)]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Compared:
    """A table's rows that may be compared with each other; each view of them is computed once and handed on."""

    trials: pd.DataFrame
    """Every row."""
    main: pd.DataFrame
    """Rows of the main fidelity, failed ones included."""
    configurations: pd.DataFrame
    """Complete rows of the main fidelity, repeats averaged."""
    timed: pd.DataFrame
    """Configurations whose time is known: the complete ones, and those that were timed only, with one repeat."""
    references: pd.DataFrame
    """What ratios refer to, as `results.analysis.pareto.reference_rows` gives it; empty without a complete trial."""
    front: pd.DataFrame
    """The Pareto front of the configurations, from fast to slow."""

    @classmethod
    def of(cls, trials: pd.DataFrame) -> "Compared":
        """The views of a trials table."""
        main = main_fidelity(trials)
        configurations = average_repeats(main)
        return cls(
            trials=trials,
            main=main,
            configurations=configurations,
            timed=_timed(main, configurations),
            references=references_of(configurations),
            front=front_of(configurations),
        )

    @property
    def baseline(self) -> pd.Series:
        """The baseline's timed row; empty where it was not timed."""
        found = self.timed[(self.timed["source"] == BASELINE).to_numpy(dtype=bool)]
        return found.iloc[0] if len(found) else pd.Series(dtype=object)

    @property
    def reference(self) -> pd.Series:
        """The row that ratios refer to: of complete trials, or else the timed baseline; empty without either."""
        return self.references.iloc[0] if len(self.references) else self.baseline


def compared(table: pd.DataFrame | Compared) -> Compared:
    """The views of a trials table, computed unless they are there already."""
    return table if isinstance(table, Compared) else Compared.of(table)


def _timed(main: pd.DataFrame, complete: pd.DataFrame) -> pd.DataFrame:
    seconds = main[SECONDS_PER_EPOCH].astype("float64").to_numpy()
    timed = (main["state"] == State.STOPPED_EARLY).to_numpy() & np.isfinite(seconds) & (seconds > 0)
    if not timed.any():
        return complete
    missing = pd.Series(pd.NA, index=main.index[timed], dtype="Float64")
    only = main[timed].assign(repeats=1, confirmations=0, val_mse_std=missing, seconds_per_epoch_std=missing)
    return pd.concat([complete, only]).sort_index() if len(complete) else only


def fidelity_words(df: pd.DataFrame) -> str:
    """The fidelity of the first complete row in words, such as `512 training and 256 validation windows, projected`."""
    rows = comparable(df)
    if rows.empty:
        return "no complete trial"
    first = rows.iloc[0]
    train, validation = (
        "all" if pd.isna(first[name]) else f"{int(first[name]):,}" for name in ("train_samples", "val_samples")
    )
    kind = "projected" if pd.notna(first["is_projected"]) and first["is_projected"] else "measured whole"
    return f"{train} training and {validation} validation windows, {kind}"
