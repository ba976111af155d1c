"""Hands a study to Ray Tune."""

import time
from collections.abc import Callable

from ray import tune

from search.decide.confirmation import Confirmation
from search.decide.halving import Halving
from search.decide.ledger import Ledger
from search.decide.plan import Plan
from search.decide.study import Proposal, SearchStudy
from search.setup.preparation import Preparation
from search.tune.scheduler import HalvingScheduler
from search.tune.searcher import Limits, StudySearcher
from search.tune.trainable import WorkerTrainable
from search.tune.worker_process import WorkerSettings
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import TrialFolder


class Tuning:
    """One Ray Tune experiment.

    Args:
        prepared: The search.
        study: What to try.
        ledger: Where rows go.
        worker: How the worker of a run is started.
        make_job: What it does in a folder.
        make_config: The run of a proposal.
        plan: The plan.
        halving: Rungs at which poor trials are stopped; None for none.
        deadline: Unix time at which the budget ends; None for never.
    """

    def __init__(
        self,
        *,
        prepared: Preparation,
        study: SearchStudy,
        ledger: Ledger,
        worker: Callable[[RunConfig], WorkerSettings],
        make_job: Callable[[RunConfig, TrialFolder], Job],
        make_config: Callable[[Proposal], RunConfig],
        plan: Plan,
        halving: Halving | None,
        deadline: float | None,
    ) -> None:
        self._prepared, self._halving = prepared, halving
        options = prepared.options
        self.searcher = StudySearcher(
            study=study,
            ledger=ledger,
            folder=prepared.folder,
            worker=worker,
            make_job=make_job,
            request=prepared.resources.request,
            make_config=make_config,
            limits=Limits(
                deadline=deadline,
                num_trials=options.num_trials,
                expected_seconds=plan.trial_seconds,
                budget_seconds=options.time_budget,
            ),
            confirmation=Confirmation(prepared.space, ledger, options.confirm, options.seed, study.new_trial_id),
        )

    def run(self) -> str | None:
        """Run until the searcher has nothing more to try.

        Returns:
            What broke the experiment, in one line; None if nothing did.
        """
        storage = self._prepared.folder.ray
        storage.mkdir(parents=True, exist_ok=True)
        tuner = tune.Tuner(
            WorkerTrainable,
            tune_config=tune.TuneConfig(
                search_alg=self.searcher,
                scheduler=HalvingScheduler(self._halving) if self._halving else None,
                num_samples=-1,
                max_concurrent_trials=self._prepared.resources.max_concurrent,
                reuse_actors=True,
                trial_name_creator=lambda trial: str(trial.config["trial_id"]),
                trial_dirname_creator=lambda trial: str(trial.config["trial_id"]),
            ),
            run_config=tune.RunConfig(
                name=time.strftime("%Y-%m-%d-%H%M%S"),
                storage_path=str(storage),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            self.searcher.failure = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        self.searcher.close()
        return self.searcher.failure
