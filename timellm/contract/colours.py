"""The colours of every page and plot, once: the report has both sets, for light and dark, all else the light one."""

from collections.abc import Mapping


def translucent(colour: str, opacity: float) -> str:
    """A colour through which the ones below it are seen.

    Args:
        colour: As `#rrggbb`.
        opacity: From 0 to 1.
    """
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


LIGHT: Mapping[str, str] = {
    "page": "#f7f7f5",
    "surface": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5a626c",
    "line": "#e4e6e9",
    "edge": "#c3c8ce",
    "accent": "#0b6a8f",
    "accent-soft": "#e3f0f5",
    "second": "#b8862b",
    "warn": "#8a4b00",
    "warn-soft": "#fdf0dc",
    "bad": "#a32020",
    "dot": "#8a949f",
    "dot-faint": translucent("#8a949f", 0.35),
    "band": "#dfe3e7",
    "band-strong": "#c9cfd6",
    "veil": translucent("#ffffff", 0.85),
    "code": "#f1f2f0",
}
"""Each colour by what it is for, on a light page."""

DARK: Mapping[str, str] = {
    "page": "#121417",
    "surface": "#1a1d21",
    "ink": "#e6e9ec",
    "muted": "#a4adb7",
    "line": "#2c3137",
    "edge": "#454c55",
    "accent": "#58bde0",
    "accent-soft": "#16323e",
    "second": "#d9ae5f",
    "warn": "#f0b565",
    "warn-soft": "#3a2a12",
    "bad": "#f08a8a",
    "dot": "#7b8591",
    "dot-faint": translucent("#7b8591", 0.4),
    "band": "#333a42",
    "band-strong": "#4a535d",
    "veil": translucent("#1a1d21", 0.85),
    "code": "#23272c",
}
"""The same names, on a dark page."""
