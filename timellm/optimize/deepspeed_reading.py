"""A DeepSpeed file on its way to settings that DeepSpeed is given: what is refused, dropped and said of it."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timellm.contract.config import RunConfig
from timellm.contract.words import shortened

_MOST_NAMED = 8
_COMMENT_KEYS = ("comment", "comments", "description")


@dataclass(slots=True)
class Reading:
    """A file on its way to settings that DeepSpeed is given."""

    path: Path
    config: RunConfig
    generated: Mapping[str, Any]
    settings: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, text: str) -> None:
        """Say a problem; all of them are raised together."""
        self.problems.append(f"{self.path}: {text}")

    def note(self, text: str) -> None:
        """Say what was made of a value."""
        self.notes.append(f"{self.path.name}: {text}")

    def drop(self, key: str, reason: str) -> None:
        """Leave a value out, and say why."""
        self.settings.pop(key)
        self.note(f"{key} {reason}")

    def refuse_others(self, block: dict[str, Any], known: Iterable[str], prefix: str = "") -> None:
        """Refuse keys that DeepSpeed does not know, of which it would ignore many; those that are comments are dropped.

        Args:
            block: The file, or an object in it; comments are taken out of it.
            known: Keys that DeepSpeed has there.
            prefix: Place of the object, with a dot at its end.
        """
        names = list(known)
        others = [key for key in block if key not in names]
        comments = [key for key in others if key.startswith(("_", "//", "$")) or key.casefold() in _COMMENT_KEYS]
        for key in comments:
            block.pop(key)
        unknown = [key for key in others if key not in comments]
        for key in unknown[:_MOST_NAMED]:
            close = difflib.get_close_matches(key[:100], names, n=1, cutoff=0.75)
            advice = f"Did you mean {close[0]}?" if close else "Remove it."
            self.refuse(f"{prefix}{shortened(key)} is not a setting of DeepSpeed. {advice}")
        if (more := len(unknown) - _MOST_NAMED) > 0:
            self.refuse(f"{more} more keys are no settings of DeepSpeed. Remove them.")
