"""Commands whose output nobody reads any more, or whose terminal has few letters."""

import io
import os
import sys

import pytest

from timellm.arguments import run_command
from timellm.contract.errors import InputError


@pytest.fixture
def streams(monkeypatch):
    """Standard output and error, of an encoding that lacks most letters."""
    made = {name: io.TextIOWrapper(io.BytesIO(), encoding="latin-1") for name in ("stdout", "stderr")}
    for name, stream in made.items():
        monkeypatch.setattr(sys, name, stream)
    return made


def status_of(main) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(main, "x.py")
    return ended.value.code


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


def test_letters_that_a_terminal_lacks_are_escaped(streams):
    def main() -> int:
        print("4 – 5 °C, 天", flush=True)
        raise InputError("data must be one of –, got \udce9.")

    assert status_of(main) == 2
    assert streams["stdout"].buffer.getvalue() == b"4 \\u2013 5 \xb0C, \\u5929\n"
    streams["stderr"].flush()
    assert streams["stderr"].buffer.getvalue() == b"x.py: data must be one of \\u2013, got ?.\n"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_ends_outside_a_training_is_one_line(streams, error):
    def main() -> int:
        raise error

    assert status_of(main) == 1
    streams["stderr"].flush()
    said = streams["stderr"].buffer.getvalue().decode()
    assert said.startswith("x.py: Memory ended: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "status"), [("/dev/null/folder/file", 2), ("/" + "n" * 300, 2), ("/dev/full", 1), ("/nowhere/at/all", 2)]
)
def test_a_path_that_cannot_be_used_is_one_line(streams, path, status):
    def main() -> int:
        with open(path, "w") as file:
            file.write("x" * 99_999)
        return 0

    assert status_of(main) == status
    streams["stderr"].flush()
    said = streams["stderr"].buffer.getvalue().decode()
    assert said.count("\n") == 1
    assert "must be usable, but:" in said
