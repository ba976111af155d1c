"""Clocks: steady steps and their interval, profiles."""
