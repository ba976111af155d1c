"""Checksums of weight files, remembered until a file changes."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from timellm.contract.files import write_atomically


def file_checksum(path: Path, cache: Path) -> str:
    """The sha256 of a file; read again only when its size or time of change differs.

    Args:
        path: The file.
        cache: The cache folder, which remembers it.

    Returns:
        The hexadecimal digest.
    """
    place = str(path.resolve())
    key = {"path": place, **file_state(path)}
    memory = cache / "checksums" / f"{hashlib.sha256(place.encode()).hexdigest()}.json"
    remembered = _read(memory)
    if remembered is not None and all(remembered.get(name) == value for name, value in key.items()):
        return remembered["sha256"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(memory, json.dumps({**key, "sha256": digest}))
    return digest


def file_state(path: Path) -> dict[str, int]:
    """Size in bytes and time of change: while both stay, so does the content."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def combined_checksum(paths: Iterable[Path], cache: Path) -> str:
    """The sha256 of a model's weight files: of the one file, or of the list of names and digests of several."""
    digests = {path.name: file_checksum(path, cache) for path in sorted(paths)}
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _read(path: Path) -> dict | None:
    """A remembered checksum; None when there is none or the file was damaged, which costs one more reading."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("sha256"), str) else None
