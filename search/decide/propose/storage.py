"""The SQLite file of a study: opened, and set aside where it is damaged."""

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.study import StudyDirection

_SECONDS_TO_WAIT = 60


def set_damaged_aside(path: Path, name: str, objectives: int) -> str | None:
    """Move a file that is not a sound study out of the way, so that the study is rebuilt from the table.

    Args:
        path: The file.
        name: Name of the study, that of its run folder.
        objectives: How many the study has, each to be minimised.

    Returns:
        What was done, in words; None if the file holds the study and all of it can be read.
    """
    if not os.path.lexists(path):
        return f"{path.name} is missing; the study is rebuilt from the table."
    try:
        names = _sound_studies(path, objectives)
    except Exception:  # SQLite's, SQLAlchemy's, Optuna's, and what each makes of values that are not its own
        names = None
    if names is None:
        aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(3)}")
        path.rename(aside)
        for more in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + more).unlink(missing_ok=True)
        return f"{path.name} is damaged and was moved to {aside.name}; the study is rebuilt from the table."
    if name not in names:
        return f"{path.name} holds no study of the name {name}; the study is rebuilt from the table."
    return None


def _sound_studies(path: Path, objectives: int) -> list[str] | None:
    """Names of a file's studies; None where it is not an ordinary file, or a study is not a search's own.

    Raises:
        Exception: Where SQLite or Optuna cannot read the file.
    """
    if not path.is_file():
        return None
    with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)) as connection:
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            return None
        connection.execute("SELECT count(*) FROM studies, trials, trial_values, version_info").fetchone()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    storage = open_storage(path)
    try:
        studies = storage.get_all_studies()
        trials = [trial for study in studies for trial in storage.get_all_trials(study._study_id, deepcopy=False)]
        is_own = all(study.directions == [StudyDirection.MINIMIZE] * objectives for study in studies)
        is_own = is_own and all(
            isinstance(trial.user_attrs.get("settings", {}), dict)
            and all(isinstance(trial.user_attrs.get(key, ""), str) for key in ("trial_id", "source", "state"))
            for trial in trials
        )
        return [study.study_name for study in studies] if is_own else None
    finally:
        optuna.logging.set_verbosity(verbosity)
        storage.remove_session()
        storage.engine.dispose()


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
