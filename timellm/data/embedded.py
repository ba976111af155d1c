"""The data sets that come with a Python package: where each file lies and how it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from timellm.data.nyc_weather import read_weather, weather_path
from timellm.data.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedFile:
    """A file that comes with a Python package."""

    locate: Callable[[], Path]
    """Finds the file; raises InputError where the package is not installed."""
    read: Callable[[Path], Table]
    """Reads it."""


EMBEDDED: Mapping[str, EmbeddedFile] = {"nyc-weather": EmbeddedFile(locate=weather_path, read=read_weather)}
"""The file of every data set that says `is_embedded`, by its name."""
