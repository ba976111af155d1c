import pytest
import torch

from timellm.contract.config import RunConfig
from timellm.optimize.schedule import build_schedule, learning_rate_factor


def rates(config, steps, taken):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config.scaled_learning_rate)
    schedule = build_schedule(config, optimizer, steps)
    seen = []
    for _ in range(taken):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_type1_halves_from_the_second_epoch_on():
    config = RunConfig(lradj="type1", train_epochs=4, learning_rate=1.0)
    assert rates(config, steps=8, taken=8) == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_cosine_has_a_period_of_20_epochs():
    config = RunConfig(lradj="COS", learning_rate=1e-3)
    assert learning_rate_factor(config, 0) == pytest.approx(1)
    assert learning_rate_factor(config, 10.5) == pytest.approx(0.5, rel=1e-3)
    assert learning_rate_factor(config, 20) == pytest.approx(1e-5)


def test_one_cycle_rises_falls_and_stays_at_its_end():
    config = RunConfig(lradj="TST", learning_rate=1e-3, pct_start=0.3)
    seen = rates(config, steps=20, taken=30)
    assert max(seen) == pytest.approx(1e-3, rel=0.05)
    assert seen[0] < seen[5] > seen[19]
    assert len(set(seen[20:])) == 1


@pytest.mark.parametrize("steps", range(1, 12))
@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.5])
def test_one_cycle_fits_into_any_number_of_steps(steps, pct_start):
    seen = rates(RunConfig(lradj="TST", learning_rate=1e-3, pct_start=pct_start), steps, steps)
    assert all(0 < rate <= 1e-3 for rate in seen)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("sqrt", 2), ("linear", 4)])
def test_the_learning_rate_grows_with_the_global_batch(scaling, factor):
    config = RunConfig(lr_scaling=scaling, batch_size=32, accumulation_steps=4, learning_rate=1e-3, lradj="constant")
    assert rates(config, steps=3, taken=1) == [pytest.approx(factor * 1e-3)]
