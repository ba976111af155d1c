"""Finished trainings of a benchmark, kept in a folder: a command that was interrupted goes on where it stopped."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.harness import train_in_worker
from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.files import write_atomically


class KeptRuns:
    """Trains a run once, in a worker process, and remembers its result.

    Args:
        folder: Where results lie, one file a run; created when missing.
        threads: CPU threads of a training.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self.trained = 0
        """Runs that were trained now, not found."""

    def result(self, config: RunConfig, **job: Any) -> dict[str, Any]:
        """The result of a run: the one that is kept, else a new one, kept as soon as it has ended.

        Args:
            config: The run's settings.
            job: What else its job holds.

        Raises:
            InputError: If it does not end complete.
        """
        asked = {"settings": config.to_dict(), "job": job}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{key}.json"
        if path.is_file():
            return json.loads(path.read_text())["result"]
        result = train_in_worker(config, self._threads, **job)
        if result["state"] != State.COMPLETE:
            raise InputError(f"A run must end complete, got {result['state']}: {result['error']}")
        write_atomically(path, json.dumps({**asked, "result": result}) + "\n")
        self.trained += 1
        return result
