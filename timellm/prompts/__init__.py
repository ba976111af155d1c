"""The text that describes a window, and its tokens."""
