import contextlib
import io
import sys
from types import SimpleNamespace

import pytest

from timellm import progress
from timellm.progress import ProgressBar
from timellm.run.progress import ProgressPrinter

EVENTS = [
    {"event": "training", "startup_seconds": 1.25, "steps": 100},
    *({"event": "progress", "step": step, "train_loss": 0.5} for step in range(1, 51)),
    {"event": "validation", "samples": 3200, "val_mse": 0.25, "val_mae": 0.5},
    *({"event": "progress", "step": step, "train_loss": 0.5} for step in range(51, 101)),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@contextlib.contextmanager
def on_a_terminal():
    """A terminal in place of stderr."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(Terminal()) as terminal:
        patch.setenv("TERM", "xterm")
        yield terminal


def run_of(events, clock):
    printer = ProgressPrinter()
    for event in events:
        clock.now += 1.0
        printer(event)
    printer.close()


@pytest.mark.parametrize("forced", [False, True])
def test_a_file_gets_a_plain_line_now_and_then(capsys, clock, monkeypatch, forced):
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    run_of(EVENTS, clock)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "start-up took 1.2 s, 100 steps to go",
        "step 1/100, train loss 0.5000, 1 min 39 s left",
        "step 31/100, train loss 0.5000, 1 min 09 s left",
        "after 3200 windows: val mse 0.250000, val mae 0.500000",
        "step 60/100, train loss 0.5000, 41 s left",
        "step 90/100, train loss 0.5000, 10 s left",
    ]


def test_a_terminal_gets_one_bar_that_is_gone_at_the_end(clock):
    with on_a_terminal() as terminal:
        run_of(EVENTS, clock)
        assert sys.stderr is terminal
    text = terminal.getvalue()
    assert "step 100/100, train loss 0.5000, 0 s left" in text
    assert "start-up took 1.2 s, 100 steps to go\n" in text
    assert "after 3200 windows: val mse 0.250000, val mae 0.500000\n" in text
    assert text.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, and the bar's line is empty


def test_a_terminal_is_not_drawn_on_more_often_than_people_read(clock):
    with on_a_terminal() as terminal, ProgressBar(100_000) as bar:
        for done in range(1, 10_001):
            clock.now += 0.001
            bar.show(done, f"part {done}")
    assert 15 <= terminal.getvalue().count("left") <= 25


def test_standard_output_in_a_file_is_left_alone(clock, capsys):
    with on_a_terminal() as terminal, ProgressBar(10) as bar:
        bar.show(1, "part 1")
        print("result")
    assert capsys.readouterr().out == "result\n"
    assert "result" not in terminal.getvalue()


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_knows_no_control_codes_gets_lines(clock, monkeypatch, term):
    with on_a_terminal() as terminal:
        monkeypatch.setenv("TERM", term)
        run_of(EVENTS, clock)
    assert "\x1b" not in terminal.getvalue()
    assert terminal.getvalue().count("left\n") == 4
