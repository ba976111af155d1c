"""The manifest of a run folder: what was planned, with what, and where the search stands."""

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from search.decide.spend.plan import Plan
from search.setup.hardware import PROJECT_ROOT
from search.setup.options import Options
from spaces import Space
from timellm.contract.columns import BASELINE, OBJECTIVES, SECONDS_PER_EPOCH, VAL_MSE, State
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder

REFERENCE_SECONDS, REFERENCE_MSE = 2.0, 1.5
"""The hypervolume's reference point, relative to the first complete trial: worse than what is of interest."""


def now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Manifest:
    """Keeps manifest.json: it is written when a search starts, after every trial, and at the end.

    Args:
        folder: The run folder.
        values: Everything that is known so far.
    """

    def __init__(self, folder: RunFolder, values: Mapping[str, Any]) -> None:
        self._folder = folder
        self.values = dict(values)
        self._resumed_at = time.monotonic()
        self._seconds_before = float(self.values.get("elapsed_seconds") or 0.0)

    @classmethod
    def create(
        cls, folder: RunFolder, *, options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig
    ) -> "Manifest":
        """The manifest of a new search.

        Args:
            folder: The run folder.
            options: The command line.
            space: The resolved space.
            facts: From `search.setup.hardware.FactFinder`.
            config: Settings of every run that the space does not vary.
        """
        return cls(
            folder,
            {
                "name": folder.name,
                "created_at": now(),
                "baseline_trial_id": None,
                "reference_point": None,
                "elapsed_seconds": 0.0,
                **_description(options, space, facts, config),
            },
        )

    def describe(self, *, options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig) -> None:
        """Renew what a resumed search may change: its command, its limits and its machine."""
        self.values |= _description(options, space, facts, config)

    def plan(self, plan: Plan, notes: Sequence[str]) -> None:
        """Record the plan and the changes that were printed, those of earlier sessions included."""
        self.values["fidelity"] = plan.fidelity.to_dict()
        self.values["clocks"] = plan.clocks
        spending = plan.spending.to_dict() if plan.spending else None
        self.values["expected"] = {
            "baseline_seconds": plan.trial_seconds,
            "trials": plan.trials,
            "spending": spending,
        }
        self.values["notes"] = list(dict.fromkeys([*(self.values.get("notes") or ()), *notes]))

    @property
    def elapsed_before(self) -> float:
        """Seconds that earlier sessions have run."""
        return self._seconds_before

    @property
    def elapsed_seconds(self) -> float:
        """Seconds that the search has run, earlier sessions included."""
        return self._seconds_before + time.monotonic() - self._resumed_at

    def update(self, rows: Sequence[Mapping[str, Any]], status: str = "running") -> None:
        """Write the manifest as it stands after a trial, or at the end.

        Args:
            rows: The table so far.
            status: running, finished or interrupted.
        """
        complete = [row for row in rows if row["state"] == State.COMPLETE and None not in map(row.get, OBJECTIVES)]
        if self.values.get("baseline_trial_id") is None:
            found = next((row["trial_id"] for row in rows if row["source"] == BASELINE), None)
            self.values["baseline_trial_id"] = found
        if self.values.get("reference_point") is None and complete:
            self.values["reference_point"] = {
                SECONDS_PER_EPOCH: REFERENCE_SECONDS * complete[0][SECONDS_PER_EPOCH],
                VAL_MSE: REFERENCE_MSE * complete[0][VAL_MSE],
            }
        self.values["status"] = status
        self.values["finished_at"] = None if status == "running" else now()
        self.values["elapsed_seconds"] = round(self.elapsed_seconds, 3)
        self._folder.write_manifest(self.values)


def _train_command(devices: int) -> list[str]:
    """How a run is started: by PyTorch's launcher, if the trials had several devices."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(devices)] if devices > 1 else []
    return ["python", *launcher, "timellm/run_main.py"]


def _description(options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    return {
        "status": "running",
        "finished_at": None,
        "space": space.to_dict(),
        "objective": options.objective,
        "time_weight": options.time_weight,
        "time_budget_seconds": options.time_budget,
        "num_trials": options.num_trials,
        "sampler": options.sampler,
        "scheduler": options.scheduler or "none",
        "seed": options.seed,
        "machine": facts["machine"],
        "versions": facts["versions"],
        "git_revision": facts["git_revision"],
        "features": list(facts["features"]),
        "data": facts["data"],
        "backbone": facts["backbone"],
        "run_defaults": RunConfig().to_dict(),
        "run_config": config.to_dict(),
        "project_root": str(PROJECT_ROOT),
        "python": sys.executable,
        "train_command": _train_command(options.devices_per_trial),
        "command": ["python", "search/run.py", *sys.argv[1:]],
        "options": options.to_dict(),
    }
