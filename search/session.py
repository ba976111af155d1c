"""Runs a prepared search in Ray: builds its loop and lets Tune run the jobs."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from search.decide.clocks.confirmation import Confirmation
from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.ledger import Ledger
from search.decide.loop import Loop
from search.decide.propose.objective import Objective
from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import SearchStudy, StudyOptions, WarmStart
from search.decide.spend.limits import Limits
from search.decide.spend.plan import Plan
from search.decide.spend.spending import TimeSpent, timing_seconds
from search.decide.workplace import Workplace
from search.screen.interrupts import Interrupts
from search.screen.live_report import LiveReport
from search.screen.screen import Screen
from search.screen.terminal import Terminal
from search.setup.manifest import ManifestFile
from search.setup.planner import costs_of, planner_of
from search.setup.preparation import Preparation
from search.setup.resources import share_cluster
from search.setup.resumption import earlier_plan
from search.tune.cluster import Ray, alive_nodes, dead_process, gcs_address, start_ray, stop_ray, token_path
from search.tune.forked import SERVER_COMMAND
from search.tune.worker_process import WORKER_COMMAND, WorkerSettings
from timellm.contract.config import RunConfig
from timellm.contract.job import Launch
from timellm.machine.process import PROJECT_ROOT

INTERRUPTED = "The search was interrupted by the user. Continue with --resume."


@dataclass
class SearchEnd:
    """How a search ended.

    Attributes:
        is_interrupted: Whether the user ended it.
        reason: Why no further trial was started.
        failure: What broke the search itself; None if nothing did.
        refusal: Why nothing of it can be trained; None unless the baseline was refused as bad input.
    """

    is_interrupted: bool = False
    reason: str = ""
    failure: str | None = None
    refusal: str | None = None


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
        manifest: ManifestFile,
        ledger: Ledger,
        terminal: Terminal,
        worker_command: tuple[str, ...] = WORKER_COMMAND,
    ) -> None:
        self._prepared, self._manifest, self._ledger = prepared, manifest, ledger
        self._terminal, self._command = terminal, worker_command
        self._notes = list(prepared.notes)
        self._scheduler = SCHEDULERS[prepared.options.scheduler or "none"]()

    def run(self, interrupts: Interrupts) -> SearchEnd:
        """Search until there is no time, no trial or no configuration left, or the user ends it."""
        with self._ray():
            report = LiveReport(self._prepared.folder, self._terminal.say)
            time_spent = TimeSpent(self._manifest.values.time_spent)
            screen = Screen(self._terminal, self._manifest, report, self._notes, time_spent)
            study = self._study()
            try:
                return self._search(self._loop(study, screen, time_spent), report, interrupts)
            finally:
                study.close()

    def _search(self, loop: Loop, report: LiveReport, interrupts: Interrupts) -> SearchEnd:
        from search.tune.searcher import LoopSearcher
        from search.tune.tuning import run_in_tune

        prepared = self._prepared
        searcher = LoopSearcher(
            loop,
            trials=prepared.folder.trials,
            worker=self._worker,
            request=prepared.resources.request,
            dead=dead_process,
        )
        interrupts.tell(lambda now: searcher.stop(INTERRUPTED, now=now))
        report.refresh()
        self._terminal.say(f"Report, refreshed as trials end: {prepared.folder.report}")
        self._terminal.begin(prepared.space, self._ledger.rows, self._limits)
        try:
            failure = run_in_tune(
                searcher,
                storage=prepared.folder.ray,
                scheduler=self._scheduler,
                max_concurrent=prepared.resources.max_concurrent,
            )
        finally:
            self._terminal.end()
        return SearchEnd(interrupts.count > 0, reason=loop.ended_because, failure=failure, refusal=loop.refusal)

    def _loop(self, study: SearchStudy, screen: Screen, time_spent: TimeSpent) -> Loop:
        """The loop of this search, with what earlier sessions found."""
        prepared, options = self._prepared, self._prepared.options
        facts, resources = prepared.facts, prepared.resources
        budget = options.time_budget
        deadline = None if budget is None else time.time() + budget - self._manifest.elapsed_seconds
        self._limits = Limits(deadline=deadline, num_trials=options.num_trials, budget_seconds=budget)
        planner = planner_of(prepared)
        plan = earlier_plan(self._manifest.values, prepared.folder)
        if plan is None:
            plan = planner.without_measurement()
            if plan is not None:
                screen.planned(plan, self._ledger.rows)
            else:
                self._terminal.say("Timing the baseline, to plan the search ...")
        is_causal = "causal" in facts["features"]
        return Loop(
            space=prepared.space,
            study=study,
            ledger=self._ledger,
            folder=prepared.folder,
            run_config=prepared.run_config,
            planner=planner,
            costs=costs_of(prepared),
            workplace=Workplace(
                threads=resources.threads,
                max_memory_gib=resources.max_memory_gib,
                timing_seconds=timing_seconds(budget),
                launch=self._launch,
                devices=resources.devices,
                order_seed=options.seed,
                is_causal=is_causal,
            ),
            limits=self._limits,
            confirmation=Confirmation(prepared.space, self._ledger, options.confirm, options.seed, study.new_trial_id),
            listener=screen,
            rungs_of=self._rungs,
            plan=plan,
            has_controls=bool(self._manifest.values.controls),
            time_spent=time_spent,
            warm_start=WarmStart(str(options.warm_start), prepared.warm_rows),
            seed=options.seed,
        )

    def _rungs(self, plan: Plan) -> tuple[int, ...]:
        """Where poor trials may be stopped; the rungs follow the plan, which is made later."""
        train = self._prepared.facts["data"]["windows"]["train"]
        return self._scheduler.plan(plan.fidelity, self._prepared.baseline, train)

    def _study(self) -> SearchStudy:
        prepared, options = self._prepared, self._prepared.options
        seed = options.seed + len(self._ledger.rows)
        study_options = StudyOptions(
            name=prepared.folder.name,
            storage=prepared.folder.study,
            sampler=make_sampler(options.sampler, prepared.space, seed),
            objective=Objective(options.objective, options.time_weight),  # type: ignore[arg-type]
            limit_gib=prepared.resources.max_memory_gib,
            refusal=lambda settings, source: prepared.refusal(settings),
            seed=seed,
        )
        return SearchStudy(prepared.space, study_options, self._ledger.rows)

    def _worker(self, config: RunConfig) -> WorkerSettings:
        threads = self._prepared.resources.threads(config)
        return WorkerSettings(
            command=self._command,
            project_root=str(PROJECT_ROOT),
            environment=self._prepared.facts["environments"][str(threads)],
            trial_timeout=self._prepared.options.trial_timeout,
            server=SERVER_COMMAND if self._command == WORKER_COMMAND else None,
            search=os.getpid() if self._prepared.options.address is None else None,
        )

    def _launch(self, config: RunConfig) -> Launch | None:
        """What a trial on several devices needs to be run by Ray Train."""
        resources = self._prepared.resources
        if resources.devices == 1:
            return None
        return Launch(devices=resources.devices, resources=resources.bundle(config), address=gcs_address())

    @contextlib.contextmanager
    def _ray(self) -> Iterator[Ray]:
        options, resources = self._prepared.options, self._prepared.resources
        started = start_ray(
            cores=self._prepared.facts["machine"]["cores"],
            gpus=len(self._prepared.facts["machine"]["gpus"]) if resources.gpus else 0,
            address=options.address,
            dashboard=options.dashboard,
        )
        self._note(*started.notes)
        if started.dashboard_url:
            path = token_path()
            token = f" (its token is in {path})" if path else ""
            self._terminal.say(f"Ray dashboard: {started.dashboard_url}{token}")
        try:
            if options.address is not None:
                self._share_cluster(alive_nodes())
            yield started
        finally:
            stop_ray()

    def _share_cluster(self, nodes: list[dict[str, float]]) -> None:
        asked = self._prepared.options.max_concurrent
        resources, notes = share_cluster(self._prepared.resources, nodes, asked)
        self._prepared = dataclasses.replace(self._prepared, resources=resources)
        self._note(*notes)

    def _note(self, *notes: str) -> None:
        self._notes += notes
        for note in notes:
            self._terminal.say(note)
