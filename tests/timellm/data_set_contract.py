"""What every data set of `--data` must be. A new one inherits `DataSetContract` in `test_data_datasets.py`."""

import numpy as np
import pandas as pd

from timellm.contract.config import SETTINGS, RunConfig
from timellm.contract.datasets import DATA_SETS
from timellm.data import load_data
from timellm.data.embedded import EMBEDDED

FRACTION = {"h": 1, "15min": 4, "10min": 6}
"""Rows of an hour, by frequency."""


class DataSetContract:
    """One data set, read from a file of the published form; a subclass sets `name`."""

    name: str
    frequency = "h"
    """Distance in time of the file's rows."""

    def test_the_flag_names_it(self):
        assert self.name in SETTINGS["data"].choices

    def test_it_says_what_it_is(self):
        known = DATA_SETS[self.name]

        assert known.name == self.name
        assert known.description.endswith(".")
        assert known.is_embedded == (self.name in EMBEDDED)
        assert not (known.is_embedded and known.file_name)

    def test_its_splits_follow_each_other(self):
        train, validation, test = DATA_SETS[self.name].split.ends(self.name, 100_000)

        assert 0 < train < validation < test <= 100_000

    def test_a_run_reads_it(self, tmp_path):
        known = DATA_SETS[self.name]
        place = {} if known.is_embedded else self.write_file(tmp_path, known)

        data = load_data(RunConfig(data=self.name, seq_len=24, pred_len=12, **place))

        assert data.description == known.description
        assert min(len(split) for split in (data.train, data.validation, data.test)) > 0
        assert all(np.isfinite(split.values.numpy()).all() for split in (data.train, data.validation, data.test))

    def write_file(self, folder, known):
        """A file like the published one, as short as its borders allow; the flags that name it."""
        rows = 14_400 * FRACTION[self.frequency] if "rows_per_hour" in str(known.split) else 1000
        values = np.random.default_rng(0).normal(size=(rows, 2))
        dates = pd.date_range("2016-07-01", periods=rows, freq=self.frequency)
        columns = {"first": values[:, 0], known.target or "last": values[:, 1]}
        name = known.file_name or "own.csv"
        pd.DataFrame({"date": dates, **columns}).to_csv(folder / name, index=False)
        return {"root_path": str(folder), "data_path": None if known.file_name else name}
