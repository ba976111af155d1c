"""The SQLite file of a study: opened, and set aside where it is damaged."""

import contextlib
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

_SECONDS_TO_WAIT = 60


def set_damaged_aside(path: Path) -> str | None:
    """Move a file that is not a sound study out of the way, so that the study is rebuilt from the table.

    Returns:
        What was done, in words; None if the file is sound.
    """
    if not path.exists():
        return f"{path.name} is missing; the study is rebuilt from the table."
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as connection:
            if connection.execute("PRAGMA quick_check").fetchone() == ("ok",):
                connection.execute("SELECT count(*) FROM studies, trials, trial_values, version_info").fetchone()
                return None
    except sqlite3.Error:
        pass
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(3)}")
    path.rename(aside)
    for more in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + more).unlink(missing_ok=True)
    return f"{path.name} is damaged and was moved to {aside.name}; the study is rebuilt from the table."


def open_storage(path: Path) -> optuna.storages.RDBStorage:
    """A study's SQLite file, written ahead: a trial's dozen small commits then take milliseconds, not a second."""
    url = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SECONDS_TO_WAIT}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a reader keeps the mode as it is
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()
    return storage
