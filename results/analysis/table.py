"""The trials table on disk and as a DataFrame."""

import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import pandas as pd

from results.schema import to_parquet
from timellm.contract.columns import (
    BY_NAME,
    COLUMNS,
    DTYPES,
    RUN_COLUMN,
    STATES,
    Kind,
    is_knob_column,
    is_setting_name,
    knob_columns,
    knob_kind,
    knob_name,
)
from timellm.contract.errors import InputError, one_line
from timellm.contract.files import replace_files
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest

Path = str | os.PathLike[str]

MAX_IDS = 5
"""Repeated trial ids that an error names."""

_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Trial ids name folders and are written into files that are read and run."""
_MOST_INTEGER = 2**63
"""What a column of whole numbers cannot hold."""
_CSV_TIMES = "%Y-%m-%dT%H:%M:%S.%f+00:00"
_CSV_DIGEST = "trials_csv"
"""Attribute of the Parquet file: SHA-256 of the CSV file that was written with it."""


def write_trials(folder: RunFolder | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace trials.csv and trials.parquet; a failed write leaves the old files.

    Args:
        folder: The run folder. Its manifest, if it is there, tells the types of the knobs.
        rows: One mapping per trial: columns of `timellm.contract.columns` and `config/<knob>`. A column that a row
            leaves out, None, NaN and empty text are missing values.

    Raises:
        ValueError: For an unknown column, a value of the wrong type, or a trial_id missing or used twice.
        OSError: If the disk refuses.
    """
    folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    frame = typed_table(rows, _defaults_of(folder))
    csv = csv_text(frame).encode()
    frame.attrs[_CSV_DIGEST] = hashlib.sha256(csv).hexdigest()
    replace_files({folder.trials_parquet: to_parquet(frame), folder.trials_csv: csv})


