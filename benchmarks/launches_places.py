"""Where in a step an operation is launched, told by the code that calls it."""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from timellm.measure.launches import LaunchCounter

_PLACES: tuple[tuple[str, str | None, str], ...] = (
    ("adam.py", None, "optimizer"),
    ("one_pass.py", "_back_from_middle", "blocks: feed-forward, backward"),
    ("one_pass.py", "_back_to_start", "blocks: attention, backward"),
    ("one_pass.py", "_first_half", "blocks: attention, forward"),
    ("one_pass.py", "_second_half", "blocks: feed-forward, forward"),
    ("one_pass.py", None, "around the blocks: known keys and values, positions, mask, last norm"),
    ("reuse.py", "remember", "prompt through the blocks"),
    ("reuse.py", None, "patches through the blocks, forward"),
    ("prompt_store.py", None, "prompt store"),
    ("batches.py", None, "batch and its token ids"),
    ("engine.py", "backward", "what else the loss goes back through"),
    ("timellm.py", "prototypes", "prototypes, forward"),
    ("timellm.py", "forward", "words and head, forward"),
    ("stepping.py", "_share_of_error", "loss"),
    ("stepping.py", None, "prototypes, backward"),
)
"""File and function (None: any) of a caller, and what it does; the first among an operation's callers counts."""
PLACES = tuple(place for _, _, place in _PLACES)


class PlacedLaunches(LaunchCounter):
    """A `LaunchCounter` that also tells where.

    Attributes:
        places: Launches by place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        before = self.total
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self.total > before:
            self.places[_place()] += self.total - before
        return result


def _place() -> str:
    callers = {(Path(frame.filename).name, frame.name) for frame in traceback.extract_stack()}
    files = {file for file, _ in callers}
    for file, function, place in _PLACES:
        if (file, function) in callers or (function is None and file in files):
            return place
    return "elsewhere"
