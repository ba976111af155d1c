"""From a checkpoint to forecasts: in a file's own units, with dates and intervals, and judged by a backtest.

`Forecaster` is the face of this room, `timellm/forecast.py` its command. `frames` reads a DataFrame, `horizon` its
dates, `windows` lays it out as the windows of a network, `network` forecasts them in a stream, `intervals`,
`baselines`, `scores` and `backtest` judge them, `published` reads checkpoints of the published code, `plot` draws, and
`training` trains in a process of its own.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timellm.forecasting.backtest import Backtest
    from timellm.forecasting.forecaster import Forecaster

__all__ = ["Backtest", "Forecaster"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for, so that flags can be read without torch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"timellm.forecasting.{name.lower()}"), name)
