"""Reading the JSON dialects that DeepSpeed files are written in."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timellm.contract.errors import InputError
from timellm.contract.words import shortened

_LARGEST_BYTES = 1 << 20
_MOST_LEVELS = 20
_TOO_DEEP = f"deepspeed_config must be JSON of at most {_MOST_LEVELS} levels, got too many. Correct it."
_MOST_DIGITS = 18
_STRING = r'("(?:\\(?:[\s\S]|\Z)|[^"\\\n])*+(?:"|\Z|(?=\n)))'
"""A string, or one that is not closed: both are left alone, and a long one is looked at once."""


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
        settings = json.loads(
            _plain(text), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_float, parse_int=_int
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: deepspeed_config must be JSON: {error.msg}. Correct it.") from error
    except RecursionError:
        raise InputError(f"{path}: {_TOO_DEEP}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if not _is_shallow(settings):
        raise InputError(f"{path}: {_TOO_DEEP}")
    if any("\ud800" <= letter <= "\udfff" for letter in json.dumps(settings, ensure_ascii=False)):
        raise InputError(f"{path}: deepspeed_config must be text, got half of a surrogate pair. Remove it.")
    if not isinstance(settings, dict):
        raise InputError(f"{path}: deepspeed_config must be a JSON object, got {type(settings).__name__}.")
    return settings


def _plain(text: str) -> str:
    """Drop comments and trailing commas outside strings; lines keep their numbers.

    A comment that is not closed goes on to the end. Each letter is looked at a few times, whatever the text.
    """
    comment = re.compile(_STRING + r"|/\*.*?(?:\*/|\Z)|(?://|#)[^\n]*", re.DOTALL)
    text = comment.sub(lambda match: match[1] or "\n" * match[0].count("\n"), text)
    comma = re.compile(_STRING + r"|,(?=\s*[}\]])(?<![\[{,],)")
    return comma.sub(lambda match: match[1] or "", text)


def _is_shallow(value: Any) -> bool:
    """Whether objects and lists are nested a few levels deep."""
    level = [value]
    for _ in range(_MOST_LEVELS):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [item for items in inner for item in items]
    return not level


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key} must stand once, got it twice. Remove one.")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}. Correct it.")


def _float(text: str) -> float:
    return number if math.isfinite(number := float(text)) else _no_constant(shortened(text))


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"whole numbers must have at most {_MOST_DIGITS} digits, got {len(text)}. Correct it.")
    return int(text)
