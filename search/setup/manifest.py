"""The manifest of a run folder: what was planned, with what, and where the search stands."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from search.decide.spend.plan import Plan
from search.setup.options import Options
from spaces import Space
from timellm.contract.columns import BASELINE, OBJECTIVES, SECONDS_PER_EPOCH, VAL_MSE, State, Status
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import (
    BackboneFacts,
    DataFacts,
    Expected,
    Machine,
    Manifest,
    PlannedFidelity,
    SpaceRecord,
)
from timellm.contract.words import utc
from timellm.machine.process import PROJECT_ROOT

REFERENCE_SECONDS, REFERENCE_MSE = 2.0, 1.5
"""The hypervolume's reference point, relative to the first complete trial: worse than what is of interest."""


class ManifestFile:
    """Keeps manifest.json: it is written when a search starts, after every trial, and at the end.

    Args:
        folder: The run folder.
        values: Everything that is known so far.
    """

    def __init__(self, folder: RunFolder, values: Manifest) -> None:
        self._folder = folder
        self.values = values
        self._resumed_at = time.monotonic()
        self._seconds_before = float(values.elapsed_seconds)

    @classmethod
    def create(
        cls, folder: RunFolder, *, options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig
    ) -> "ManifestFile":
        """The manifest of a new search.

        Args:
            folder: The run folder.
            options: The command line.
            space: The resolved space.
            facts: From `search.setup.hardware.FactFinder`.
            config: Settings of every run that the space does not vary.
        """
        started = Manifest(name=folder.name, created_at=utc(time.time()))
        return cls(folder, _described(started, options, space, facts, config))

    def describe(self, *, options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig) -> None:
        """Renew what a resumed search may change: its command, its limits and its machine."""
        self.values = _described(self.values, options, space, facts, config)

    def keep(self, **changes: Any) -> None:
        """Change fields of the manifest; they are written with the next `update`."""
        self.values = dataclasses.replace(self.values, **changes)

    def plan(self, plan: Plan, notes: Sequence[str]) -> None:
        """Record the plan and the changes that were printed, those of earlier sessions included."""
        spending = plan.spending.to_dict() if plan.spending else None
        self.keep(
            fidelity=PlannedFidelity.from_dict(plan.fidelity.to_dict()),
            clocks=plan.clocks,
            expected=Expected(baseline_seconds=plan.trial_seconds, trials=plan.trials, spending=spending),
            notes=tuple(dict.fromkeys([*self.values.notes, *notes])),
        )

    @property
    def elapsed_before(self) -> float:
        """Seconds that earlier sessions have run."""
        return self._seconds_before

    @property
    def elapsed_seconds(self) -> float:
        """Seconds that the search has run, earlier sessions included."""
        return self._seconds_before + time.monotonic() - self._resumed_at

    def update(self, rows: Sequence[Mapping[str, Any]], status: Status = Status.RUNNING) -> None:
        """Write the manifest as it stands after a trial, or at the end.

        Args:
            rows: The table so far.
            status: Where the search stands.
        """
        complete = [row for row in rows if row["state"] == State.COMPLETE and None not in map(row.get, OBJECTIVES)]
        if self.values.baseline_trial_id is None:
            self.keep(baseline_trial_id=next((row["trial_id"] for row in rows if row["source"] == BASELINE), None))
        if self.values.reference_point is None and complete:
            point = {
                SECONDS_PER_EPOCH: REFERENCE_SECONDS * complete[0][SECONDS_PER_EPOCH],
                VAL_MSE: REFERENCE_MSE * complete[0][VAL_MSE],
            }
            self.keep(reference_point=point)
        self.keep(
            status=status,
            finished_at=None if status == Status.RUNNING else utc(time.time()),
            elapsed_seconds=round(self.elapsed_seconds, 3),
        )
        self._folder.write_manifest(self.values)


def _train_command(devices: int) -> tuple[str, ...]:
    """How a run is started: by PyTorch's launcher, if the trials had several devices."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(devices)] if devices > 1 else []
    return ("python", *launcher, "timellm/run_main.py")


def _described(
    before: Manifest, options: Options, space: Space, facts: Mapping[str, Any], config: RunConfig
) -> Manifest:
    """A manifest with what a session decides."""
    return dataclasses.replace(
        before,
        status=Status.RUNNING,
        finished_at=None,
        space=SpaceRecord.from_dict(space.to_dict()),
        objective=options.objective,
        time_weight=options.time_weight,
        time_budget_seconds=options.time_budget,
        num_trials=options.num_trials,
        sampler=options.sampler,
        scheduler=options.scheduler or "none",
        seed=options.seed,
        machine=Machine.from_dict(facts["machine"]),
        versions=facts["versions"],
        git_revision=facts["git_revision"],
        features=tuple(facts["features"]),
        data=DataFacts.from_dict(facts["data"]),
        backbone=BackboneFacts.from_dict(facts["backbone"]),
        run_defaults=RunConfig().to_dict(),
        run_config=config.to_dict(),
        project_root=str(PROJECT_ROOT),
        python=sys.executable,
        train_command=_train_command(options.devices_per_trial),
        command=("python", "search/run.py", *sys.argv[1:]),
        options=options.to_dict(),
    )
