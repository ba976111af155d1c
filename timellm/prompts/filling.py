"""Watches prompts being tokenised: what is done, how long the rest takes, and whether it fits on the disk."""

import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

from timellm.contract.errors import InputError
from timellm.progress import ProgressBar

QUIET_SECONDS, SECONDS_BETWEEN_LINES = 5.0, 15.0
"""Nothing is said in the first seconds; then a line at most this often."""
_COPIES = 2
"""Ids are written one after the other first, and then padded beside that."""
_PADDED = 1.1
"""The longest prompt against the first chunk's mean."""
_SPARE_BYTES = 1 << 28
"""Of the disk that are left free."""


def watched(
    chunks: Iterable[list[list[int]]], prompts: int | None, bytes_per_id: int, folder: Path
) -> Generator[list[list[int]], None, None]:
    """The same chunks; progress goes to stderr, and the disk is looked at after the first.

    Args:
        chunks: Token ids of prompts, some at a time.
        prompts: How many there will be; None if that is not known.
        bytes_per_id: Bytes that an id takes on disk.
        folder: Where they are written.

    Raises:
        InputError: If they will not fit.
    """
    done = 0
    with ProgressBar(
        prompts or 0, quiet_seconds=QUIET_SECONDS, seconds_between_lines=SECONDS_BETWEEN_LINES
    ) as progress:
        for chunk in chunks:
            if done == 0 and prompts:
                ids = sum(map(len, chunk)) / max(1, len(chunk))
                check_disk(folder, prompts, bytes_while_written(prompts, ids, bytes_per_id))
            done += len(chunk)
            yield chunk
            if prompts and 0 < done < prompts:
                progress.show(done, f"tokenising prompts: {done:,} of {prompts:,} ({100 * done // prompts} %)")


def bytes_on_disk(prompts: int, ids: float, bytes_per_id: int) -> float:
    """Bytes that prompts of so many ids on average take on disk."""
    return prompts * (ids * bytes_per_id * _PADDED + 8)


def bytes_while_written(prompts: int, ids: float, bytes_per_id: int) -> float:
    """Bytes that they take until they are written."""
    return prompts * (ids * bytes_per_id * _COPIES * _PADDED + 8)


def has_room(needed: float, free: int) -> bool:
    """Whether so many bytes fit on a disk, with some to spare."""
    return needed + _SPARE_BYTES <= free


def check_disk(folder: Path, prompts: int, needed: float) -> None:
    """Refuse to begin what will not fit on the disk.

    Args:
        folder: Where prompts are written.
        prompts: How many.
        needed: Bytes that they take.

    Raises:
        InputError: If the disk has fewer, or hardly more.
    """
    free = shutil.disk_usage(folder).free
    if not has_room(needed, free):
        raise InputError(
            f"The prompts of {prompts:,} windows need about {needed / 2**30:.1f} GiB in {folder}, which has "
            f"{free / 2**30:.1f} GiB free. Name another folder with TIMELLM_CACHE_DIR, or use --prompt_scope span, a "
            "smaller --percent or --train_samples."
        )
