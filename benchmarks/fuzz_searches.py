"""Odd inputs of a search: TOML spaces, and run folders whose manifest or table is another's, edited or damaged."""

import contextlib
import copy
import functools
import json
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.fuzzing import Case, Maker
from results.commands import run as run_results
from search import run as search_run
from search.decide.ledger import Ledger
from search.decide.propose.objective import Objective
from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import SearchStudy, StudyOptions
from search.session import SearchEnd, Session
from search.setup.options import parse
from search.setup.preparation import Preparation, prepare, run_folder
from search.setup.resumption import open_run
from spaces import load_space
from timellm.contract.columns import Status
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Control, Expected, PlannedFidelity
from timellm.machine.environment import package_versions

_NAME = "odd"
_FLAGS = ("--num_trials", "6", "--no-dashboard")
_NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 0.5, -2.5, 2**70, float("nan"), float("inf"), "", " ", "x", "t0001", "nan", "auto",
    "9" * 400, "\x1b[31m", "\u202eabc", "$(touch hit)", "`touch hit`", "'; touch hit; '", "\n# x", "../../x", "é",
    "a|b", "\x00", [], {}, [1], ["a"], [None], {"a": 1}, {"$(touch hit)": 1}, [[]], {"": None}, "fp32", "none",
    "2020-13-01",
)  # fmt: skip
_STATEMENTS = (
    "DROP TABLE trials", "DROP TABLE version_info", "DELETE FROM studies", "DELETE FROM trials",
    "DELETE FROM alembic_version", "DELETE FROM trial_user_attributes", "DELETE FROM trial_values",
    "UPDATE version_info SET schema_version = 99", "UPDATE studies SET study_name = 'another'",
    "UPDATE trials SET state = 'RUNNING'", "UPDATE trials SET state = 'x'", "UPDATE trial_params SET param_value = 1e9",
    "UPDATE trial_params SET distribution_json = '{}'", "UPDATE trial_user_attributes SET value_json = '{'",
    "UPDATE trial_user_attributes SET value_json = '7'", "UPDATE trial_values SET value = NULL",
    "DELETE FROM trial_params", "DELETE FROM study_directions", "UPDATE study_directions SET direction = 'MAXIMIZE'",
    "INSERT INTO studies (study_name) VALUES ('second')", "ALTER TABLE trials RENAME COLUMN state TO was",
)  # fmt: skip
"""What a program that knows SQLite could do to a study."""
_LONG = (
    "x = " + "[" * 3000 + "]" * 3000, "a." * 5000 + "b = 1", f"[knobs.d_ff]\nvalues = {list(range(1, 20001))}",
    "\n".join(f"[plans.p{number}]\nbatch_size = 8" for number in range(500)), '[plans.""]\nbatch_size = 8',
    f"[knobs.d_model]\nvalues = [{'9' * 5000}]", f'[fixed]\nprompt_description = "{"x" * 50000}"',
)  # fmt: skip
"""What a space may end with."""
_PLACES: tuple[Callable[[Path], object], ...] = (
    Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero"),
)  # fmt: skip
"""What may stand in the place of a file."""


class Facts:
    """In place of the process that looks at machine, data and language model."""

    def __init__(self, *given: object) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        """A machine of two cores, a series of two columns and a small GPT-2."""
        return {
            "machine": {"cpu": "made up", "cores": 2, "memory_gib": 8.0, "gpus": [], "platform": "Linux"},
            "versions": package_versions(),
            "git_revision": None,
            "features": ["bf16", "causal", "compiler"],
            "environments": {str(threads): {} for threads in range(1, 9)},
            "slowdown": {"bf16": 1.5},
            "gflop_per_second": 100.0,
            "unusable_gpu": None,
            "gpu_memory_gib": None,
            "data": {
                "name": "nyc-weather",
                "checksum": "ab12",
                "columns": ["a", "b"],
                "notes": [],
                "windows": {"train": 4000, "validation": 500, "test": 1000},
            },
            "backbone": {
                "name": "smollm2-135m",
                "label": "smollm2-135m",
                "kind": "llama",
                "checksum": "cd34",
                "hidden_size": 576,
                "layers": 30,
                "vocabulary": 49152,
            },
        }


