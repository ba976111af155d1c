"""What every sampler of `--sampler` must do. A new one inherits `SamplerContract` in `test_samplers.py`."""

import dataclasses

from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import SearchStudy, StudyOptions
from spaces import Knob, Space

SPACE = Space(
    name="contract",
    knobs=(
        Knob(name="precision", values=("fp32", "bf16")),
        Knob(name="batch_size", values=(8, 16, 32, 64)),
        Knob(name="learning_rate", low=1e-5, high=1e-3, log=True),
        Knob(name="use_swt", values=(False, True)),
        Knob(name="swt_level", values=(1, 2, 3), when={"use_swt": (True,)}),
    ),
    baseline={"precision": "fp32", "batch_size": 32, "learning_rate": 1e-4, "use_swt": False, "swt_level": 3},
)
"""Each kind of knob: a choice, an uneven list, a range, a switch, and a knob that counts only under a condition."""
FIRST = 1
"""Trials that no sampler proposes: the baseline."""


class SamplerContract:
    """Fake trials of one sampler; a subclass sets `name`."""

    name: str
    trials = 9
    """Trials of a search: more than a model needs to begin."""

    def study(self, space=SPACE, seed=0, **options):
        return SearchStudy(
            space, StudyOptions(name="contract", sampler=make_sampler(self.name, space, seed), **options)
        )

    def search(self, study, end=None):
        """Settings of as many trials as the study gives, each ended with a row."""
        found = []
        while len(found) < self.trials and (proposal := study.propose()) is not None:
            found.append(proposal.settings)
            study.finish(proposal.trial_id, (end or row_of)(proposal))
        return found

    def test_every_proposal_is_one_of_the_space_and_a_new_one(self):
        found = self.search(self.study())

        assert len(found) == self.trials
        assert len({tuple(settings.items()) for settings in found}) == self.trials
        for settings in found:
            assert settings["batch_size"] in (8, 16, 32, 64)
            assert 1e-5 <= settings["learning_rate"] <= 1e-3
            assert settings["use_swt"] or settings["swt_level"] == SPACE.settings({})["swt_level"]

    def test_a_seed_repeats_the_proposals_and_another_does_not(self):
        one, same, other = (self.search(self.study(seed=seed)) for seed in (1, 1, 2))

        assert one == same
        assert one[FIRST:] != other[FIRST:]

    def test_a_seed_may_be_large(self):
        assert len(self.search(self.study(seed=2**32 + 3))) == self.trials

    def test_trials_that_fail_end_no_search(self):
        def end(proposal):
            state = "failed" if proposal.settings["precision"] == "bf16" else "complete"
            return row_of(proposal, state)

        assert len(self.search(self.study(), end)) == self.trials

    def test_a_space_of_few_configurations_is_searched_to_its_end(self):
        space = dataclasses.replace(
            SPACE, knobs=SPACE.knobs[:1], fixed={"batch_size": 32}, baseline={"precision": "fp32"}
        )
        study = self.study(space)

        assert {settings["precision"] for settings in self.search(study)} == {"fp32", "bf16"}
        assert study.propose() is None

    def test_knobs_that_are_held_keep_their_values(self):
        study = self.study()
        study.finish((first := study.propose()).trial_id, row_of(first))
        held = {"batch_size": 8, "learning_rate": 3e-4}

        for _ in range(3):
            proposal = study.propose(held)
            assert held.items() <= proposal.settings.items()
            study.finish(proposal.trial_id, row_of(proposal))


def row_of(proposal, state="complete"):
    """The row of a fake trial: half precision and big batches are faster, small learning rates worse."""
    settings = proposal.settings
    measured = {
        "val_mse": 0.4 + 0.001 * settings["batch_size"] + 1e-5 / settings.get("learning_rate", 1e-4),
        "seconds_per_epoch": (20.0 if settings["precision"] == "fp32" else 10.0) + 100 / settings["batch_size"],
        "peak_memory_gib": 0.1 * settings["batch_size"],
    }
    return {
        "trial_id": proposal.trial_id,
        "source": proposal.source,
        "state": state,
        **(measured if state == "complete" else dict.fromkeys(measured)),
        **{f"config/{name}": value for name, value in settings.items()},
    }
