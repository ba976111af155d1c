"""Reads a run folder: the trials table, its Pareto front, the report and the recommended configuration.

`layout` names the files of a run folder, `columns` the columns of its table, `table` writes and loads it.
"""

from results.comparison import compare
from results.effects import main_effects
from results.importance import knob_importance
from results.layout import RunFolder
from results.pareto import hypervolume, hypervolume_over_time, joint_score, mark_pareto, pareto_front
from results.table import load_trials, write_trials

__all__ = [
    "RunFolder",
    "compare",
    "hypervolume",
    "hypervolume_over_time",
    "joint_score",
    "knob_importance",
    "load_trials",
    "main_effects",
    "mark_pareto",
    "pareto_front",
    "write_trials",
]
