"""Token ids on disk, added as prompts are needed, by several processes at once.

An entry of the index says where a prompt's ids lie, how many there are, and a checksum of all of it. So a prompt is
there once its entry is, whatever was killed or lost while ids or index were written: an entry that does not fit what it
points to does not count.
"""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u4"), ("check", "<u4")])
"""Bytes before a prompt's ids in the file of ids, their number, and the checksum; all zero where there is no prompt."""
_INDEX, _IDS = "index.bin", "ids.bin"
_ENTRIES_PER_BLOCK = 1 << 20
_MOST_TOKENS = 1 << 20
"""No prompt has as many: a damaged entry that says so is not followed."""
BYTES_PER_PROMPT = _ENTRY.itemsize
"""On disk, beside its ids."""


class GrowingStore:
    """The files of one set of prompts.

    Nothing is mapped into memory: a run that reads all prompts of a wide table would seem to need as much memory as
    their files are large.

    Args:
        folder: Where the files are or will be; its name is the key.
        prompts: Number of prompts of the set.
        dtype: uint16 or uint32, wide enough for every id.

    Raises:
        OSError: If the folder cannot be written.
    """

    def __init__(self, folder: Path, prompts: int, dtype: type[np.unsignedinteger]) -> None:
        self._folder, self._prompts, self._dtype = folder, prompts, np.dtype(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            index, size = folder / _INDEX, prompts * _ENTRY.itemsize
            if not index.exists() or index.stat().st_size != size:
                # Never cut in place: another process may be reading it.
                index.unlink(missing_ok=True)
                with index.open("wb") as stream:
                    stream.truncate(size)
            (folder / _IDS).touch()
        self._open()

    def __len__(self) -> int:
        return self._prompts

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the files itself."""
        return GrowingStore, (self._folder, self._prompts, self._dtype.type)

    def find(self, rows: np.ndarray) -> list[np.ndarray | None]:
        """The ids of these prompts [n], each [tokens]; None for one that is not there, or not as it was written."""
        return [self._ids_of(int(row)) for row in rows]

    def add(self, rows: np.ndarray, ids: Sequence[Sequence[int]]) -> None:
        """Write prompts [n]; whoever reads one of them before that is over does not find it.

        Raises:
            OSError: If the disk refuses them.
        """
        parts = [np.asarray(row, dtype=self._dtype) for row in ids]
        entries = np.zeros(len(parts), dtype=_ENTRY)
        entries["length"] = [len(part) for part in parts]
        entries["check"] = [_check(int(row), part) for row, part in zip(rows, parts, strict=True)]
        with self._lock(), (self._folder / _IDS).open("ab") as stream:
            sizes = entries["length"].astype(np.uint64) * np.uint64(self._dtype.itemsize)
            entries["offset"] = stream.tell() + np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.uint64)
            stream.write(np.concatenate(parts).tobytes())
            stream.flush()
            with (self._folder / _INDEX).open("r+b") as index:
                for row, entry in zip(rows, entries, strict=True):
                    index.seek(int(row) * _ENTRY.itemsize)
                    index.write(entry.tobytes())

    def count(self) -> int:
        """Prompts that have an entry."""
        found = 0
        with (self._folder / _INDEX).open("rb") as stream:
            while len(block := np.fromfile(stream, dtype=_ENTRY, count=_ENTRIES_PER_BLOCK)):
                found += int(np.count_nonzero(block["length"]))
        return found

    def _lock(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self._folder.with_name(f"{self._folder.name}.lock"))

    def _open(self) -> None:
        self._index = os.open(self._folder / _INDEX, os.O_RDONLY)
        self._ids = os.open(self._folder / _IDS, os.O_RDONLY)

    def __del__(self) -> None:
        """Close the files."""
        for descriptor in (getattr(self, "_index", None), getattr(self, "_ids", None)):
            if descriptor is not None:
                os.close(descriptor)

    def _ids_of(self, row: int) -> np.ndarray | None:
        found = os.pread(self._index, _ENTRY.itemsize, row * _ENTRY.itemsize)
        if len(found) < _ENTRY.itemsize:
            return None
        entry = np.frombuffer(found, dtype=_ENTRY)[0]
        if not 0 < entry["length"] < _MOST_TOKENS:
            return None
        size = int(entry["length"]) * self._dtype.itemsize
        if int(entry["offset"]) + size > os.fstat(self._ids).st_size:
            return None
        content = os.pread(self._ids, size, int(entry["offset"]))
        ids = np.frombuffer(content, dtype=self._dtype)
        return ids if _check(row, ids) == entry["check"] else None


def _check(row: int, ids: np.ndarray) -> int:
    """CRC of a prompt's number and ids."""
    return zlib.crc32(ids.tobytes(), zlib.crc32(row.to_bytes(8, "little")))
