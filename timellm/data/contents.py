"""The bytes of a data file, decompressed: what they are is decided by what stands in them, never by the name."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from timellm.contract.errors import InputError

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
)
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "Save its sheet as CSV UTF-8"),
    (b"\x89HDF", "an HDF5 file", "Save it as CSV"),
    (b"CDF", "a NetCDF file", "Save it as CSV"),
    (b"ARROW1", "an Arrow file", "Save it as CSV"),
    (b"FEA1", "a Feather file", "Save it as CSV"),
    (b"Obj\x01", "an Avro file", "Save it as CSV"),
    (b"SQLite format 3", "an SQLite database", "Save its table as CSV"),
    (b"\x93NUMPY", "a NumPy array", "Save it as CSV with a header and a date column"),
    (b"%PDF", "a PDF", "Save its table as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and name the CSV file inside"),
    (b"Rar!", "a RAR archive", "Unpack it and name the CSV file inside"),
    (b"\x04\x22\x4d\x18", "a file compressed with lz4", "Unpack it"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch it with git lfs pull"),
)
_TAR_MARK = slice(257, 262)
_MOST_LAYERS = 3
"""Layers that are unpacked: a file in an archive in a compressed file, as in .tar.gz."""

PARQUET_MAGIC = b"PAR1"


def regular_file(path: Path) -> Path:
    """The path of a file that can be read to its end.

    Raises:
        InputError: If there is none, or it is a folder, a pipe or a device.
    """
    try:
        if path.is_file():
            return path
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "was not found"
    except OSError as error:
        what = f"cannot be opened ({error.strerror})"
    if "://" in str(path) or str(path).startswith(("http:", "https:")):
        raise InputError(f"The data file must be on this machine, got the address {path}. Download it first.")
    raise InputError(
        f"The data file {path} {what}. Name its folder with --root_path and the CSV file with --data_path."
    )


def is_parquet(path: Path) -> bool:
    """Whether a file is parquet, by its first bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except OSError:
        return False


def read_content(path: Path) -> bytes:
    """The text of a data file as bytes, decompressed if it is compressed, whatever its name.

    Raises:
        InputError: If the file cannot be read, is cut off, holds several files, or is of another format.
    """
    try:
        content = regular_file(path).read_bytes()
    except OSError as error:
        raise InputError(f"The data file {path} cannot be read: {error.strerror}. Check its permissions.") from error
    for _ in range(_MOST_LAYERS):
        packed = _compression(content)
        if packed is None:
            break
        content = _unpack(content, packed, path)
    if (packed := _compression(content)) is not None:
        raise InputError(f"The data file {path} is {packed} in {packed}, {_MOST_LAYERS} times over. Unpack it.")
    for magic, what, advice in _OTHER_FORMATS:
        if content.startswith(magic):
            raise InputError(f"The data file {path} must be CSV text, got {what}. {advice}.")
    return content


def _compression(content: bytes) -> str | None:
    if content[_TAR_MARK] == b"ustar":
        return "tar"
    return next((name for magic, name in _MAGIC if content.startswith(magic)), None)


def _unpack(content: bytes, packed: str, path: Path) -> bytes:
    unpackers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress, "bzip2": bz2.decompress, "xz": lzma.decompress,
        "zip": lambda data: _only_member_of_zip(data, path), "tar": lambda data: _only_member_of_tar(data, path),
    }  # fmt: skip
    if packed not in unpackers:
        raise InputError(f"The data file {path} is compressed with {packed}, which is not read here. Unpack it first.")
    try:
        return unpackers[packed](content)
    except InputError:  # also a ValueError, but it says what is wrong already
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise InputError(
            f"The data file {path} begins as {packed} and must be whole, got one that is cut off or damaged "
            f"({error}). Copy or download it again."
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # what zipfile raises for encryption or a method it lacks
        raise InputError(f"The data file {path} cannot be unpacked ({error}). Unpack it first.") from error
    except MemoryError as error:
        raise InputError(f"The data file {path} does not fit in memory once unpacked. Check what it holds.") from error


def _only_member_of_zip(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if "xl/workbook.xml" in names:
            raise InputError(
                f"The data file {path} must be CSV text, got an Excel workbook. Save its sheet as CSV UTF-8."
            )
        return archive.read(_only(names, path))


def _only_member_of_tar(content: bytes, path: Path) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        member = archive.extractfile(_only([entry.name for entry in archive if entry.isfile()], path))
        if member is None:
            raise tarfile.ReadError("its file is a link")
        return member.read()


def _only(names: list[str], path: Path) -> str:
    """The one file of an archive."""
    if len(names) != 1:
        shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "") if names else "none"
        raise InputError(
            f"The data file {path} is an archive and must hold one CSV file, got {len(names)}: {shown}. "
            "Unpack it and name one with --data_path."
        )
    return names[0]