@contextlib.contextmanager
def _without_training() -> Iterator[None]:
    """Searches end where Ray would start: everything that is read from a run folder has been read by then."""

    def no_search(self: Session, *given: object) -> SearchEnd:
        return SearchEnd(reason="nothing is trained here")

    with (
        mock.patch("search.setup.preparation.FactFinder", Facts),
        mock.patch.object(Session, "_ray", return_value=contextlib.nullcontext()),
        mock.patch.object(Session, "_search", no_search),
    ):
        yield


@functools.cache
def _template() -> dict[str, bytes]:
    """The files of a sound run folder: a manifest, six rows of a table, errors."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, _without_training():
        prepared = _prepared(Path(folder))
        manifest, _ = open_run(prepared)
        ledger, study = Ledger(prepared.folder, 0.05), _study(prepared)
        for number in range(6):
            proposal = study.propose()
            assert proposal is not None
            row = ledger.record(proposal, prepared.run_config(proposal), _outcome(number))
            study.finish(proposal.trial_id, row)
        study.close()
        manifest.keep(
            controls=(Control(name="window mean", val_mse=0.9),),
            clocks="together",
            fidelity=PlannedFidelity(kind="samples", train_samples=32, val_samples=32),
            expected=Expected(baseline_seconds=3.0, trials=6),
        )
        manifest.update(ledger.rows, Status.INTERRUPTED)
        errors = [
            {"trial_id": row["trial_id"], "config": prepared.config.to_dict(), "seed": seed, "val_mse": 0.5, **_shown()}
            for row, seed in zip(ledger.rows, (2021, 2022), strict=False)
        ]  # fmt: skip
        prepared.folder.errors.write_text("".join(json.dumps(error) + "\n" for error in errors))
        return {path.name: path.read_bytes() for path in prepared.folder.path.iterdir() if path.is_file()}


def _shown() -> dict[str, Any]:
    window = {"channel": "a", "history": [0.0, 1.0], "truth": [1.0], "forecast": [0.5], "naive": [0.0]}
    return {"curve": [{"step": 4, "samples": 32, "val_mse": 0.6}], "examples": [{**window, "naive_name": "mean"}]}


def _prepared(runs: Path) -> Preparation:
    options, _ = parse(["--space", "smoke", "--runs_dir", str(runs), "--name", _NAME, "--fidelity", "32", *_FLAGS])
    return prepare(options, run_folder(options))


def _study(prepared: Preparation) -> SearchStudy:
    options = StudyOptions(
        name=_NAME,
        storage=prepared.folder.study,
        sampler=make_sampler("random", prepared.space, 0),
        objective=Objective("pareto", 0.05),
        limit_gib=8.0,
    )
    return SearchStudy(prepared.space, options)


def _outcome(number: int) -> dict[str, Any]:
    if number == 4:
        return {"state": "failed", "error": "The worker was killed."}
    seconds, error = 4.0 - 0.4 * number, 0.5 + 0.01 * number
    return {
        "state": "complete", "val_mse": error, "val_mae": error, "seconds_per_epoch": seconds, "is_projected": True,
        "seconds_per_epoch_low": seconds * 0.98, "seconds_per_epoch_high": seconds * 1.02, "peak_memory_gib": 1.5,
        "train_samples": 32, "val_samples": 32, "started_at": f"2026-03-01T09:3{number}:00+00:00",
    }  # fmt: skip


def make_manifest(draw: random.Random, folder: Path) -> Case:
    """A run folder whose manifest was edited, cut off or is another's; its rows are sound."""
    run = _copied(folder)
    manifest = json.loads(run.manifest.read_text())
    for _ in range(draw.choice([1, 1, 2, 4])):
        _change(draw, manifest)
    text = json.dumps(manifest)
    run.manifest.write_bytes(_damaged(draw, text.encode("utf-8", "surrogatepass")))
    return _case(draw, folder)


def make_table(draw: random.Random, folder: Path) -> Case:
    """A run folder whose tables or other files were edited, cut off or removed; its manifest is sound."""
    run = _copied(folder)
    for _ in range(draw.choice([1, 1, 2, 3])):
        draw.choice(_TABLE_FAULTS)(draw, run)
    return _case(draw, folder)


