"""The data sets that are known by name: where each is read from, how it is split, what a prompt says of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from timellm.contract.errors import InputError

_HOURS_PER_MONTH = 30 * 24
_ETT_SENTENCE = (
    "The Electricity Transformer Temperature (ETT) is a crucial indicator in the electric power long-term deployment."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareSplit:
    """Borders at shares of the rows; what is left between training and test is validation."""

    train: float = 0.7
    """Share of the rows that is trained on."""
    test: float = 0.2
    """Share of the rows at the end that is looked at once."""

    def ends(self, name: str, rows: int) -> tuple[int, int, int]:
        """Where training, validation and test end, in rows."""
        return int(rows * self.train), rows - int(rows * self.test), rows


@dataclass(frozen=True, kw_only=True, slots=True)
class MonthSplit:
    """Borders after months of 30 days; rows after them are not used."""

    train: int = 12
    """Months that are trained on."""
    validation: int = 4
    """Months that choose the best checkpoint."""
    test: int = 4
    """Months that are looked at once."""
    rows_per_hour: int
    """Rows of an hour."""

    def ends(self, name: str, rows: int) -> tuple[int, int, int]:
        """Where training, validation and test end, in rows.

        Raises:
            InputError: If there are fewer rows than that.
        """
        month = _HOURS_PER_MONTH * self.rows_per_hour
        ends = tuple(month * months for months in (self.train, self.train + self.validation))
        last = ends[1] + month * self.test
        if rows < last:
            raise InputError(
                f"{name} has published borders and needs at least {last} rows, got {rows}. "
                "Use the complete file, or --data custom to split this one 70/10/20."
            )
        return ends[0], ends[1], last


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A data set known by name."""

    name: str
    """What `--data` calls it."""
    split: ShareSplit | MonthSplit = ShareSplit()
    """Borders of training, validation and test."""
    file_name: str | None = None
    """The published name of its file, used if none is given; None if it has none."""
    is_embedded: bool = False
    """Whether it comes with a package; `timellm.data.embedded` then knows how it is read."""
    target: str | None = None
    """Target column of features S and MS where none is named; None is the last one."""
    description: str
    """What a prompt says of it."""
    published_description: str | None = None
    """What the published prompt bank says of it (`--prompt_domain 1`); None if it is not there."""


def _ett(name: str, rows_per_hour: int) -> DataSet:
    return DataSet(
        name=name,
        split=MonthSplit(rows_per_hour=rows_per_hour),
        file_name=f"{name}.csv",
        target="OT",
        description=_ETT_SENTENCE,
        published_description=(
            f"{_ETT_SENTENCE} This dataset consists of 2 years data from two separated counties in China. To explore "
            "the granularity on the Long sequence time-series forecasting (LSTF) problem, different subsets are "
            "created, {ETTh1, ETTh2} for 1-hour-level and ETTm1 for 15-minutes-level. Each data point consists of the "
            "target value ”oil temperature” and 6 power load features. The train/val/test is 12/4/4 months."
        ),
    )


def _shared(name: str, file_name: str, description: str) -> DataSet:
    """A published benchmark split 70/10/20 whose target is OT."""
    return DataSet(
        name=name, file_name=file_name, target="OT", description=description, published_description=description
    )


_ALL = (
    DataSet(
        name="nyc-weather",
        is_embedded=True,
        description=(
            "Hourly weather at New York City's three airports: temperature, dew point, humidity, wind, pressure and "
            "visibility."
        ),
    ),
    _ett("ETTh1", 1),
    _ett("ETTh2", 1),
    _ett("ETTm1", 4),
    _ett("ETTm2", 4),
    _shared(
        "Weather",
        "weather.csv",
        "Weather is recorded every 10 minutes for the 2020 whole year, which contains 21 meteorological indicators, "
        "such as air temperature, humidity, etc.",
    ),
    _shared(
        "ECL",
        "electricity.csv",
        # The published sentence; it describes another archive than the 321 clients of the file.
        "Measurements of electric power consumption in one household with a one-minute sampling rate over a period of "
        "almost 4 years. Different electrical quantities and some sub-metering values are available.This archive "
        "contains 2075259 measurements gathered in a house located in Sceaux (7km of Paris, France) between December "
        "2006 and November 2010 (47 months).",
    ),
    _shared(
        "Traffic",
        "traffic.csv",
        "Traffic is a collection of hourly data from California Department of Transportation, which describes the "
        "road occupancy rates measured by different sensors on San Francisco Bay area freeways.",
    ),
    DataSet(
        name="custom",
        description="Measurements of one or more variables, taken one after the other at equal distances in time.",
    ),
)

DATA_SETS: Mapping[str, DataSet] = {data_set.name: data_set for data_set in _ALL}
"""Every data set that `--data` names."""
