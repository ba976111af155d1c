"""Data sets as splits of scaled values, and the windows that are cut from them.

`load_data` reads, splits and scales; a `Split` gathers windows; `training_order` and `stratified_subset` say which
windows are used.
"""

from timellm.data.sampling import EpochOrders, stratified_subset, training_order
from timellm.data.series import SeriesData, load_data
from timellm.data.splits import Split

__all__ = ["EpochOrders", "SeriesData", "Split", "load_data", "stratified_subset", "training_order"]
