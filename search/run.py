"""`python search/run.py`: searches the settings that train Time-LLM best on this machine."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from search.screen.interrupts import Interrupts
from search.setup.options import Options, parse
from search.tune.cluster import secrets_put_away, set_environment
from search.tune.worker_process import WORKER_COMMAND
from timellm.contract.columns import Status
from timellm.contract.errors import ExitStatus, InputError, error_words, refuse
from timellm.contract.words import shortened
from timellm.machine.launcher import check_alone, forget_group
from timellm.output import outlive_readers

if TYPE_CHECKING:
    from search.decide.ledger import Ledger
    from search.screen.terminal import Terminal
    from search.session import SearchEnd
    from search.setup.manifest import ManifestFile
    from search.setup.preparation import Preparation


def main(arguments: Sequence[str], worker_command: tuple[str, ...] = WORKER_COMMAND) -> int:
    """Search, and return the exit status.

    Args:
        arguments: The command line, without the program.
        worker_command: Program that trains.
    """
    try:
        options, given = parse(arguments)
        check_alone(os.environ, "A search", "Start it with python; --devices_per_trial N trains each trial on several.")
        forget_group()
        set_environment(options.address)
        return _search(options, given, worker_command)
    except InputError as error:
        return refuse(error)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return ExitStatus.INTERRUPTED


def _search(options: Options, given: set[str], worker_command: tuple[str, ...]) -> int:
    from search.screen.terminal import Terminal
    from search.setup.preparation import prepare, run_folder
    from search.setup.resumption import earlier_options

    try:
        folder = run_folder(options)
        if options.resume is not None:
            options = earlier_options(options, given, folder)
    except OSError as error:
        raise InputError(f"--runs_dir must be usable, got {shortened(options.runs_dir)!r}: {error.strerror}.") from None
    terminal = Terminal()
    with Interrupts() as interrupts:
        try:
            prepared = prepare(options, folder, load_search if not options.dry_run else lambda: None)
        except OSError as error:
            path = shortened(str(error.filename or ""))
            raise InputError(f"Every path must be usable, got {path!r}: {error.strerror}.") from None
        for note in prepared.notes:
            terminal.say(note)
        if interrupts.count:
            return ExitStatus.INTERRUPTED
        if options.dry_run:
            from search.screen.dry_run import show

            show(prepared, terminal)
            return ExitStatus.DONE
        return _run(prepared, terminal, interrupts, worker_command)


def load_search() -> None:
    """Import what a search runs on: it takes seconds, in which something else may be waited for."""
    import search.session
    import search.tune.tuning  # noqa: F401


def _run(prepared: "Preparation", terminal: "Terminal", interrupts: Interrupts, worker_command: tuple[str, ...]) -> int:
    from search.session import SearchEnd, Session
    from search.setup.resumption import leave_run, open_run

    folder = prepared.folder
    manifest, ledger = open_run(prepared)
    terminal.say(f"Run folder: {folder.path}")
    try:
        with secrets_put_away():
            ended = Session(prepared, manifest, ledger, terminal, worker_command).run(interrupts)
    except InputError:
        leave_run(folder, manifest, ledger)
        raise
    except KeyboardInterrupt:
        ended = SearchEnd(is_interrupted=True)
    except Exception as error:  # any error: what was measured still deserves a table and a report
        ended = SearchEnd(failure=error_words(error))
    if not folder.lock.exists():
        ended.failure = ended.failure or f"{folder.path} was deleted while the search ran"
    if ended.reason and not ended.is_interrupted and not ended.failure:
        terminal.say(f"The search ended, because {ended.reason}.")
    is_usable, problem = _conclude(prepared, manifest, ledger, terminal, ended, interrupts)
    failure = ended.failure or problem
    if failure:
        print(f"The search broke off: {failure}. Fix this, then continue with --resume {folder.name}.", file=sys.stderr)
    if ended.is_interrupted:
        return ExitStatus.INTERRUPTED
    if ended.refusal and not failure:
        print(f"{ended.refusal} Fix this, then continue with --resume {folder.name}.", file=sys.stderr)
        return ExitStatus.WRONG
    return ExitStatus.DONE if is_usable and not failure else ExitStatus.NOTHING


def _conclude(
    prepared: "Preparation",
    manifest: "ManifestFile",
    ledger: "Ledger",
    terminal: "Terminal",
    ended: "SearchEnd",
    interrupts: Interrupts,
) -> tuple[bool, str | None]:
    """Finish table, manifest and report however the search ended.

    Returns:
        Whether there is a usable result, and what went wrong here.
    """
    from search.screen.finish import finish

    is_whole = not ended.is_interrupted and not ended.failure and not ended.refusal
    try:
        with interrupts.held():
            ledger.write()
            manifest.update(ledger.rows, Status.FINISHED if is_whole else Status.INTERRUPTED)
        return finish(prepared.folder, terminal), None
    except OSError as error:
        return False, f"the run folder must be writable, but: {error}"
    except Exception as error:  # the table and the manifest are written before what may fail on them
        return False, error_words(error)


def command() -> NoReturn:
    """The command `timellm-search`."""
    outlive_readers()
    raise SystemExit(main(sys.argv[1:]))


if __name__ == "__main__":
    command()
