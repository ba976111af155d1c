"""What runs are predicted to cost, and what a plan makes of it."""

import pytest

from search.decide.spend.costs import RunCosts
from search.decide.spend.spending import SAMPLED_TOO_LONG, spend, too_long
from search.decide.spend.work import Work
from timellm.contract.columns import State
from timellm.contract.config import RunConfig

BASELINE = RunConfig(llm_layers=6, batch_size=32)
WINDOWS = {"train": 100_000, "validation": 10_000, "test": 10_000}
TIMED = {"state": State.COMPLETE, "seconds_per_batch": 11.4, "startup_seconds": 6.0}
WITH_CPU_ADAM = BASELINE.replace(offload_optimizer="cpu", prompt_prefix="reuse", llm_layers=1, batch_size=8)


def costs(*, has_cpu_adam: bool = False) -> RunCosts:
    """Of a machine with AVX2 whose baseline was timed."""
    found = RunCosts(Work(), WINDOWS, has_cpu_adam=has_cpu_adam)
    found.learn_timing(BASELINE, TIMED)
    return found


def test_deepspeed_maps_the_prototypes_at_every_micro_batch_in_fp16_alone():
    work = Work()
    plain = BASELINE.replace(prompt_prefix="reuse", accumulation_steps=4)
    sharded, half = (plain.replace(offload_optimizer="none", precision=name) for name in ("fp32", "fp16"))
    assert work.step_gflop(sharded) == work.step_gflop(plain)
    assert work.step_gflop(half) - work.step_gflop(plain) == pytest.approx(3 * work.mapping_gflop(plain))
    published = BASELINE.replace(accumulation_steps=4)
    assert work.step_gflop(published.replace(offload_optimizer="none")) == work.step_gflop(published)


def test_a_proposal_that_would_compile_through_a_short_search_is_refused_and_says_why():
    reason = too_long(costs(), WITH_CPU_ADAM, 600.0, SAMPLED_TOO_LONG)
    assert reason is not None
    assert reason.startswith("its compilation, warm-up and timed steps are predicted to take 1")
    assert too_long(costs(), WITH_CPU_ADAM, 7200.0, SAMPLED_TOO_LONG) is None
    assert too_long(costs(has_cpu_adam=True), WITH_CPU_ADAM, 600.0, SAMPLED_TOO_LONG) is None


def test_what_the_first_trial_has_compiled_no_later_one_is_expected_to():
    learnt = costs()
    before = learnt.timing_seconds(WITH_CPU_ADAM)
    learnt.learn_timing(WITH_CPU_ADAM, {**TIMED, "seconds_per_batch": 0.5, "compile_seconds": 108.0})
    assert learnt.compiling_seconds(WITH_CPU_ADAM) == 0.0
    assert learnt.timing_seconds(WITH_CPU_ADAM) < before - 100
    learnt.learn_timing(WITH_CPU_ADAM, {**TIMED, "seconds_per_batch": 0.5, "compile_seconds": 4.0})
    assert learnt.timing_seconds(WITH_CPU_ADAM) < before - 100


def test_a_plan_uses_its_reserve_only_to_reach_errors_of_256_windows():
    drawn = [BASELINE.replace(batch_size=16, llm_layers=2, prompt_prefix="reuse")]
    learnt, uses = costs(), 0
    for seconds in range(100, 1000, 10):
        planned = spend(learnt, BASELINE, [], drawn, seconds=seconds, train_windows=WINDOWS["train"])
        spent = sum(planned.spending.seconds.values())
        if planned.fits and spent > 0.85 * seconds:
            uses += 1
            assert planned.fidelity.train_samples == 256
            assert (planned.spending.trials, planned.spending.seeds) == (8, 2)
            assert spent <= 0.95 * seconds
    assert uses
