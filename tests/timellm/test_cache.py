from pathlib import Path

import pytest

from timellm.cache import cache_dir
from timellm.contract.errors import InputError


def test_cache_folder_is_named_by_the_environment_and_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert cache_dir().is_dir()


def test_cache_folder_is_below_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIMELLM_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "timellm"


def test_cache_that_cannot_be_created_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TIMELLM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"must be a folder that can be written.*TIMELLM_CACHE_DIR"):
        cache_dir()


def test_cache_of_a_user_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELLM_CACHE_DIR", "~nosuchuser/cache")
    with pytest.raises(InputError, match=r"got ~nosuchuser/cache .*TIMELLM_CACHE_DIR"):
        cache_dir()


def test_cache_folder_is_absolute_when_named_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIMELLM_CACHE_DIR", "here")
    assert cache_dir() == tmp_path / "here"


def test_cache_folder_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TIMELLM_CACHE_DIR", "~/there")
    assert cache_dir() == tmp_path / "there"
