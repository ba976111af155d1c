"""One segment of the prompt memory: a file per layer, and an index of what is in them.

A prompt lies at the same place of every layer's file: as many tokens long as it is, so nothing is padded. Its line in
the index is written after its data, in one piece, and holds a checksum of each layer: a line that is not whole, or
whose data is not what it says, is as good as absent. So nothing is lost or wrong after a kill, a crash of the machine,
or a full disk, and nobody has to wait for the disk.

Layer files have their full length from the start and no blocks (they are sparse), so that a reader maps them once.
"""

import json
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

_INDEX, _LOCK, _FACTS = "index.jsonl", "lock", "facts.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a prompt lies in its segment.

    Attributes:
        name: Digest of the prompt, hexadecimal.
        start: Place of its first token in each layer's file, tokens.
        tokens: Its length, tokens.
        checksums: CRC-32 of its data in each layer that is held, from the first.
    """

    name: str
    start: int
    tokens: int
    checksums: tuple[int, ...]

    def to_line(self) -> bytes:
        """Its line in the index."""
        values = {"prompt": self.name, "start": self.start, "tokens": self.tokens, "crc32": self.checksums}
        return json.dumps(values).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Entry | None":
        """The entry of a line; None if the line is not whole."""
        try:
            values = json.loads(line)
            entry = cls(values["prompt"], values["start"], values["tokens"], tuple(values["crc32"]))
        except (ValueError, KeyError, TypeError):
            return None
        numbers = (entry.start, entry.tokens, *entry.checksums)
        is_whole = isinstance(entry.name, str) and all(type(number) is int and number >= 0 for number in numbers)
        return entry if is_whole and entry.tokens else None


class Segment:
    """The files of one segment, as a reader sees them.

    Args:
        folder: Where they are.
        token_bytes: Bytes of a token's keys and values in one layer.
    """

    def __init__(self, folder: Path, token_bytes: int) -> None:
        self.folder, self._token_bytes = folder, token_bytes
        self._read, self._partial = 0, b""
        self._maps: dict[int, mmap.mmap | None] = {}

    def new_entries(self) -> Iterator[Entry]:
        """Entries that have been added since the last call."""
        try:
            with (self.folder / _INDEX).open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except OSError:
            return
        self._read += len(fresh)
        *lines, self._partial = (self._partial + fresh).split(b"\n")
        yield from (entry for line in lines if (entry := Entry.from_line(line)) is not None)

    def read(self, entry: Entry, layers: int) -> list[memoryview] | None:
        """A prompt's data in the first layers, one view each into the mapped file; None if it is not what was written.

        Args:
            entry: An entry of this segment.
            layers: Number of layers.
        """
        if len(entry.checksums) < layers:
            return None
        begin, end = entry.start * self._token_bytes, (entry.start + entry.tokens) * self._token_bytes
        views = []
        for layer in range(layers):
            mapped = self._map(layer)
            if mapped is None or end > len(mapped):
                return None
            view = memoryview(mapped)[begin:end]
            if zlib.crc32(view) != entry.checksums[layer]:
                return None
            views.append(view)
        return views

    def note_use(self) -> None:
        """Keep it from being removed next."""
        try:
            os.utime(self.folder / _INDEX)
        except OSError:
            return

    def _map(self, layer: int) -> mmap.mmap | None:
        if layer not in self._maps:
            try:
                with layer_file(self.folder, layer).open("rb+") as file:
                    self._maps[layer] = mmap.mmap(file.fileno(), 0)
            except (OSError, ValueError):
                return None
        return self._maps[layer]


class SegmentWriter:
    """The one writer of a segment, who holds its lock.

    Args:
        folder: Where it is or will be.
        token_bytes: Bytes of a token's keys and values in one layer.
        layers: Layers that are written.
        capacity: Tokens that a new segment has room for.

    Raises:
        OSError: If the disk refuses.
        filelock.Timeout: If another process writes it.
    """

    def __init__(self, folder: Path, token_bytes: int, layers: int, capacity: int) -> None:
        self.folder, self._token_bytes = folder, token_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(folder / _LOCK)
        self._lock.acquire(blocking=False)
        self._files: list[int] = []
        try:
            self._capacity = _settle_capacity(folder, capacity)
            reader = Segment(folder, token_bytes)
            self._next = max((entry.start + entry.tokens for entry in reader.new_entries()), default=0)
            for layer in range(layers):
                self._files.append(os.open(layer_file(folder, layer), os.O_RDWR | os.O_CREAT, 0o644))
                os.ftruncate(self._files[-1], self._capacity * token_bytes)
            self._index = os.open(folder / _INDEX, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._files.append(self._index)
            os.write(self._index, b"\n")  # ends a line that was cut off
        except BaseException:
            self._release()
            raise

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self._capacity - self._next

    def add(self, name: str, tokens: int, data: Sequence[bytes]) -> Entry:
        """Write a prompt: its data, then its line in the index.

        Args:
            name: Digest of the prompt.
            tokens: Its length, at most `room`.
            data: Its bytes in each layer.

        Raises:
            OSError: If the disk refuses; the prompt is then not in the segment.
        """
        entry = Entry(name, self._next, tokens, tuple(map(zlib.crc32, data)))
        for file, part in zip(self._files, data, strict=False):
            _write_all(file, part, entry.start * self._token_bytes)
        line = entry.to_line()
        if os.write(self._index, line) != len(line):
            raise OSError("the disk is full")
        self._next += tokens
        return entry

    def close(self) -> None:
        """Bring everything to the disk, so that nothing is written later, and let others write here."""
        try:
            for file in self._files:
                os.fsync(file)
        finally:
            self._release()

    def _release(self) -> None:
        while self._files:
            os.close(self._files.pop())
        self._lock.release()


def layer_file(folder: Path, layer: int) -> Path:
    """File of a layer, counted from 0."""
    return folder / f"layer{layer:03}.bin"


def new_segment_name() -> str:
    """A name that sorts by time and that no other process takes."""
    return f"{time.time_ns():020}-{secrets.token_hex(4)}"


def is_being_written(folder: Path) -> bool:
    """Whether a process holds a segment's lock."""
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return True
    lock.release()
    return False


def last_use(folder: Path) -> float:
    """Unix time at which a segment was written or read last; 0 where that is not known."""
    try:
        return (folder / _INDEX).stat().st_mtime
    except OSError:
        return 0.0


def bytes_on_disk(folder: Path, *, reserved: bool) -> int:
    """Bytes that a segment takes on the disk, or may take where its whole length is reserved."""
    total = 0
    for file in folder.iterdir():
        try:
            status = file.stat()
        except OSError:
            continue
        total += max(status.st_size, status.st_blocks * 512) if reserved else status.st_blocks * 512
    return total


def capacity_of(folder: Path) -> int | None:
    """Tokens that a segment was made for; None where that is not known."""
    try:
        return int(json.loads((folder / _FACTS).read_text())["capacity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _settle_capacity(folder: Path, capacity: int) -> int:
    """The capacity that the segment was made with; that of a new one is noted."""
    known = capacity_of(folder)
    if known is None:
        (folder / _FACTS).write_text(json.dumps({"capacity": capacity}))
    return capacity if known is None else known


def _write_all(file: int, data: bytes, place: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written
