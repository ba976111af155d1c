"""The last lines of a search."""

import io
import shlex
import subprocess

import pytest
from rich.console import Console

from search.screen.finish import finish
from search.screen.terminal import Terminal
from tests.results.synthetic import make_rows, make_run

ODD_NAMES = [
    "with spaces  two", "it's", 'a "quoted" one', "100%20 %s", "what?mode=ro", "$(touch planted) `touch planted`",
    "a&b;c|d", "[bold]red[/bold]", "new\\nline", "ünï", "-rf", "~", "a#b", "*",
]  # fmt: skip


@pytest.fixture
def recommended(tmp_path, monkeypatch):
    """Ends a search in a folder of a name, without its report; returns what is printed."""
    monkeypatch.setattr("search.screen.finish.write_report", lambda evidence: None)

    def run(name):
        folder = make_run(tmp_path / "runs" / name, make_rows(6))
        folder.recommended_command.parent.mkdir()
        file = io.StringIO()
        assert finish(folder, Terminal(Console(file=file)))
        folder.recommended_command.write_text("echo reached > reached.txt\n")
        return file.getvalue()

    return run


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_line_that_trains_the_pick_runs_in_a_shell_as_it_is_printed(recommended, tmp_path, name):
    (line,) = [line for line in recommended(name).splitlines() if line.startswith("Train it: ")]
    command = line.removeprefix("Train it: ")
    assert shlex.split(command)[0] == "bash"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "reached.txt").read_text() == "reached\n"
    assert not list(tmp_path.rglob("planted"))
