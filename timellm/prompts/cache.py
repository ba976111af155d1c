"""Token ids on disk: written once, whole or not at all, and read as a memory map."""

import contextlib
import json
import logging
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from timellm.cache import CACHE_VARIABLE
from timellm.contract.errors import InputError
from timellm.contract.files import move_into_place
from timellm.prompts.filling import watched

FORMAT_VERSION = 1
"""Part of every key: raise it when the words of a prompt or the files change."""
_IDS, _LENGTHS, _FACTS = "ids.npy", "lengths.npy", "facts.json"
_BLOCK_BYTES = 1 << 24
_ROWS_PER_BLOCK = 8192

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, slots=True)
class TokenStore:
    """The files of one set of prompts.

    Attributes:
        ids: Token ids [prompts, tokens], padded on the right, uint16 or uint32, memory-mapped and read-only.
        lengths: Tokens of each prompt [prompts], int64.
        prefix_length: Leading tokens that all prompts share; fewer than the shortest prompt has.
    """

    ids: np.ndarray
    lengths: np.ndarray
    prefix_length: int


def load_or_build(
    folder: Path,
    chunks: Callable[[], Iterable[list[list[int]]]],
    *,
    dtype: type[np.unsignedinteger],
    pad_id: int,
    prompts: int | None = None,
) -> TokenStore:
    """Open the prompts in `folder`, after writing them if they are not there or damaged.

    Processes that ask for the same folder at once wait for the first; only that one computes.

    Args:
        folder: Where the files are or will be; its name is the key.
        chunks: Gives the token ids of all prompts, some prompts at a time.
        dtype: uint16 or uint32, wide enough for every id.
        pad_id: What prompts are padded with.
        prompts: How many there are; then progress is shown and the disk is looked at before they are written.

    Raises:
        InputError: If the folder cannot be written, or they will not fit.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_suffix(".lock")):
            found = _open(folder)
            if found is not None:
                return found
            ids = watched(chunks(), prompts, np.dtype(dtype).itemsize, folder.parent)
            with contextlib.closing(ids):
                _write(folder, ids, dtype, pad_id)
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    written = _open(folder)
    if written is None:
        raise RuntimeError(f"The prompts just written to {folder} cannot be read back. Is the disk full?")
    return written


def unwritable(folder: Path, error: OSError) -> InputError:
    """What is raised where the folder of prompts cannot be written."""
    return InputError(
        f"The prompt cache {folder} must be writable, got: {error.strerror or error}. "
        f"Name another folder with the environment variable {CACHE_VARIABLE}."
    )


def _open(folder: Path) -> TokenStore | None:
    """The store in `folder`; None if there is none or it is not what was written."""
    if not folder.is_dir():
        return None
    try:
        facts = json.loads((folder / _FACTS).read_text())
        if any(_crc32(folder / name) != facts["crc32"][name] for name in (_IDS, _LENGTHS)):
            raise ValueError("its checksum differs")
        return TokenStore(
            ids=np.load(folder / _IDS, mmap_mode="r"),
            lengths=np.load(folder / _LENGTHS),
            prefix_length=facts["prefix_length"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("The prompt cache %s is damaged (%s) and is written again.", folder, error)
        return None


def _write(folder: Path, chunks: Iterable[list[list[int]]], dtype: type[np.unsignedinteger], pad_id: int) -> None:
    """Write all files into a temporary folder beside `folder`, then move it there."""
    for abandoned in folder.parent.glob(f"{folder.name}.*/"):
        # Of a run that was killed: whoever holds the lock is the only one to write.
        shutil.rmtree(abandoned)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        flat = temporary / "flat.bin"
        lengths, prefix_length = _write_flat(flat, chunks, dtype)
        np.save(temporary / _LENGTHS, lengths)
        _pad(flat, temporary / _IDS, lengths, dtype, pad_id)
        flat.unlink()
        facts = {
            "prefix_length": prefix_length,
            "crc32": {name: _crc32(temporary / name) for name in (_IDS, _LENGTHS)},
        }
        (temporary / _FACTS).write_text(json.dumps(facts))
        move_into_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_flat(
    path: Path, chunks: Iterable[list[list[int]]], dtype: type[np.unsignedinteger]
) -> tuple[np.ndarray, int]:
    """Write all ids one after the other; returns the lengths [prompts] and the length of the shared prefix."""
    lengths: list[np.ndarray] = []
    prefix: np.ndarray | None = None
    with path.open("wb") as stream:
        for chunk in chunks:
            rows = [np.asarray(row, dtype=dtype) for row in chunk]
            counts = np.array([len(row) for row in rows], dtype=np.int64)
            lengths.append(counts)
            np.concatenate(rows).tofile(stream)
            if prefix is None:
                prefix = rows[0]
            # Always leave a token of its own to every prompt.
            prefix = prefix[: counts.min() - 1]
            head = np.stack([row[: len(prefix)] for row in rows])
            differs = (head != prefix).any(axis=0)
            if differs.any():
                prefix = prefix[: int(differs.argmax())]
    return np.concatenate(lengths), 0 if prefix is None else len(prefix)


def _pad(flat: Path, path: Path, lengths: np.ndarray, dtype: type[np.unsignedinteger], pad_id: int) -> None:
    """Turn ids written one after the other into a padded array [prompts, longest]."""
    longest = int(lengths.max())
    ids = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(lengths), longest))
    with flat.open("rb") as stream:
        for start in range(0, len(lengths), _ROWS_PER_BLOCK):
            counts = lengths[start : start + _ROWS_PER_BLOCK]
            block = np.full((len(counts), longest), pad_id, dtype=dtype)
            block[np.arange(longest) < counts[:, None]] = np.fromfile(stream, dtype=dtype, count=int(counts.sum()))
            ids[start : start + len(counts)] = block
    ids.flush()


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value