def load_trials(paths: Path | Sequence[Path]) -> pd.DataFrame:
    """The trials of one or several runs, one row each, failed ones too.

    Args:
        paths: A run folder, or several.

    Returns:
        The columns of `timellm.contract.columns`, the knobs' columns and `run`, the name of the run. Text with few
        values is categorical (`state` ordered from complete to interrupted), numbers are nullable, times are UTC.
        `attrs["units"]` and `attrs["descriptions"]` map columns to text, `attrs["runs"]` the runs to their folders,
        `attrs["reference_points"]` the runs to the reference points of their hypervolume.

    Raises:
        InputError: If a folder is missing, is not a run folder, or its table cannot be read.
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise InputError("At least one run folder is needed, got none.")
    folders = [RunFolder(path) for path in several]
    manifests = [_manifest_of(folder) for folder in folders]
    names = _run_names(folders)
    frames = [_load_one(folder, manifest) for folder, manifest in zip(folders, manifests, strict=True)]
    frame = frames[0] if len(frames) == 1 else _joined(frames, _first_defaults(manifests))
    runs = [name for name, part in zip(names, frames, strict=True) for _ in range(len(part))]
    frame.insert(0, RUN_COLUMN.name, pd.Categorical(runs, categories=names))  # type: ignore[arg-type]
    known = {column.name: column for column in (RUN_COLUMN, *COLUMNS)}
    frame.attrs["units"] = {name: known[name].unit for name in frame if name in known and known[name].unit}
    frame.attrs["descriptions"] = {
        name: known[name].description if name in known else f"Value of the knob {knob_name(name)}."
        for name in map(str, frame)
    }
    frame.attrs["runs"] = {name: str(folder.path) for name, folder in zip(names, folders, strict=True)}
    frame.attrs["reference_points"] = {
        name: manifest.reference_point
        for name, manifest in zip(names, manifests, strict=True)
        if manifest.reference_point
    }
    return frame


def csv_text(frame: pd.DataFrame) -> str:
    """A trials table as the content of a CSV file."""
    return str(frame.to_csv(index=False, date_format=_CSV_TIMES))


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as `write_trials` takes them: missing values are None, the name of the run is left out."""
    plain = frame.drop(columns=RUN_COLUMN.name, errors="ignore").astype(object)
    rows = plain.where(plain.notna(), None).to_dict(orient="records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def typed_table(rows: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """A table with every column of `timellm.contract.columns` in its dtype.

    Args:
        rows: One mapping per trial, as for `write_trials`.
        defaults: The run configuration's defaults, which tell the types of the knobs.

    Raises:
        ValueError: As `write_trials`.
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    unknown = [name for name in names if name not in BY_NAME and not is_knob_column(name)]
    if unknown:
        raise ValueError(f"The trials table has no column {', '.join(unknown)}. Add it to timellm.contract.columns.")
    values = {name: [row.get(name) for row in rows] for name in [*BY_NAME, *knob_columns(names)]}
    frame = _typed(values, len(rows), defaults or {})
    _require_own_ids(frame)
    return frame


def _require_own_ids(frame: pd.DataFrame) -> None:
    """Refuse rows that cannot be told apart.

    Raises:
        ValueError: Naming the trial_id used twice and the number of rows without one.
    """
    ids = frame["trial_id"]
    odd = [value for value in ids.dropna() if not _TRIAL_ID.fullmatch(value)]
    if odd:
        shown = ", ".join(repr(value[:40]) for value in odd[:MAX_IDS])
        raise ValueError(f"A trial_id must be letters, digits, dots, dashes and underscores, got {shown}.")
    problems = []
    if ids.isna().any():
        problems.append(f"{ids.isna().sum()} without one")
    repeated = ids[ids.notna() & ids.duplicated()].unique().tolist()
    if repeated:
        shown = ", ".join(map(str, repeated[:MAX_IDS]))
        more = f" and {len(repeated) - MAX_IDS} more" if len(repeated) > MAX_IDS else ""
        problems.append(f"{shown}{more} used twice")
    if problems:
        raise ValueError(
            f"Every row needs a trial_id of its own, got {' and '.join(problems)}. Rename or remove these rows."
        )


def _typed(values: Mapping[str, Sequence[Any]], length: int, defaults: Mapping[str, Any]) -> pd.DataFrame:
    typed = {}
    for name, column in values.items():
        present = [None if _is_missing(value) else value for value in column]
        if name in BY_NAME:
            kind = BY_NAME[name].kind
        else:
            kind = knob_kind((value for value in present if value is not None), defaults.get(knob_name(name)))
        typed[name] = _series(name, present, kind)
    return pd.DataFrame(typed, index=pd.RangeIndex(length))


def _series(name: str, values: Sequence[Any], kind: Kind) -> pd.Series:
    """A column in its dtype.

    Raises:
        ValueError: If a value is of another kind, naming the column and the value.
    """
    convert = _CONVERT[kind]
    converted = []
    for value in values:
        try:
            converted.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"Column {name} must hold {_WORDS[kind]}, got {value!r}.") from None
    if name == "state":
        unknown = sorted({value for value in converted if value is not None} - set(STATES))
        if unknown:
            raise ValueError(f"state must be one of {', '.join(STATES)}, got {', '.join(unknown)}.")
        return pd.Series(pd.Categorical(converted, categories=list(STATES), ordered=True))
    if kind == "category":
        categories = sorted({value for value in converted if value is not None})
        return pd.Series(pd.Categorical(converted, categories=pd.Index(categories, dtype="str")))
    return pd.Series(converted, dtype=DTYPES[kind])


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value == "" or value != value


def _text(value: Any) -> str:
    """Text whose lines end in newlines alone: CSV readers take a carriage return for a row's end."""
    return str(value).replace("\r\n", "\n").replace("\r", "\n")


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or (not isinstance(value, str) and number != value) or abs(number) >= _MOST_INTEGER:
        raise ValueError(value)
    return number


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _boolean(value: Any) -> bool:
    word = str(value).lower()  # spreadsheets write TRUE
    if word not in ("true", "false"):
        raise ValueError(value)
    return word == "true"


def _time(value: Any) -> datetime:
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


_CONVERT: dict[Kind, Any] = {
    "text": _text,
    "category": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "time": _time,
}
_WORDS: dict[Kind, str] = {
    "text": "text",
    "category": "text",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "true or false",
    "time": "ISO 8601 times",
}


