"""Data sets as splits of scaled values, and the windows that are cut from them."""
