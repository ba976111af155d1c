"""Time-LLM and everything one training run needs: data, prompts, backbones, training, measurement.

Knows nothing of Ray, Optuna or the search around it, so that it can be taken to a machine on its own.
`Forecaster` is its face for DataFrames.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timellm.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]


def __getattr__(name: str) -> Any:
    """Load the public face when it is asked for: `import timellm` alone loads no torch (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("timellm.forecasting.forecaster"), name)
