"""Tables of forecasts on disk, CSV or parquet by the file's name, written as they come and moved into place whole."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from timellm.contract.errors import InputError
from timellm.contract.files import move_into_place, temporary_name

SUFFIXES = (".csv", ".parquet")


class TableFile:
    """A table that grows by parts.

    Args:
        path: The file; its ending says CSV or parquet.
        notes: Sentences for the reader, kept in a parquet file's metadata.

    Raises:
        InputError: If the ending is another.
    """

    def __init__(self, path: Path, notes: tuple[str, ...] = ()) -> None:
        check_table_name(path)
        self.path, self._notes = path, notes
        self._temporary = temporary_name(path)
        self._writer: pq.ParquetWriter | None = None
        self._parts = 0
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, part: pd.DataFrame) -> None:
        """Write rows."""
        if self.path.suffix == ".csv":
            part.to_csv(self._temporary, mode="a" if self._parts else "w", header=not self._parts, index=False)
        else:
            table = pa.Table.from_pandas(part, preserve_index=False)
            if self._writer is None:
                schema = table.schema.with_metadata({**(table.schema.metadata or {}), "notes": json.dumps(self._notes)})
                self._writer = pq.ParquetWriter(self._temporary, schema)
            self._writer.write_table(table.cast(self._writer.schema))
        self._parts += 1

    def close(self) -> None:
        """End the file and move it to its name."""
        if self._writer is not None:
            self._writer.close()
        if self._parts:
            move_into_place(self._temporary, self.path)


def check_table_name(path: Path) -> None:
    """Refuse a file that is neither CSV nor parquet.

    Raises:
        InputError: If its ending is another, or it is a folder.
    """
    if path.suffix not in SUFFIXES or path.is_dir():
        raise InputError(f"out must be a file that ends in {' or '.join(SUFFIXES)}, got {path}.")


def write_table(path: Path, frame: pd.DataFrame, notes: tuple[str, ...] = ()) -> None:
    """Write a whole table."""
    file = TableFile(path, notes)
    file.add(frame)
    file.close()


def facts_beside(path: Path, facts: dict[str, Any]) -> Path:
    """Write what a table's reader must know into a JSON file of its name."""
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(facts, indent=2) + "\n")
    return beside
