import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from timellm.contract.errors import InputError
from timellm.prompts.cache import TokenStore, load_or_build

_IDS = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 3, 4, 5]]


class _Source:
    """Gives the ids and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Iterator[list[list[int]]]:
        self.asked += 1
        time.sleep(0.05)
        yield _IDS[:2]
        yield _IDS[2:]


@pytest.fixture
def source() -> _Source:
    return _Source()


def _build(folder: Path, source: _Source) -> TokenStore:
    return load_or_build(folder, source, dtype=np.uint16, pad_id=7)


def test_ids_are_padded_on_the_right(tmp_path: Path, source: _Source):
    store = _build(tmp_path / "key", source)
    assert store.ids.tolist() == [[1, 2, 3, 4, 7], [1, 2, 9, 7, 7], [1, 2, 3, 4, 5]]
    assert store.lengths.tolist() == [4, 3, 5]
    assert store.prefix_length == 2


def test_files_are_written_once(tmp_path: Path, source: _Source):
    first = _build(tmp_path / "key", source)
    second = _build(tmp_path / "key", source)
    assert source.asked == 1
    assert np.array_equal(first.ids, second.ids)


def test_runs_that_start_at_once_write_once(tmp_path: Path, source: _Source):
    stores: list[TokenStore] = []
    threads = [threading.Thread(target=lambda: stores.append(_build(tmp_path / "key", source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.asked == 1
    assert len(stores) == 4
    assert all(np.array_equal(store.ids, stores[0].ids) for store in stores)


@pytest.mark.parametrize("name", ["ids.npy", "lengths.npy", "facts.json"])
@pytest.mark.parametrize("damage", ["truncated", "removed", "altered"])
def test_damaged_file_is_written_again_and_said(
    name: str, damage: str, tmp_path: Path, source: _Source, caplog: pytest.LogCaptureFixture
):
    expected = _build(tmp_path / "key", source).ids.tolist()
    path = tmp_path / "key" / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-3] if damage == "truncated" else content[:-4] + b"\x01\x02\x03\x04")
    with caplog.at_level(logging.WARNING):
        assert _build(tmp_path / "key", source).ids.tolist() == expected
    assert source.asked == 2
    assert "is damaged" in caplog.text


def test_failed_write_leaves_nothing_behind(tmp_path: Path):
    def broken() -> Iterator[list[list[int]]]:
        yield _IDS
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        load_or_build(tmp_path / "key", broken, dtype=np.uint16, pad_id=7)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_a_killed_run_left_is_removed(tmp_path: Path, source: _Source):
    (tmp_path / "key.abc").mkdir()
    (tmp_path / "key.abc" / "flat.bin").write_bytes(b"123")
    _build(tmp_path / "key", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


def test_folder_that_cannot_be_written_names_the_variable(tmp_path: Path, source: _Source):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"must be writable, got: .* TIMELLM_CACHE_DIR"):
        _build(tmp_path / "file" / "key", source)


def test_ids_are_read_only_and_mapped(tmp_path: Path, source: _Source):
    store = _build(tmp_path / "key", source)
    with pytest.raises(ValueError, match="read-only"):
        store.ids[0, 0] = 1
    assert isinstance(store.ids, np.memmap)
