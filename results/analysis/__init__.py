"""From a run folder's table to conclusions: front, picks, importances, effects, comparison."""