def make_toml(draw: random.Random, folder: Path) -> Case:
    """A space: one that comes with the product, with some keys and values changed."""
    raw = _raw_space(draw.choice(["smoke", "speed", "quality"]))
    for _ in range(draw.choice([0, 1, 1, 2, 4])):
        _change(draw, raw)
    text = _toml(raw)
    if draw.random() < 0.1:
        text += draw.choice(_LONG)
    if draw.random() < 0.2:
        text = draw.choice(["\ufeff", "[space]\n", "x = ", "[[space]]\n", "# é\n", "a.b = 1\n", "\x00"]) + text
    path = folder / "space.toml"
    if draw.random() < 0.03:
        draw.choice(_PLACES)(path)
    else:
        path.write_bytes(_damaged(draw, text.encode("utf-8", "surrogatepass")))
    words = ["--space", str(path), "--runs_dir", str(folder), "--dry_run", "--num_trials", "5"]
    words += draw.choice([[], [], ["--set", f"{draw.choice(['precision', 'batch_size', 'x'])}={draw.choice(_NASTY)}"]])
    return search_case(words)


def _case(draw: random.Random, folder: Path) -> Case:
    path = str(folder / _NAME)
    commands = (["report", path], ["table", path], ["front", path], ["importance", path], ["export", path])
    if draw.random() < 0.4:
        return search_case(["--resume", _NAME, "--runs_dir", str(folder), *draw.choice([[], ["--num_trials", "9"]])])
    words = draw.choice([*[["report", path]] * 3, *commands, ["compare", path, str(_copied(folder, "sound").path)]])
    return results_case(words)


def search_case(words: list[str]) -> Case:
    """What `search/run.py` does with these flags up to the point where it would train."""

    def command() -> int:
        with _without_training():
            return search_run.main(words)

    return Case(tuple(words), command)


def results_case(words: list[str]) -> Case:
    """What `results/report.py` does with these words."""
    return Case(tuple(words), lambda: run_results(words))


def sound_run(folder: Path) -> Path:
    """A run folder with nothing wrong."""
    return _copied(folder).path


def _copied(folder: Path, name: str = _NAME) -> RunFolder:
    run = RunFolder(folder / name)
    run.path.mkdir()
    for file, content in _template().items():
        (run.path / file).write_bytes(content)
    return run


def _change(draw: random.Random, values: dict[str, Any]) -> None:
    """Change, remove, add or move one value somewhere in a nested object."""
    place: Any = values
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw.choice(keys)
        if not isinstance(place[key], dict | list) or draw.random() < 0.3:
            break
        place = place[key]
    kind = draw.random()
    if kind < 0.6:
        place[key] = copy.deepcopy(draw.choice(_NASTY))
    elif kind < 0.75:
        del place[key]
    elif isinstance(place, dict):
        place[str(draw.choice(_NASTY))] = place[key]
    else:
        place.append(place[key])


def _damaged(draw: random.Random, content: bytes) -> bytes:
    if draw.random() < 0.9 or not content:
        return content
    cut = content[: draw.randrange(len(content))]
    return draw.choice([b"", cut, b"\xff" + content, content + content, b"[]", b"1"])


def _edit_csv(draw: random.Random, run: RunFolder) -> None:
    """Change a cell, a column, a row or the mark between cells of trials.csv, as by hand."""
    if not run.trials_csv.is_file():
        return
    rows = [line.split(",") for line in run.trials_csv.read_text(errors="replace").splitlines()]
    kind, mark = draw.randrange(6), ","
    if kind == 0 and len(rows) > 1:
        row = draw.choice(rows[1:])
        row[draw.randrange(len(row))] = _cell(draw)
    elif kind == 1:
        place = draw.randrange(len(rows[0]))
        rows = [row[:place] + row[place + 1 :] for row in rows]
    elif kind == 2:
        rows.insert(draw.randrange(len(rows) + 1), list(draw.choice(rows)))
    elif kind == 3:
        del rows[draw.randrange(len(rows))]
    elif kind == 4:
        rows[0][draw.randrange(len(rows[0]))] = draw.choice(["config/$(touch hit)", "trial_id", "config/", _cell(draw)])
    else:
        mark = draw.choice([";", "\t"])
    run.trials_csv.write_text("\n".join(mark.join(row) for row in rows) + "\n", errors="replace")
    if draw.random() < 0.3 and run.trials_parquet.is_file():
        run.trials_parquet.unlink()


