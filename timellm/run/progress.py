"""Progress of a run for people: a line that is rewritten on a terminal, quiet lines otherwise."""

import sys
import time
from typing import Any

from timellm.contract.config import RunConfig
from timellm.contract.words import duration_words

SECONDS_BETWEEN_LINES = 30.0


class ProgressPrinter:
    """Prints the events of a run.

    Args:
        config: The run's settings.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._steps = 0
        self._started = time.monotonic()
        self._printed = 0.0
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, event: dict[str, Any]) -> None:
        """Print one event."""
        if event["event"] == "training":
            self._steps, self._started = event["steps"], time.monotonic()
            print(f"start-up {event['startup_seconds']:.1f} s, {self._steps} steps to go", file=sys.stderr)
        elif event["event"] == "progress":
            self._print_progress(event)
        elif event["event"] == "validation":
            end = "\r\033[K" if self._on_terminal else ""
            text = f"{end}{event['samples']} windows: val mse {event['val_mse']:.6f}, mae {event['val_mae']:.6f}"
            print(text, file=sys.stderr, flush=True)

        elif event["event"] == "profile":
            end = "\r\033[K" if self._on_terminal else ""
            print(end + "\n".join(event["lines"]), file=sys.stderr, flush=True)

    def _print_progress(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if not self._on_terminal and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        left = (now - self._started) / event["step"] * (self._steps - event["step"])
        text = f"step {event['step']}/{self._steps}, train loss {event['train_loss']:.4f}, {duration_words(left)} left"
        if self._on_terminal:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
