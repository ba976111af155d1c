"""Hands a loop to Ray Tune."""

import sys
import time
from pathlib import Path

from ray import tune

from search.decide.clocks.schedulers import Scheduler
from search.tune.cluster import dead_process
from search.tune.scheduler import RungScheduler
from search.tune.searcher import LoopSearcher
from search.tune.trainable import WorkerTrainable
from search.tune.watch import Watch
from timellm.contract.errors import error_words


def load_tensorboard() -> None:
    """Load the writer of Tune's TensorBoard logs without torch, which it would import only to recognise tensors."""
    if "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX  # noqa: F401
    finally:
        del sys.modules["torch"]


def run_in_tune(searcher: LoopSearcher, *, storage: Path, scheduler: Scheduler, max_concurrent: int) -> str | None:
    """Run a search as one Ray Tune experiment, until the searcher has nothing more to try.

    Args:
        searcher: The search.
        storage: Folder of the experiment.
        scheduler: Decides which trials are stopped at their rungs.
        max_concurrent: Jobs at the same time.

    Returns:
        What broke the experiment, in one line; None if nothing did.
    """
    storage.mkdir(parents=True, exist_ok=True)
    load_tensorboard()
    tuner = tune.Tuner(
        WorkerTrainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RungScheduler(scheduler),
            num_samples=-1,
            max_concurrent_trials=max_concurrent,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.config["trial_id"]),
            trial_dirname_creator=lambda trial: str(trial.config["trial_id"]),
        ),
        run_config=tune.RunConfig(name=time.strftime("%Y-%m-%d-%H%M%S"), storage_path=str(storage), verbose=0),
    )
    watch = Watch(lambda: dead_process() or searcher.overdue(), is_busy=lambda: searcher.is_busy)
    try:
        with watch:
            tuner.fit()
    except Exception as error:
        searcher.failure = error_words(error)
    except KeyboardInterrupt:
        if watch.problem is None:  # a third Ctrl-C
            raise
    finally:
        if watch.problem is not None:
            searcher.break_off(watch.problem)
        searcher.close()
    return searcher.failure
