"""The benchmark of the best recipe: what it chooses, pairs and tells."""

import json

import pytest

from benchmarks.recipe import Recipe, Weighing, fast_sets, ladder
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder
from timellm.contract.numbers import numbers_key

BASELINE = RunConfig(llm_weights="random", llm_dim=32, llm_layers=2, batch_size=32, num_prototypes=16, num_workers=0)
FAST = BASELINE.replace(prompt_prefix="reuse", attention="sdpa", llm_layers=1)


class Played:
    """Trainings whose error is their number of layers, and a little for the seed."""

    def __init__(self):
        self.asked = []

    def result(self, config, **job):
        self.asked.append((config, job))
        return {"val_mse": config.llm_layers + config.seed / 1e6}


def weighing():
    return Weighing(Played(), 512, BASELINE.replace(val_samples=128, eval_batch_size=16))


def test_the_baseline_becomes_the_recipe_one_setting_at_a_time():
    steps = ladder(BASELINE, FAST)
    assert [name for name, _ in steps] == ["baseline", "prompt_prefix reuse", "attention sdpa", "llm_layers 1"]
    assert steps[0][1] == BASELINE
    assert steps[-1][1] == FAST


def test_errors_are_trained_on_the_cheapest_path_and_the_same_windows():
    scales = weighing()
    scales.error(BASELINE, 7)
    [(run, job)] = scales.runs.asked
    assert (run.prompt_prefix, run.attention) == ("reuse", "sdpa")
    assert (run.seed, run.train_samples, run.val_samples, run.eval_batch_size) == (7, 512, 128, 16)
    assert (job["clock"], job["order_seed"]) == ("error", BASELINE.seed)


def test_no_seed_that_chose_the_recipe_is_compared():
    scales = weighing()
    assert scales.best([BASELINE, FAST]) == FAST
    chosen_with = {config.seed for config, _ in scales.runs.asked}
    pairs = scales.paired({"baseline": BASELINE, "recipe": FAST}, 3)
    assert set(pairs["baseline"]) == set(pairs["recipe"])
    assert len(pairs["recipe"]) == 3
    assert not chosen_with & set(pairs["recipe"])


def test_the_fast_sets_of_a_search_come_with_the_settings_they_were_timed_with():
    folder = RunFolder("tests/fixtures/earlier_run")
    baseline, found = fast_sets(folder, 1.0)
    jobs = [json.loads(path.read_text())["config"] for path in folder.trials.glob("*/job.json")]
    assert baseline.to_dict() in [RunConfig.from_dict(job).to_dict() for job in jobs]
    assert len({numbers_key(one.to_dict()) for one in found}) == len(found) > 0


def test_a_search_without_a_fast_set_says_how_fast_its_best_is():
    with pytest.raises(InputError, match=r"must be 1000 times as fast as the baseline, the best is \d"):
        fast_sets(RunFolder("tests/fixtures/earlier_run"), 1000.0)


@pytest.mark.parametrize("flag", ["windows", "seeds", "screened", "repeats"])
def test_too_little_to_compare_is_refused(flag):
    arguments = Recipe().parser().parse_args([f"--{flag}", "0"])
    with pytest.raises(InputError, match=f"--{flag} must be at least"):
        Recipe().measure(arguments)
