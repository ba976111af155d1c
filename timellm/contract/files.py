"""Files that are replaced in one step, so that nobody ever reads half of one."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path


def require_ordinary(path: Path) -> Path:
    """The same path, if a file can be read there to its end.

    Raises:
        OSError: If something is there that is neither a file nor a folder: a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace one file; see `replace_files`."""
    replace_files({path: content})


def replace_files(contents: Mapping[Path, str | bytes]) -> None:
    """Replace files, each in one step; if writing any of them fails, all keep their old content.

    Args:
        contents: What each file is to hold: text (written as UTF-8) or bytes. Folders are created.

    Raises:
        OSError: If the disk refuses.
    """
    with contextlib.ExitStack() as stack:
        staged = {path: stack.enter_context(_staged(path)) for path in contents}
        for path, content in contents.items():
            _write(staged[path], content.encode() if isinstance(content, str) else content)
        for path, temporary in staged.items():
            temporary.replace(path)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder at, which is moved to its name when the block ends well.

    Args:
        path: Its name; a file or folder of that name is replaced. Its folder is created.

    Yields:
        A free name beside it. What a failing block leaves there is removed.
    """
    with _staged(path) as temporary:
        yield temporary
        move_into_place(temporary, path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a temporary file or folder its final name, in place of what had that name."""
    if temporary.is_dir() and path.exists():
        shutil.rmtree(path)
    temporary.replace(path)


def temporary_name(path: Path) -> Path:
    """A name beside a file that no other process writes to."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A free name beside a path; at the end, what is there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
