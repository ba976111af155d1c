"""Commands whose output nobody reads any more, or whose terminal has few letters."""

import io
import os
import sys

import pytest

from timellm.arguments import run_command
from timellm.contract.errors import InputError


def status_of(main) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(main, "x.py")
    return ended.value.code


def said_by(monkeypatch, main) -> tuple[int, str, str]:
    """Status, output and errors of a command on a terminal that lacks most letters."""
    made = [io.TextIOWrapper(io.BytesIO(), encoding="latin-1") for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), made, strict=True):
        monkeypatch.setattr(sys, name, stream)
    status = status_of(main)
    for stream in made:
        stream.flush()
    return status, *(stream.buffer.getvalue().decode("latin-1") for stream in made)


def test_a_reader_that_has_gone_does_not_end_the_work(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)
    done = []

    def main() -> int:
        for number in range(3):
            print("a line", flush=True)
            print("another", file=sys.stderr, flush=True)
            done.append(number)
        return 0

    assert status_of(main) == 0
    assert done == [0, 1, 2]
    stream.close()


def test_letters_that_a_terminal_lacks_are_escaped(monkeypatch):
    def main() -> int:
        print("4 – 5 °C, 天", flush=True)
        raise InputError("data must be one of –, got \udce9.")

    status, output, errors = said_by(monkeypatch, main)
    assert status == 2
    assert output == "4 \\u2013 5 °C, \\u5929\n"
    assert errors == "x.py: data must be one of \\u2013, got ?.\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_ends_outside_a_training_is_one_line(monkeypatch, error):
    def main() -> int:
        raise error

    status, _, said = said_by(monkeypatch, main)
    assert status == 1
    assert said.startswith("x.py: Memory ended: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/dev/null/folder/file", 2), ("/" + "n" * 300, 2), ("/dev/full", 1), ("/nowhere/at/all", 2)]
)
def test_a_path_that_cannot_be_used_is_one_line(monkeypatch, path, status):
    def main() -> int:
        with open(path, "w") as file:
            file.write("x" * 99_999)
        return 0

    found, _, said = said_by(monkeypatch, main)
    assert found == status
    assert said.count("\n") == 1
    assert "must be usable, but:" in said
