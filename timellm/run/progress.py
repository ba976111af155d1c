"""Progress of a run for people: its events on stderr."""

import sys
from typing import Any

from timellm.contract.job import EventKind
from timellm.progress import ProgressBar


class ProgressPrinter:
    """Prints the events of a run."""

    def __init__(self) -> None:
        self._steps = 0
        self._bar: ProgressBar | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Print one event."""
        if event["event"] == EventKind.TRAINING:
            self.close()
            self._steps = event["steps"]
            _say(f"start-up took {event['startup_seconds']:.1f} s, {self._steps} steps to go")
            self._bar = ProgressBar(self._steps)
        elif event["event"] == EventKind.PROGRESS and self._bar is not None:
            self._bar.show(event["step"], f"step {event['step']}/{self._steps}, train loss {event['train_loss']:.4f}")
        elif event["event"] == EventKind.VALIDATION:
            _say(f"after {event['samples']} windows: val mse {event['val_mse']:.6f}, val mae {event['val_mae']:.6f}")
        elif event["event"] == EventKind.PROFILE:
            _say("\n".join(event["lines"]))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
