import copy

import pytest
import torch

from tests.timellm.tiny_runs import set_up, tiny_config
from timellm.optimize.engine import build_optimizer, create_state


def trained(network, config, rows, *, is_early):
    network = copy.deepcopy(network)
    optimizer = build_optimizer(config, list(network.parameters()))
    if is_early:
        create_state(optimizer)
        optimizer.zero_grad()
    for row in rows:
        network(row).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("fused_optimizer", [False, True])
def test_moments_created_early_change_no_update(tmp_path, optimizer, fused_optimizer):
    torch.manual_seed(0)
    network, rows = torch.nn.Linear(4, 3), torch.randn(5, 4)
    settings = {"optimizer": optimizer, "weight_decay": 0.1, "fused_optimizer": fused_optimizer}
    config = tiny_config(tmp_path, learning_rate=0.1, **settings)
    early, late = (trained(network, config, rows, is_early=is_early) for is_early in (True, False))
    assert torch.equal(early, late)


def test_creating_moments_moves_nothing_and_counts_no_step():
    weight = torch.nn.Parameter(torch.randn(3))
    before, optimizer = weight.detach().clone(), torch.optim.AdamW([weight], lr=0.5, weight_decay=0.5)
    create_state(optimizer)
    assert torch.equal(weight.detach(), before)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.state[weight]["step"] == 0


def test_a_run_starts_with_moments_and_without_gradients(tmp_path):
    prepared, stepper, _ = set_up(tiny_config(tmp_path, prompt_prefix="reuse"))
    assert all(parameter.grad is None for parameter in prepared.model.parameters())
    states = stepper._engine._optimizer.state
    assert len(states) == len(list(prepared.model.trained_parameters()))
    assert all(state["step"] == 0 for state in states.values())
