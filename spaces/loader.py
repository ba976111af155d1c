"""Reads a space from its TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaces.knobs import GUIDE_BASELINE, KNOBS, Value
from spaces.schema import find_problems
from spaces.space import Exclusion, Knob, Space
from timellm.contract.errors import InputError

_FOLDER = Path(__file__).parent
_MOST_BYTES = 4 * 2**20


def space_names() -> list[str]:
    """Names of the spaces that come with the product."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_space(name_or_path: str) -> Space:
    """The space of a name, or of a TOML file.

    Args:
        name_or_path: One of `space_names()`, or a path that ends in .toml.

    Returns:
        The space as the file says it; the baseline is completed with the guide's values.

    Raises:
        InputError: For an unknown name, a missing file, or with every problem of the file, each with its key.
    """
    path = Path(name_or_path) if name_or_path.endswith(".toml") else _FOLDER / f"{name_or_path}.toml"
    if not name_or_path.endswith(".toml") and name_or_path not in space_names():
        raise InputError(
            f"--space must be one of {', '.join(space_names())}, or a file that ends in .toml, got {name_or_path!r}."
        )
    try:
        raw = tomllib.loads(_text(path))
        problems = find_problems(raw)
    except OSError as error:
        raise InputError(f"A space is read from its file, but {path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise InputError(f"{path} must be a space, but its keys are nested too deeply.") from None
    except ValueError as error:
        raise InputError(f"{path} must be TOML, got: {error}.") from None
    if problems:
        raise InputError(f"{path}: {problem}." for problem in problems)
    return _space(raw)


def _text(path: Path) -> str:
    """The text of a file, without the mark that some editors put at its beginning.

    Raises:
        InputError: If it is not an ordinary file, such as a pipe or a device that never ends, or is far too long.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"A space is read from an ordinary file, but {path} is not one.")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"A space must be at most {_MOST_BYTES} bytes long, got {path.stat().st_size} in {path}.")
    return path.read_text(encoding="utf-8-sig")


def _space(raw: Mapping[str, Any]) -> Space:
    """The space of a file that has no problems."""
    knobs = tuple(_knob(name, table) for name, table in raw["knobs"].items())
    baseline: dict[str, Value] = {
        knob.name: raw.get("baseline", {}).get(knob.name, GUIDE_BASELINE[knob.name]) for knob in knobs
    }
    return Space(
        name=raw["space"]["name"],
        description=" ".join(raw["space"].get("description", "").split()),
        fixed=raw.get("fixed", {}),
        knobs=knobs,
        baseline=baseline,
        plans={name: {**baseline, **plan} for name, plan in raw.get("plans", {}).items()},
        exclusions=tuple(
            Exclusion(settings={name: value for name, value in rule.items() if name != "reason"}, reason=rule["reason"])
            for rule in raw.get("exclude", ())
        ),
        search=raw.get("search", {}),
    )


def _knob(name: str, table: Mapping[str, Any]) -> Knob:
    return Knob(
        name=name,
        values=tuple(table.get("values", ())),
        low=table.get("low"),
        high=table.get("high"),
        log=table.get("log", False),
        is_whole="low" in table and KNOBS[name].kind == "whole",
        when={knob: _listed(values) for knob, values in table.get("when", {}).items()},
        needs={value: _listed(features) for value, features in table.get("needs", {}).items()},
    )


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
