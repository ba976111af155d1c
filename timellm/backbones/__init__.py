"""Frozen language models: where they come from, how they are checked, loaded and cut."""