def _cell(draw: random.Random) -> str:
    text = str(draw.choice(_NASTY))
    return " ".join(text.splitlines()).replace(",", " ")


def _damage_file(draw: random.Random, run: RunFolder) -> None:
    path = draw.choice([run.trials_csv, run.trials_parquet, run.errors, run.manifest, run.study])
    kind = draw.randrange(4)
    if path.is_dir():
        return
    if kind == 0:
        path.unlink(missing_ok=True)
    elif kind == 1 and path.is_file():
        content = path.read_bytes()
        path.write_bytes(content[: draw.randrange(len(content) + 1)])
    elif kind == 2:
        path.write_bytes(draw.choice([b"", b"\x00" * 64, b"{}\n[]\n", b"PAR1", b"a,b\n1,2\n"]))
    elif not path.exists():
        path.mkdir()


def _damage_study(draw: random.Random, run: RunFolder) -> None:
    """A study that is cut off, another's, of another version, or not one."""
    if not run.study.is_file():
        return
    kind, content = draw.randrange(6), bytearray(run.study.read_bytes())
    if kind == 0:
        for _ in range(draw.choice([1, 20, 2000])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        run.study.write_bytes(content)
    elif kind == 1:
        run.study.unlink()
        draw.choice(_PLACES)(run.study)
    elif kind == 2:
        run.study.with_name(f"{run.study.name}-{draw.choice(['wal', 'shm', 'journal'])}").write_bytes(
            bytes(content[:5000])
        )
    else:
        with contextlib.closing(sqlite3.connect(run.study)) as connection, contextlib.suppress(sqlite3.Error):
            connection.execute(draw.choice(_STATEMENTS))
            connection.commit()


def _damage_folder(draw: random.Random, run: RunFolder) -> None:
    """What stands in a run folder beside the files: of another type, or in their place."""
    path = draw.choice([run.trials, run.ray, run.plots, run.recommended, run.report, run.lock, run.recommended_command])
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        draw.choice([Path.mkdir, Path.touch, os.mkfifo, lambda one: one.symlink_to("/dev/full")])(path)


def _edit_errors(draw: random.Random, run: RunFolder) -> None:
    if not run.errors.is_file():
        return
    lines = [_json(line) for line in run.errors.read_text(errors="replace").splitlines()]
    for line in lines:
        if isinstance(line, dict):
            _change(draw, line)
    run.errors.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_TABLE_FAULTS: tuple[Callable[[random.Random, RunFolder], None], ...] = (
    _edit_csv, _edit_csv, _edit_csv, _damage_file, _edit_errors, _damage_study, _damage_study, _damage_folder,
)  # fmt: skip


@functools.cache
def _space_text(name: str) -> str:
    space = load_space(name)
    raw = {
        "space": {"name": space.name, "description": space.description},
        "search": dict(space.search),
        "fixed": dict(space.fixed),
        "knobs": {
            knob.name: {"low": knob.low, "high": knob.high, "log": knob.log} if knob.ends else {"values": knob.values}
            for knob in space.knobs
        },
        "baseline": dict(space.baseline),
        "plans": {plan: dict(values) for plan, values in space.plans.items()},
        "exclude": [{**rule.settings, "reason": rule.reason} for rule in space.exclusions],
    }  # fmt: skip
    return json.dumps(raw)


def _raw_space(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(_space_text(name))
    return raw


def _toml(values: Mapping[str, Any]) -> str:
    """A nested object as TOML: inline tables below the first level."""
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in values.items())


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return '""' if value is None else json.dumps(value)


KINDS: Mapping[str, Maker] = {"toml": make_toml, "manifest": make_manifest, "table": make_table}
"""Kinds of input of a search."""
