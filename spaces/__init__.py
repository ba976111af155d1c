"""Search spaces as TOML files, the schema they are checked against, and the knobs they may hold.

`load_space` reads a file, `narrow` applies `--set`, `resolve` maps the space into what the machine has. Standard
library only.
"""

from spaces.loader import load_space, space_names
from spaces.narrow import narrow, parse_settings
from spaces.resolve import Hardware, resolve
from spaces.space import Knob, Space
from timellm.contract.errors import InputError

__all__ = [
    "Hardware",
    "InputError",
    "Knob",
    "Space",
    "load_space",
    "narrow",
    "parse_settings",
    "resolve",
    "space_names",
]
