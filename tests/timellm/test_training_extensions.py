"""Loading of compiled extensions."""

import os
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from timellm.optimize.extensions import CPU_ADAM, VARIABLE, is_compiled, keep_compiled_code_apart, load_extensions


class Builder:
    """Stands for DeepSpeed's: notes what it finds when it is asked to load."""

    def __init__(self, *, compatible: bool = True) -> None:
        self.compatible, self.found = compatible, None

    def is_compatible(self) -> bool:
        return self.compatible

    def load(self, verbose: bool) -> None:
        folder = Path(os.environ[VARIABLE])
        (folder / "cpu_adam").mkdir(exist_ok=True)
        self.found = {path.name for path in (folder / "cpu_adam").iterdir()}
        self.folder = folder


@pytest.fixture
def own(monkeypatch, tmp_path):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "set, so that it is restored")
    monkeypatch.delenv(VARIABLE)


def test_a_lock_that_a_killed_process_left_is_removed(own):
    first, second = Builder(), Builder()
    load_extensions([first])
    (first.folder / "cpu_adam" / "lock").touch()
    (first.folder / "cpu_adam" / "cpu_adam.so").touch()
    load_extensions([second])
    assert second.found == {"cpu_adam.so"}


def test_one_process_loads_at_a_time(own):
    class Looking(Builder):
        def load(self, verbose: bool) -> None:
            with pytest.raises(Timeout):
                FileLock(Path(os.environ[VARIABLE]) / "in-use", timeout=0).acquire()
            self.found = set()

    builder = Looking()
    load_extensions([builder])
    assert builder.found == set()


def test_a_folder_that_the_user_names_is_left_as_it_is(own, monkeypatch, tmp_path):
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "lock").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    builder = Builder()
    load_extensions([builder])
    assert builder.found == {"lock"}


def test_what_cannot_be_compiled_here_is_left_to_whoever_needs_it(own):
    builder = Builder(compatible=False)
    load_extensions([builder])
    assert builder.found is None


@pytest.mark.parametrize(
    ("capability", "named", "folder"),
    [
        ("avx2", None, "avx2"),
        (None, None, None),
        ("", None, None),
        ("../x", None, None),
        ("avx2", "/own", "own"),
        ("avx2", "/tmp/torchinductor_me", "avx2"),
    ],
)
def test_compiled_code_lies_apart_where_a_cpu_is_held_to_less_than_it_has(
    tmp_path, monkeypatch, capability, named, folder
):
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path))
    for name, value in (("ATEN_CPU_CAPABILITY", capability), ("TORCHINDUCTOR_CACHE_DIR", named)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    keep_compiled_code_apart()
    found = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    assert (found and found.rsplit("/", 1)[1]) == folder


def test_it_is_known_what_has_been_compiled(own):
    assert not is_compiled(CPU_ADAM)
    builder = Builder()
    load_extensions([builder])
    (builder.folder / CPU_ADAM / f"{CPU_ADAM}.so").touch()
    assert is_compiled(CPU_ADAM)
