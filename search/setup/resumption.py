"""Opens a run folder: a new one, or an earlier one whose search is continued."""

import dataclasses
import errno
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from search.decide.ledger import Ledger
from search.decide.propose.objective import Objective
from search.decide.propose.storage import set_damaged_aside
from search.decide.spend.fidelity import Fidelity
from search.decide.spend.plan import Plan
from search.decide.spend.spending import Spending
from search.setup.leftovers import remove_drafts
from search.setup.manifest import ManifestFile
from search.setup.options import Options
from search.setup.preparation import Preparation
from timellm.contract.columns import Status, knob_column
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import BackboneFacts, DataFacts, Manifest, SpaceRecord

_RAISED = {"time_budget", "num_trials"}
"""Flags that a resumed search may change the meaning of: its limits."""
_OF_THE_MACHINE = {"runs_dir", "name", "resume", "address", "dashboard", "dry_run", "trial_timeout", "confirm"}
"""Flags that belong to a session, not to the search."""


_TRIAL_ID = re.compile(r"t\d{1,9}")
_LOCKS: dict[Path, filelock.BaseFileLock] = {}
"""Locks that keep other searches out, by run folder."""
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What a file system without locks answers."""


def earlier_options(options: Options, given: set[str], folder: RunFolder) -> Options:
    """The options of a resumed search: those it was started with, except the ones that are given again.

    Args:
        options: The command line.
        given: Names of the flags on it.
        folder: The run folder.

    Raises:
        InputError: If a flag is given that would make it another search.
    """
    try:
        earlier = Options.from_dict(folder.read_manifest().options)
    except InputError as error:
        wrong = "; ".join(problem.rstrip(".") for problem in error.problems)
        raise InputError(f"{folder.manifest} must hold the options of a search, but {wrong}.") from None
    problems = []
    for name in given - _RAISED - _OF_THE_MACHINE:
        before, now = getattr(earlier, name), getattr(options, name)
        if before != now:
            problems.append(
                f"--resume continues the same search, but --{name} was {_spelt(before)} and is {_spelt(now)}. "
                "Start a new search for that, with another --name."
            )
    if problems:
        raise InputError(problems)
    anew = {name: getattr(options, name) for name in given & (_RAISED | _OF_THE_MACHINE)}
    return dataclasses.replace(earlier, **{"name": None, "dry_run": options.dry_run, **anew})


def open_run(prepared: Preparation) -> tuple[ManifestFile, Ledger]:
    """The manifest and the table of a search, new or resumed; the folder is this process's until it ends.

    Raises:
        InputError: If the folder cannot be written or is another search's, or the space of a resumed search has
            changed.
    """
    folder, options = prepared.folder, prepared.options
    description = {"options": options, "space": prepared.space, "facts": prepared.facts, "config": prepared.config}
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock(folder)
        remove_drafts(folder.path)
        if options.resume is None:
            if folder.manifest.exists():
                raise InputError(
                    f"--name must be new, but another search has just created {folder.path}. Use another name."
                )
            manifest = ManifestFile.create(folder, **description)  # type: ignore[arg-type]
            manifest.keep(notes=tuple(prepared.notes))
            manifest.update([])
            return manifest, Ledger(folder, options.time_weight)
        manifest = ManifestFile(folder, folder.read_manifest())
        _require_same(manifest.values, prepared)
        manifest.describe(**description)  # type: ignore[arg-type]
        with warnings.catch_warnings(record=True) as caught:
            ledger = Ledger.reopen(folder, options.time_weight)
        _require_rows(ledger, prepared)
        if said := list(dict.fromkeys(str(warning.message) for warning in caught)):
            _keep(said, manifest)
            ledger.write()  # both files hold the table again that the search continues
        objectives = len(Objective(options.objective, options.time_weight).names)  # type: ignore[arg-type]
        note = set_damaged_aside(folder.study, folder.name, objectives)
        if note and ledger.rows:
            _keep([note], manifest)
        manifest.update(ledger.rows)
        return manifest, ledger
    except OSError as error:
        raise InputError(f"The run folder must be writable, but {folder.path} is not: {error.strerror}.") from None


def _keep(notes: Sequence[str], manifest: ManifestFile) -> None:
    """Say what was found in a run folder, and keep it."""
    manifest.keep(notes=(*manifest.values.notes, *notes))
    for note in notes:
        print(note, file=sys.stderr)


def _require_rows(ledger: Ledger, prepared: Preparation) -> None:
    """Refuse a table whose rows cannot be continued: another's, or edited.

    Raises:
        InputError: With all that is wrong.
    """
    names = [*prepared.space.fixed, *(knob.name for knob in prepared.space.knobs)]
    lacking = [name for name in names if any(knob_column(name) not in row for row in ledger.rows)]
    foreign = [str(row["trial_id"]) for row in ledger.rows if not _TRIAL_ID.fullmatch(str(row["trial_id"]))]
    problems = [f"it has no column {', '.join(map(knob_column, lacking))}"] if lacking else []
    problems += [f"trial_id must be like t0001, got {', '.join(foreign[:5])}"] if foreign else []
    if problems:
        raise InputError(f"The trials table of {prepared.folder.path} cannot be continued: {'; '.join(problems)}.")


def earlier_plan(manifest: Manifest, folder: RunFolder) -> Plan | None:
    """The plan of an earlier session, or None where it came to none.

    Args:
        manifest: What was planned.
        folder: The run folder.

    Raises:
        InputError: If the manifest holds a plan that no search has written.
    """
    if manifest.fidelity is None:
        return None
    expected = manifest.expected
    fidelity = {name: value for name, value in manifest.fidelity.to_dict().items() if value is not None}
    spending = None
    try:
        if manifest.clocks == "apart":
            spending = Spending(**(expected.spending or Spending.unknown().to_dict()))
        earlier = Fidelity(**fidelity)
    except TypeError as error:
        said = str(error).removeprefix("Fidelity.__init__() ").removeprefix("Spending.__init__() ")
        raise InputError(f"The plan in {folder.manifest} must be a search's own, but {said}.") from None
    return Plan(
        fidelity=earlier,
        trial_seconds=expected.baseline_seconds,
        trials=expected.trials,
        spending=spending,
    )


def leave_run(folder: RunFolder, manifest: ManifestFile, ledger: Ledger) -> None:
    """Leave a search that could not begin: the name of a new one is free again, an earlier one can be resumed."""
    if ledger.rows or manifest.elapsed_before:
        manifest.update(ledger.rows, Status.INTERRUPTED)
    else:
        folder.manifest.unlink(missing_ok=True)


def lock(folder: RunFolder) -> None:
    """Keep other searches out of a run folder for as long as this process lives.

    Raises:
        InputError: If another search runs there.
    """
    if (earlier := _LOCKS.pop(folder.path, None)) is not None:
        earlier.release()
    # A lock of the kernel ends with its process, killed or not; a marker file in its place could outlive it.
    held = filelock.FileLock(folder.lock, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        held.acquire()
    except filelock.Timeout:
        raise InputError(
            f"A run folder belongs to one search, but another search is running in {folder.path}. "
            "Wait until it ends, or end it first."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    _LOCKS[folder.path] = held


def _require_same(earlier: Manifest, prepared: Preparation) -> None:
    """Refuse a search whose space, task, data or language model are not the earlier ones."""
    problems = []
    pairs = {
        "the space": (earlier.space.to_dict(), SpaceRecord.from_dict(prepared.space.to_dict()).to_dict()),
        "the settings": (_completed(earlier.run_config), prepared.config.to_dict()),
        "the data": (earlier.data.checksum, DataFacts.from_dict(prepared.facts["data"]).checksum),
        "the language model": (earlier.backbone.checksum, BackboneFacts.from_dict(prepared.facts["backbone"]).checksum),
    }
    for what, (before, after) in pairs.items():
        problems += [f"{what} differs in {change}" for change in _differences(before, after)]
    if problems:
        raise InputError(
            f"--resume {prepared.folder.name} needs the same search, but {'; '.join(problems)}. "
            "Undo the change, or start a new search with another --name."
        )


def _completed(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings, with the default of each that did not exist when they were written: it was computed that way."""
    return {**RunConfig().to_dict(), **settings} if settings else None


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Each place where two JSON values differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}" if path else str(name))
    elif _is_named(before) and _is_named(after):
        named = [{item["name"]: item for item in items} for items in (before, after)]
        yield from _differences(named[0], named[1], path)
    elif before != after:
        yield f"{path or 'its value'}: it was {_spelt(before)} and is {_spelt(after)}"


def _is_named(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(item, dict) and "name" in item for item in items)


def _spelt(value: Any) -> str:
    if value is None:
        return "absent"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
