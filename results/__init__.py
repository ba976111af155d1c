"""Reads a run folder: the trials table, its Pareto front, the report and the recommended configuration."""
