"""How the command of a search ends; the search itself is played, except in slow tests."""

import dataclasses
import io
import shutil
import signal
import sys

import pytest

from results import RunFolder, load_trials
from search.run import main
from search.screen.terminal import Terminal
from search.session import SearchEnd, Session
from search.setup import preparation
from search.setup.options import parse
from tests.search.searching import kill_tree, processes, search, start, workers
from tests.waiting import wait_for

ARGUMENTS = ("--space", "smoke", "--name", "n", "--fidelity", "64")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    options, _ = parse([*ARGUMENTS, "--runs_dir", str(tmp_path_factory.mktemp("runs"))])
    return preparation.prepare(options, preparation.run_folder(options))


@pytest.fixture
def command(tmp_path, monkeypatch, prepared):
    """Runs the command; what its search does is given."""

    def run(play) -> tuple[int, RunFolder]:
        folder = RunFolder(tmp_path / "n")
        monkeypatch.setattr(Session, "run", lambda session, interrupts: play(folder, interrupts))
        monkeypatch.setattr(preparation, "prepare", lambda *given: dataclasses.replace(prepared, folder=folder))
        return main([*ARGUMENTS, "--runs_dir", str(tmp_path)]), folder

    return run


def test_a_refused_baseline_is_one_line_and_status_2(command, capsys):
    status, folder = command(
        lambda folder, interrupts: SearchEnd(refusal="The baseline cannot be trained: no weights.")
    )
    assert status == 2
    said = capsys.readouterr().err
    assert said == "The baseline cannot be trained: no weights. Fix this, then continue with --resume n.\n"
    assert folder.read_manifest().status == "interrupted"


@pytest.fixture
def hang_up():
    """SIGHUP as a shell leaves it, however these tests were started; gives a handler to set."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_a_search_under_nohup_outlives_its_terminal(command, hang_up):
    hang_up(signal.SIG_IGN)

    def play(folder, interrupts):
        signal.raise_signal(signal.SIGHUP)
        return SearchEnd(is_interrupted=interrupts.count > 0)

    assert command(play)[1].read_manifest().status != "interrupted"


@pytest.mark.usefixtures("hang_up")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_search_in_good_order(command, number):
    reasons = []

    def play(folder, interrupts):
        interrupts.tell(reasons.append)
        signal.raise_signal(number)
        return SearchEnd(is_interrupted=interrupts.count > 0)

    status, folder = command(play)
    assert (status, reasons) == (130, [False])
    assert folder.read_manifest().status == "interrupted"


def test_a_run_folder_that_was_deleted_is_a_failure(command, capsys):
    def play(folder, interrupts):
        shutil.rmtree(folder.path)
        return SearchEnd()

    status, _ = command(play)
    assert status == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "was deleted while the search ran" in line


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_closed_standard_output_is_written_to_no_more(monkeypatch, is_closed):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream if is_closed else None)
    terminal = Terminal()
    terminal.say("a")
    terminal.say("b")


@pytest.mark.slow
def test_a_search_whose_baseline_is_refused_ends_and_goes_on_once_that_is_mended(tmp_path):
    arguments = ("--fidelity", "64", "--num_trials", "2")
    ended = search(tmp_path, "--name", "b", *arguments, faults={"batch_size=8": "bad input"}, seconds=0.05)
    assert ended.returncode == 2, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("The baseline cannot be trained: seq_len must fit the split.")
    assert line.endswith("--resume b.")
    folder = RunFolder(tmp_path / "b")
    assert folder.read_manifest().status == "interrupted"
    assert list(load_trials(folder.path)["state"]) == ["interrupted"]
    again = search(tmp_path, "--resume", "b", seconds=0.05)
    assert again.returncode == 0, again.stderr
    assert list(load_trials(folder.path)["state"]) == ["complete", "complete"]


def disturbed(tmp_path, name, disturb, seconds) -> tuple[int, str]:
    """Exit status and stderr of a search that something is done to once it trains.

    Args:
        disturb: Takes the search's process and its run folder.
    """
    process = start(tmp_path, "--name", name, "--fidelity", "64", "--num_trials", "3", seconds=seconds)
    folder = RunFolder(tmp_path / name)
    try:
        wait_for(lambda: list(workers(folder.path)) or process.poll() is not None)
        disturb(process, folder)
        _, errors = process.communicate(timeout=120)
    finally:
        kill_tree(process.pid)
    return process.returncode, errors


@pytest.mark.slow
def test_a_terminal_that_hangs_up_ends_a_search_in_good_order(tmp_path):
    status, errors = disturbed(tmp_path, "hup", lambda process, folder: process.send_signal(signal.SIGHUP), seconds=3)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert RunFolder(tmp_path / "hup").read_manifest().status == "interrupted"
    assert set(load_trials(tmp_path / "hup")["state"]) <= {"complete", "interrupted"}
    wait_for(lambda: not list(processes(tmp_path)), 30)


@pytest.mark.slow
def test_a_search_whose_folder_is_deleted_ends_in_one_line_and_not_with_status_0(tmp_path):
    def delete(process, folder):
        shutil.rmtree(folder.path, ignore_errors=True)

    status, errors = disturbed(tmp_path, "gone", delete, seconds=2)
    assert status == 1, errors
    (line,) = errors.splitlines()
    assert "deleted" in line
