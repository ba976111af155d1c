"""What a search does not propose, it names."""

import dataclasses

import pytest

from spaces import Knob
from tests.search.test_loop import SPACE, Search

OFFLOADING = dataclasses.replace(
    SPACE,
    knobs=(*SPACE.knobs[:2], Knob(name="offload_optimizer", values=("off", "cpu"))),
    baseline={"batch_size": 32, "llm_layers": 2, "offload_optimizer": "off"},
)


@pytest.mark.parametrize(("budget", "is_proposed"), [(600.0, False), (7200.0, True)])
def test_an_optimizer_that_would_compile_through_a_short_search_is_named_once(tmp_path, budget, is_proposed):
    search = Search(tmp_path, space=OFFLOADING, budget=budget).run()

    told = [note for note in search.heard.notes if "offload_optimizer cpu is not proposed" in note]
    proposed = [row for row in search.ledger.rows if row["config/offload_optimizer"] == "cpu"]
    assert bool(proposed) is is_proposed
    assert len(told) == (not is_proposed)
    assert is_proposed or told[0].endswith("of 600 s. Raise --time_budget to try it.")
