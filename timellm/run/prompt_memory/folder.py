"""The folder of the prompt memory: finds prompts in its segments, and keeps them all within one size limit."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import filelock

from timellm.run.prompt_memory.segment import (
    Entry,
    Segment,
    SegmentWriter,
    bytes_on_disk,
    capacity_of,
    is_being_written,
    last_use,
    new_segment_name,
)

MOST_SEGMENT_BYTES = 256 * 2**20
"""Size of a segment at most: the least that leaves at once."""

SEGMENTS = 4
"""Segments that the limit has room for at least, so that several processes can write at once."""

_DATA_SHARE = 0.95
"""Of a segment; the rest is for its index and for blocks that are not full."""

FREE_BYTES = 2**30
"""Bytes of the disk that are left free."""

_ROOM_LOCK = "lock"
_SECONDS_TO_WAIT = 30.0
"""For another process that makes room."""


class PromptFolder:
    """Prompts of one kind of model in a folder that all kinds share.

    Nothing here ends a run: what cannot be read is computed again, and a disk that refuses is not written any more.
    What this run reads or writes stays while it runs: a run that needs more than the limit keeps what came first, where
    letting it leave would only make room for what leaves before it is read again.

    Args:
        root: The folder of all kinds.
        key: Name of the kind's own folder in it.
        layers: Layers that are read and written.
        token_bytes: Bytes of a token's keys and values in one layer.
        limit_bytes: Size limit of the root; the segments that were used longest ago leave first.

    Attributes:
        problem: Why nothing is written any more; None while all is well.
    """

    def __init__(self, root: Path, key: str, layers: int, token_bytes: int, limit_bytes: int) -> None:
        self._root, self._folder = root, root / key
        self._layers, self._token_bytes, self._limit_bytes = layers, token_bytes, limit_bytes
        self._segments: dict[Path, Segment] = {}
        self._entries: dict[str, tuple[Segment, Entry]] = {}
        self._writer: SegmentWriter | None = None
        self._used: set[Path] = set()
        self.problem: str | None = None
        self.refresh()

    def __len__(self) -> int:
        """Prompts that are known to be here, with all layers that are asked for."""
        return len(self._entries)

    def refresh(self) -> None:
        """Learn what other processes have added."""
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.iterdir()):
                if path.is_dir() and path not in self._segments:
                    self._segments[path] = Segment(path, self._token_bytes)
        for segment in self._segments.values():
            for entry in segment.new_entries():
                if len(entry.checksums) >= self._layers:
                    self._entries[entry.name] = (segment, entry)

    def read(self, name: str, tokens: int) -> list[memoryview] | None:
        """A prompt's data in each layer, checked; None if it is not here.

        Args:
            name: Digest of the prompt.
            tokens: Its length.
        """
        segment, entry = self._entries.get(name, (None, None))
        if segment is None or entry is None:
            return None
        views = segment.read(entry, self._layers) if entry.tokens == tokens else None
        if views is None:
            del self._entries[name]  # damaged, or gone: it is computed again
            return None
        if segment.folder not in self._used:
            self._used.add(segment.folder)
            segment.note_use()
        return views

    def add(self, name: str, tokens: int, data: Sequence[bytes]) -> None:
        """Keep a prompt, if there is room for it.

        Args:
            name: Digest of the prompt.
            tokens: Its length.
            data: Its bytes in each layer.
        """
        if self.problem is not None:
            return
        try:
            writer = self._writer_for(tokens)
            if writer is None:
                self.problem = "neither its size limit nor the free disk has room for it"
                return
            entry = writer.add(name, tokens, data)
        except (OSError, filelock.Timeout) as error:
            self.problem = str(getattr(error, "strerror", None) or error)
            return
        self._used.add(writer.folder)
        segment = self._segments.setdefault(writer.folder, Segment(writer.folder, self._token_bytes))
        self._entries[name] = (segment, entry)

    def close(self) -> None:
        """Bring what was added to the disk."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _writer_for(self, tokens: int) -> SegmentWriter | None:
        if self._writer is not None and self._writer.room >= tokens:
            return self._writer
        self.close()
        self._root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self._root / _ROOM_LOCK).acquire(timeout=_SECONDS_TO_WAIT):
            self._writer = self._continue_segment(tokens) or self._begin_segment(tokens)
        return self._writer

    def _continue_segment(self, tokens: int) -> SegmentWriter | None:
        """The newest segment, if nobody writes it and it has room."""
        newest = max(_folders(self._folder), default=None)
        if newest is None or is_being_written(newest):
            return None
        whole = max(bytes_on_disk(newest, reserved=True), (capacity_of(newest) or 0) * self._token_bytes * self._layers)
        if not self._make_room(whole, spared=newest):
            return None
        writer = SegmentWriter(newest, self._token_bytes, self._layers, 0)
        if writer.room >= tokens:
            return writer
        writer.close()
        return None

    def _begin_segment(self, tokens: int) -> SegmentWriter | None:
        """A new segment, as large as the limit and the disk allow."""
        size = min(MOST_SEGMENT_BYTES, self._limit_bytes // SEGMENTS)
        capacity = int(_DATA_SHARE * size) // (self._token_bytes * self._layers)
        if capacity < tokens or not self._make_room(size):
            return None
        return SegmentWriter(self._folder / new_segment_name(), self._token_bytes, self._layers, capacity)

    def _make_room(self, size: int, spared: Path | None = None) -> bool:
        """Remove segments until one of so many bytes fits, those first that were used longest ago.

        Args:
            size: Bytes of the segment when it is full.
            spared: The segment, where it exists.

        Returns:
            Whether it fits.
        """
        segments = [path for kind in _folders(self._root) for path in _folders(kind) if path != spared]
        written = {path for path in segments if is_being_written(path)}
        sizes = {path: bytes_on_disk(path, reserved=path in written) for path in segments}
        more = size - (0 if spared is None else bytes_on_disk(spared, reserved=False))
        for path in [*sorted(set(segments) - written - self._used, key=last_use), None]:
            free = shutil.disk_usage(self._root).free - FREE_BYTES
            if sum(sizes.values()) + size <= self._limit_bytes and more <= free:
                return True
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
                del sizes[path]
        return False


def _folders(path: Path) -> list[Path]:
    try:
        return [each for each in path.iterdir() if each.is_dir()]
    except OSError:
        return []
