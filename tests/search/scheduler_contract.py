"""What every scheduler of `--scheduler` must do. A new one inherits `SchedulerContract` in `test_schedulers.py`."""

import pytest

from search.decide.clocks.schedulers import SCHEDULERS
from search.decide.spend.fidelity import Fidelity
from timellm.contract.config import RunConfig

WINDOWS = 1000
"""Windows of the training split."""
FIDELITIES = (Fidelity.of_samples(512), Fidelity.of_samples(32), Fidelity(kind="full"))


class SchedulerContract:
    """Fake trials of one scheduler; a subclass sets `name`."""

    name: str

    def planned(self, fidelity):
        """A scheduler, its rungs and what a whole trial sees, in training windows."""
        config = RunConfig(train_epochs=10)
        scheduler = SCHEDULERS[self.name]()
        rungs = scheduler.plan(fidelity, config, WINDOWS)
        return scheduler, rungs, fidelity.train_samples or config.train_epochs * WINDOWS

    @pytest.mark.parametrize("fidelity", FIDELITIES, ids=str)
    def test_rungs_rise_and_lie_below_a_whole_trial(self, fidelity):
        _, rungs, whole = self.planned(fidelity)

        assert list(rungs) == sorted(set(rungs))
        assert all(0 < rung < whole for rung in rungs)

    @pytest.mark.parametrize("fidelity", FIDELITIES, ids=str)
    def test_the_first_trial_and_every_better_one_pass(self, fidelity):
        scheduler, rungs, _ = self.planned(fidelity)

        for number in range(4):
            better = 1.0 / (number + 1)
            assert all(scheduler.passes(f"t{number}", rung, (better, better)) for rung in rungs)

    @pytest.mark.parametrize("fidelity", FIDELITIES, ids=str)
    def test_a_whole_trial_is_not_judged(self, fidelity):
        scheduler, rungs, whole = self.planned(fidelity)
        for rung in rungs:
            scheduler.passes("good", rung, (0.1, 0.1))

        assert scheduler.passes("poor", whole, (9.0, 9.0))

    def test_extreme_errors_are_judged_without_an_exception(self):
        scheduler, rungs, _ = self.planned(FIDELITIES[0])

        for number, value in enumerate((1e-300, 1.0, 1e300)):
            assert scheduler.passes(f"t{number}", rungs[0] if rungs else 1, (value, 1.0)) in (True, False)
