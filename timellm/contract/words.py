"""Numbers, texts and times as words, the same in every message, report and file."""

import datetime
import math

MISSING = "–"
"""Shown where there is no value."""


def seconds_words(seconds: float | None) -> str:
    """A duration in its natural unit: `0.274 s`, `14.3 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 1:
        return f"{seconds:.3f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return duration_words(seconds)


def duration_words(seconds: float) -> str:
    """A duration whose parts of a second do not matter: `43 s`, `3 min 20 s`, `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def utc(seconds: float) -> str:
    """A Unix time as files hold it, ISO 8601: `2026-11-27T15:04:05+00:00`."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def shortened(text: str, most: int = 80) -> str:
    """A text of any length, as an error repeats it."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
