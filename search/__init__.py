"""The search: Optuna suggests settings, Ray Tune runs each as a whole training run in its own process.

`search.search` runs one from Python, on a DataFrame.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import search

__all__ = ["search"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from search.api import search

    return search
