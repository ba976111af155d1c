import io
import re
import time

import pytest
from rich.console import Console

from search.decide.propose.study import Proposal
from search.decide.spend.limits import Limits
from search.screen.terminal import Terminal
from spaces import load_space

SPACE = load_space("smoke")


def row(number, seconds=100.0, mse=0.4, score=0.0, **changes):
    """A row of the trials table, as far as a terminal shows it."""
    settings = {f"config/{name}": value for name, value in SPACE.settings(SPACE.baseline).items()}
    return {
        **settings, "trial_id": f"t{number:04d}", "source": "sampler", "state": "complete",
        "seconds_per_epoch": seconds, "val_mse": mse, "speedup_vs_baseline": 100 / seconds, "peak_memory_gib": 1.0,
        "is_pareto": True, "joint_score": score, "error": None, **changes,
    }  # fmt: skip


def screen(**settings):
    """A terminal that keeps what it is written."""
    file = io.StringIO()
    return Terminal(Console(file=file, highlight=False, **{"width": 140, **settings})), file


def text(file):
    """What was written, without the codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


def test_a_file_gets_plain_lines_with_the_best_and_the_time_left():
    terminal, file = screen()
    rows = [row(1, source="baseline")]
    terminal.begin(SPACE, (), Limits(deadline=time.time() + 250, num_trials=4))
    terminal.ended(rows[0], rows)
    rows.append(row(2, 50.0, 0.41, -0.01, **{"config/precision": "bf16"}))
    terminal.ended(rows[1], rows)
    terminal.end()

    lines = file.getvalue().splitlines()
    assert "\x1b" not in file.getvalue()
    assert re.search(r"1 of 4 trials, 4 min \d\d s left; best so far t0001: 1\.00x, val MSE 0\.4000", lines[2])
    assert "precision=bf16" in lines[3]
    assert "2 of 4 trials" in lines[4]
    assert "best so far t0002: 2.00x, val MSE 0.4100" in lines[4]


def test_a_terminal_shows_what_runs_the_best_and_the_time_left():
    terminal, file = screen(force_terminal=True, height=30)
    terminal.begin(SPACE, (), Limits(deadline=time.time() + 250))
    terminal.started(Proposal(trial_id="t0001", source="baseline", settings={}))
    assert "t0001  baseline  running" in text(file)
    assert "0 trials, 4 min" in text(file)
    assert "none is complete yet" in text(file)
    rows = [row(1)]
    terminal.ended(rows[0], rows)
    terminal.end()

    assert "1 trial, 4 min" in text(file)
    assert "best so far t0001" in text(file)


def test_a_trial_that_is_beaten_loses_its_star():
    terminal, file = screen(force_terminal=True, height=30)
    first, second = row(1), row(2, 50.0, 0.39, -0.1)
    terminal.begin(SPACE)
    terminal.ended(first, [first])
    terminal.ended(second, [{**first, "is_pareto": False}, second])
    terminal.end()

    last = text(file).splitlines()[-3:]
    assert any(line.startswith("t0001 ") for line in last)
    assert any(line.startswith("t0002*") for line in last)


def test_failed_trials_count_but_are_never_the_best():
    terminal, file = screen()
    rows = [row(1, state="failed", error="It broke.", joint_score=None, val_mse=None)]
    terminal.begin(SPACE)
    terminal.ended(rows[0], rows)

    assert "It broke." in file.getvalue()
    assert "1 trial; none is complete yet" in file.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_summary_fits_one_screen(width):
    terminal, file = screen(force_terminal=True, width=width, height=24)
    front = [row(number, 100 - number, 0.3 + number / 1000) for number in range(40)]
    terminal.summary("Pareto front", front, ["", "A sentence that is long. " * 8, "Report: runs/x/report.html"])

    shown = text(file)
    assert sum(max(1, -(-len(line.rstrip()) // width)) for line in shown.splitlines()) <= 23
    assert "of 40 are shown" in shown
    assert "t0000*" in shown
    assert "t0039*" in shown


def test_a_file_gets_the_whole_front():
    terminal, file = screen()
    terminal.summary("Pareto front", [row(number) for number in range(40)], ["Done."])

    assert "are shown" not in file.getvalue()
    assert file.getvalue().count("t00") == 40
