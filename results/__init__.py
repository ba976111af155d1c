"""Reads a run folder: the trials table, its Pareto front, the report and the recommended configuration.

`analysis` loads the table and draws conclusions from it; `document` writes the report and the recommended settings.
`report.py` is the command line, `schema` the table's Arrow schema.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.analysis.comparison import compare
    from results.analysis.effects import main_effects
    from results.analysis.errors import load_errors, repeats_of
    from results.analysis.importance import knob_importance
    from results.analysis.judgement import difference, pooled_spread
    from results.analysis.pareto import hypervolume, hypervolume_over_time, joint_score, mark_pareto, pareto_front
    from results.analysis.picks import recommend
    from results.analysis.table import load_trials, write_trials
    from results.document.page import build_report
    from timellm.contract.layout import RunFolder

__all__ = [
    "RunFolder",
    "build_report",
    "compare",
    "difference",
    "hypervolume",
    "hypervolume_over_time",
    "joint_score",
    "knob_importance",
    "load_errors",
    "load_trials",
    "main_effects",
    "mark_pareto",
    "pareto_front",
    "pooled_spread",
    "recommend",
    "repeats_of",
    "write_trials",
]

_HOMES = {
    "compare": "results.analysis.comparison",
    "main_effects": "results.analysis.effects",
    "load_errors": "results.analysis.errors",
    "repeats_of": "results.analysis.errors",
    "knob_importance": "results.analysis.importance",
    "difference": "results.analysis.judgement",
    "pooled_spread": "results.analysis.judgement",
    "hypervolume": "results.analysis.pareto",
    "hypervolume_over_time": "results.analysis.pareto",
    "joint_score": "results.analysis.pareto",
    "mark_pareto": "results.analysis.pareto",
    "pareto_front": "results.analysis.pareto",
    "recommend": "results.analysis.picks",
    "load_trials": "results.analysis.table",
    "write_trials": "results.analysis.table",
    "build_report": "results.document.page",
    "RunFolder": "timellm.contract.layout",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is asked for: `import results` alone loads no pandas and no Optuna (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
