"""Runs a prepared search in Ray: measures the baseline, plans, and lets Tune run the trials."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from search.decide.confirmation import REPEATS
from search.decide.controls import control_config, controls_of
from search.decide.halving import Halving, rungs_of
from search.decide.ledger import Ledger
from search.decide.objective import Objective
from search.decide.plan import (
    PROBE_STEPS,
    Costs,
    Fidelity,
    Plan,
    choose_plan,
    fixed_plan,
    parse_fidelity,
    probe_config,
)
from search.decide.samplers import make_sampler
from search.decide.study import Proposal, SearchStudy, Settings, StudyOptions
from search.screen.interrupts import Interrupts
from search.screen.live_report import LiveReport
from search.screen.terminal import Limits, Terminal
from search.setup.hardware import PROJECT_ROOT
from search.setup.manifest import Manifest
from search.setup.preparation import Preparation
from search.setup.resources import share_cluster
from search.tune.dashboard import Ray, start_ray, stop_ray, token_path
from search.tune.worker_process import WORKER_COMMAND, WorkerProcess, WorkerSettings
from timellm.contract.columns import SAMPLER, State
from timellm.contract.config import RunConfig
from timellm.contract.job import MIN_TIMED_STEPS, Job, Launch
from timellm.contract.layout import TrialFolder

INTERRUPTED = "The search was interrupted by the user. Go on with --resume."
_UNMEASURED = 256
"""Training windows of a trial where the baseline could not be measured."""


@dataclass
class Ended:
    """How a search ended.

    Attributes:
        is_interrupted: Whether the user ended it.
        reason: Why no further trial was started.
        failure: What broke the search itself; None if nothing did.
    """

    is_interrupted: bool = False
    reason: str = ""
    failure: str | None = None


class Session:
    """One session of a search: from the start of Ray to the last row.

    Args:
        prepared: The search.
        manifest: Its manifest.
        ledger: Its table, with the rows of earlier sessions.
        terminal: Where it is shown.
        worker_command: Program that trains.
    """

    def __init__(
        self,
        prepared: Preparation,
        manifest: Manifest,
        ledger: Ledger,
        terminal: Terminal,
        worker_command: tuple[str, ...] = WORKER_COMMAND,
    ) -> None:
        self._prepared, self._manifest, self._ledger = prepared, manifest, ledger
        self._terminal, self._command = terminal, worker_command
        self._notes = list(prepared.notes)

    def run(self, interrupts: Interrupts) -> Ended:
        """Search until there is no time, no trial or no configuration left, or the user ends it."""
        with self._ray():
            deadline = self._deadline()
            plan = self._plan(deadline, interrupts)
            if interrupts.count:
                return Ended(is_interrupted=True, reason=INTERRUPTED)
            self._say(str(plan), *plan.notes)
            self._manifest.plan(plan, self._notes)
            self._manifest.update(self._ledger.rows)
            self._measure_controls(plan, interrupts)
            if interrupts.count:
                return Ended(is_interrupted=True, reason=INTERRUPTED)
            return self._search(plan, deadline, interrupts)

    def _say(self, *notes: str) -> None:
        for note in notes:
            self._terminal.say(note)

    def _note(self, note: str, is_kept: bool) -> None:
        """Print a note about a trial; the manifest keeps it where it tells how a row came about."""
        self._say(note)
        if is_kept:
            self._manifest.values["notes"].append(note)

    @contextlib.contextmanager
    def _ray(self) -> Iterator[Ray]:
        import ray

        options, resources = self._prepared.options, self._prepared.resources
        started = start_ray(
            cores=self._prepared.facts["machine"]["cores"],
            gpus=len(self._prepared.facts["machine"]["gpus"]) if resources.gpus else 0,
            address=options.address,
            dashboard=options.dashboard,
        )
        self._notes += started.notes
        self._say(*started.notes)
        if started.dashboard_url:
            path = token_path()
            self._say(f"Ray dashboard: {started.dashboard_url}" + (f" (its token is in {path})" if path else ""))
        try:
            if options.address is not None:
                self._share_cluster([node["Resources"] for node in ray.nodes() if node["Alive"]])
            yield started
        finally:
            stop_ray()

    def _share_cluster(self, nodes: list[dict[str, float]]) -> None:
        asked = self._prepared.options.max_concurrent
        resources, notes = share_cluster(self._prepared.resources, nodes, asked)
        self._prepared = dataclasses.replace(self._prepared, resources=resources)
        self._notes += notes
        self._say(*notes)

    def _deadline(self) -> float | None:
        budget = self._prepared.options.time_budget
        return None if budget is None else time.time() + budget - self._manifest.elapsed_seconds

    def _worker(self, config: RunConfig) -> WorkerSettings:
        threads = self._prepared.resources.threads(config)
        return WorkerSettings(
            command=self._command,
            project_root=str(PROJECT_ROOT),
            environment=self._prepared.facts["environments"][str(threads)],
            trial_timeout=self._prepared.options.trial_timeout,
        )

    def _job(self, config: RunConfig, folder: TrialFolder, rungs: tuple[int, ...] = ()) -> Job:
        resources = self._prepared.resources
        return Job(
            config=config.to_dict(),
            run_dir=str(folder.path),
            threads=resources.threads(config),
            max_memory_gib=resources.max_memory_gib,
            rungs=rungs,
            launch=self._launch(config),
        )

    def _launch(self, config: RunConfig) -> Launch | None:
        """What a trial on several devices needs to be run by Ray Train."""
        import ray

        resources = self._prepared.resources
        if resources.devices == 1:
            return None
        address = ray.get_runtime_context().gcs_address
        return Launch(devices=resources.devices, resources=resources.bundle(config), address=address)

    def _plan(self, deadline: float | None, interrupts: Interrupts) -> Plan:
        """The plan: as the user fixed it, as an earlier session made it, or from a measured probe."""
        earlier = self._manifest.values.get("fidelity")
        if earlier:
            expected = self._manifest.values.get("expected") or {}
            return Plan(fidelity=Fidelity(**earlier), trial_seconds=expected.get("baseline_seconds"))
        asked = parse_fidelity(self._prepared.options.fidelity or "auto")
        if asked != "auto":
            return fixed_plan(asked)
        baseline, windows = self._prepared.baseline, self._prepared.facts["data"]["windows"]
        self._say("Measuring the baseline for a moment, to plan the search ...")
        result = self._run_aside("probe", probe_config(baseline), interrupts)
        if result["state"] != State.COMPLETE or not result.get("seconds_per_epoch"):
            note = f"The baseline could not be measured, so the plan is a guess: {result.get('error')}"
            return Plan(fidelity=Fidelity.of_samples(_UNMEASURED), notes=(note,))
        costs = Costs.from_result(result, windows, MIN_TIMED_STEPS, self._prepared.facts.get("slowdown") or {})
        return choose_plan(
            costs=costs,
            config=baseline,
            windows=windows,
            seconds=None if deadline is None else deadline - time.time(),
            plans=self._prepared.plans,
            precisions=self._prepared.choices("precision"),
            prompt_prefixes=self._prepared.choices("prompt_prefix"),
            repeats=REPEATS * (self._prepared.options.confirm + 1) if self._prepared.options.confirm else 0,
        )

    def _measure_controls(self, plan: Plan, interrupts: Interrupts) -> None:
        """What a forecast without the language model reaches at the same fidelity, for the report."""
        if self._manifest.values.get("controls"):
            return
        config = plan.fidelity.apply(control_config(self._prepared.baseline))
        controls = controls_of(self._run_aside("control", config, interrupts))
        if interrupts.count:
            return
        self._manifest.values["controls"] = controls
        self._manifest.update(self._ledger.rows)
        listed = ", ".join(f"{control['name']} {control['val_mse']:.4f}" for control in controls)
        self._say(f"Without a language model, validation MSE: {listed or 'not measured'}.")

    def _run_aside(self, name: str, config: RunConfig, interrupts: Interrupts) -> dict[str, Any]:
        """The result of a run that is no trial: no row, its cost in the time budget."""
        from search.tune.trainable import ask_to_stop, follow, forget_stop

        folder = TrialFolder(self._prepared.folder.path / name)
        forget_stop(folder.path)
        interrupts.on_interrupt = lambda now: ask_to_stop(folder.path, INTERRUPTED, now=now)
        job = dataclasses.replace(self._job(config, folder), min_timed_steps=PROBE_STEPS)
        worker = WorkerProcess(self._worker(config), job)
        try:
            while follow(worker, folder, None) is not None:
                pass
            return worker.outcome()
        finally:
            worker.kill(INTERRUPTED)

    def _search(self, plan: Plan, deadline: float | None, interrupts: Interrupts) -> Ended:
        from search.tune.tuning import Tuning

        def make_config(proposal: Proposal) -> RunConfig:
            return plan.fidelity.apply(self._prepared.run_config(proposal))

        study, rungs = self._study(plan.fidelity), self._rungs(plan.fidelity)
        tuning = Tuning(
            prepared=self._prepared,
            study=study,
            ledger=self._ledger,
            worker=self._worker,
            make_job=lambda config, folder: self._job(config, folder, rungs),
            make_config=make_config,
            plan=plan,
            halving=Halving(rungs, whole=self._whole(plan.fidelity)) if rungs else None,
            deadline=deadline,
        )
        tuning.searcher.on_start = self._terminal.started
        tuning.searcher.on_note = self._note
        report = LiveReport(self._prepared.folder, self._terminal.say)

        def after_row() -> None:
            self._manifest.update(self._ledger.rows)
            report.refresh()

        tuning.searcher.after_row = after_row
        self._ledger.on_row = lambda row: self._terminal.ended(row, self._ledger.rows)
        interrupts.on_interrupt = lambda now: tuning.searcher.stop(INTERRUPTED, now=now)
        if interrupts.count:
            tuning.searcher.stop(INTERRUPTED)
        report.refresh()
        self._say(f"Report, refreshed as trials end: {self._prepared.folder.report}")
        limits = Limits(deadline=deadline, num_trials=self._prepared.options.num_trials)
        self._terminal.begin(self._prepared.space, self._ledger.rows, limits)
        try:
            failure = tuning.run()
        finally:
            self._terminal.end()
            study.close()
        return Ended(is_interrupted=interrupts.count > 0, reason=tuning.searcher.ended_because, failure=failure)

    def _whole(self, fidelity: Fidelity) -> int:
        """Training windows that a whole trial sees."""
        epoch = self._prepared.facts["data"]["windows"]["train"]
        return fidelity.train_samples or self._prepared.baseline.train_epochs * epoch

    def _rungs(self, fidelity: Fidelity) -> tuple[int, ...]:
        """Where poor trials are stopped; nowhere without the scheduler."""
        if self._prepared.options.scheduler != "moasha":
            return ()
        return rungs_of(fidelity, self._prepared.baseline, self._prepared.facts["data"]["windows"]["train"])

    def _study(self, fidelity: Fidelity) -> SearchStudy:
        prepared, options = self._prepared, self._prepared.options

        def refusal(settings: Settings, source: str) -> str | None:
            reason = prepared.refusal(settings)
            if reason is None and source == SAMPLER:
                reason = fidelity.refusal(prepared.config.replace(**settings), prepared.resources.devices)
            return reason

        seed = options.seed + len(self._ledger.rows)
        study_options = StudyOptions(
            name=prepared.folder.name,
            storage=prepared.folder.study,
            sampler=make_sampler(options.sampler, prepared.space, seed),
            objective=Objective(options.objective, options.time_weight),  # type: ignore[arg-type]
            limit_gib=prepared.resources.max_memory_gib,
            refusal=refusal,
            seed=seed,
        )
        study = SearchStudy(prepared.space, study_options, self._ledger.rows)
        if prepared.warm_rows and study.is_new:
            same = [row for row in prepared.warm_rows if fidelity.is_of(row)]
            count = study.inform(same, str(options.warm_start))
            self._say(f"The sampler learns from {count} trials of {options.warm_start} at the same fidelity.")
        return study
