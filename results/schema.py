"""The trials table as Arrow has it: each column's type, with its unit and description as metadata."""

import io
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from timellm.contract.columns import COLUMNS, DTYPES, RUN_COLUMN, Column, Kind, knob_columns, knob_name

UNIT, DESCRIPTION = b"unit", b"description"
"""Keys of a field's metadata; a column without a unit has no unit."""

_TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}
_STATE = pa.dictionary(pa.int32(), pa.string(), ordered=True)


def trials_schema(knobs: Mapping[str, Kind] | None = None) -> pa.Schema:
    """The schema of a trials table.

    Args:
        knobs: Kind of each knob's column, in their order, after the columns that every table has.
    """
    mine = [
        Column(name=name, kind=kind, description=f"Value of the knob {knob_name(name)}.")
        for name, kind in (knobs or {}).items()
    ]
    return pa.schema([_field(column) for column in (*COLUMNS, *mine)])


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A trials table as the content of a Parquet file.

    Args:
        frame: Typed as `typed_table` does; it may have the column `run`.
    """
    schema = trials_schema({name: _kind_of(frame[name]) for name in knob_columns(map(str, frame))})
    if RUN_COLUMN.name in frame:
        schema = schema.insert(0, _field(RUN_COLUMN))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    typed = table.cast(schema).replace_schema_metadata(table.schema.metadata)
    written = io.BytesIO()
    pyarrow.parquet.write_table(typed, written)
    return written.getvalue()


def _kind_of(column: pd.Series) -> Kind:
    return next(kind for kind, dtype in DTYPES.items() if kind != "text" and column.dtype == dtype)


def _field(column: Column) -> pa.Field:
    metadata = {DESCRIPTION: column.description.encode()}
    if column.unit:
        metadata[UNIT] = column.unit.encode()
    return pa.field(column.name, _STATE if column.name == "state" else _TYPES[column.kind], metadata=metadata)