def _load_one(folder: RunFolder, manifest: Manifest) -> pd.DataFrame:
    """The table of a folder; if its two files were not written together, the one that was changed last.

    Raises:
        InputError: If neither file can be read.
    """
    defaults = manifest.run_defaults
    read: dict[FilePath, pd.DataFrame] = {}
    problems: list[str] = []
    for path in (folder.trials_parquet, folder.trials_csv):
        if not path.is_file() or (read and _is_unchanged(folder, read[folder.trials_parquet])):
            continue
        try:
            read[path] = _read(path, defaults)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"{path} cannot be read as a trials table: {one_line(error)}")
    if not read:
        if problems:
            raise InputError(problems)
        return typed_table([], defaults)
    path, note = _newest(list(read), read)
    if problems:
        note = f"{problems[0]}. {path.name} is used instead."
    if note:
        warnings.warn(note, stacklevel=3)
    frame = read[path]
    frame.attrs.clear()
    return frame


def _is_unchanged(folder: RunFolder, frame: pd.DataFrame) -> bool:
    """Whether the CSV file is the one that a table from the Parquet file was written with."""
    try:
        with folder.trials_csv.open("rb") as file:
            return frame.attrs.get(_CSV_DIGEST) == hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False


def _newest(paths: Sequence[FilePath], read: Mapping[FilePath, pd.DataFrame]) -> tuple[FilePath, str | None]:
    """Of two files with different tables the one that was changed last, and a sentence that says so."""
    if len(paths) == 1 or _are_equal(*(read[path] for path in paths)):
        return paths[0], None
    *_, other, path = sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.suffix == ".csv"))
    return path, f"{path} was edited: it differs from {other.name}. It was changed last, so it is used."


def _are_equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    return set(one) == set(other) and one.equals(other[list(one)])


def _read(path: FilePath, defaults: Mapping[str, Any]) -> pd.DataFrame:
    """The table of one file, with every column.

    Raises:
        ValueError: If the file is not such a table.
        OSError: If it cannot be read.
    """
    raw = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    values = {str(name): raw[name].astype(object).tolist() for name in raw}
    odd = [name for name in knob_columns(values) if not is_setting_name(knob_name(name))]
    if odd:
        raise ValueError(f"a setting's name is letters, digits and underscores, got {', '.join(map(repr, odd))}")
    lacking = {name: [None] * len(raw) for name in BY_NAME if name not in values}
    frame = _typed(_ordered({**values, **lacking}), len(raw), defaults)
    _require_own_ids(frame)
    frame.attrs[_CSV_DIGEST] = raw.attrs.get(_CSV_DIGEST)
    return frame


def _ordered(values: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values[name] for name in [*BY_NAME, *knob_columns(values)]}


def _read_csv(path: os.PathLike[str]) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")


def _manifest_of(folder: RunFolder) -> Manifest:
    if folder.manifest.is_file() or not (folder.trials_csv.is_file() or folder.trials_parquet.is_file()):
        return folder.read_manifest()
    return Manifest()


def _defaults_of(folder: RunFolder) -> Mapping[str, Any]:
    return folder.read_manifest().run_defaults if folder.manifest.is_file() else {}


def _first_defaults(manifests: Sequence[Manifest]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for manifest in reversed(manifests):
        merged |= manifest.run_defaults
    return merged


def _joined(frames: Sequence[pd.DataFrame], defaults: Mapping[str, Any]) -> pd.DataFrame:
    """Several tables under each other, typed again so that categories and knobs agree."""
    names = [*BY_NAME, *dict.fromkeys(name for frame in frames for name in knob_columns(frame))]
    values = {
        name: [value for frame in frames for value in (frame[name] if name in frame else [None] * len(frame))]
        for name in names
    }
    return _typed(values, sum(map(len, frames)), defaults)


def _run_names(folders: Sequence[RunFolder]) -> list[str]:
    """The folders' names, or their whole paths where two share one.

    Raises:
        InputError: If a folder is named twice.
    """
    paths = [str(folder.path) for folder in folders]
    if len(set(paths)) < len(paths):
        raise InputError("Each run folder may be named once, got one of them twice.")
    names = [folder.name for folder in folders]
    return [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]
