"""Reading the JSON dialects that DeepSpeed files are written in."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timellm.contract.errors import InputError

_LARGEST_BYTES = 1 << 20


def read_deepspeed_file(path: Path) -> dict[str, Any]:
    """The JSON object of a file, with //, # and /* */ comments, trailing commas and a byte order mark left out.

    Raises:
        InputError: If there is no such file, or it is not that.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
        raise InputError(f"deepspeed_config must be a readable file, got {path}: {what}. Check the path.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"deepspeed_config must be a readable file, got {path}: {error.strerror}.") from error
    if len(content) > _LARGEST_BYTES:
        raise InputError(f"{path}: deepspeed_config must be a JSON file of at most 1 MiB, got {len(content)} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: deepspeed_config must be UTF-8 text, got byte 0x{content[error.start]:02x}. "
            "Save it as UTF-8."
        ) from error
    try:
        settings = json.loads(_plain(text), object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: deepspeed_config must be JSON: {error.msg}. Correct it.") from error
    except RecursionError as error:
        raise InputError(f"{path}: deepspeed_config must be JSON of a few levels, got too many. Correct it.") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: deepspeed_config must be a JSON object, got {type(settings).__name__}.")
    return settings


def _plain(text: str) -> str:
    """Drop comments and trailing commas outside strings; lines keep their numbers."""
    comment = re.compile(r'("(?:\\.|[^"\\\n])*")|/\*.*?\*/|(?://|#)[^\n]*', re.DOTALL)
    text = comment.sub(lambda match: match[1] or "\n" * match[0].count("\n"), text)
    comma = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])(?<![\[{,],)')
    return comma.sub(lambda match: match[1] or "", text)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key} must stand once, got it twice. Remove one.")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}. Correct it.")
