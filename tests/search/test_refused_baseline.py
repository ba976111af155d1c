"""A baseline whose worker refuses its input ends the search; the loop is played without Ray or processes."""

import pytest

from tests.search.test_loop import Search
from timellm.contract.job import BAD_INPUT

REFUSED = {"state": "failed", "error": "The weights are damaged.", BAD_INPUT: True, "total_seconds": 1.0}
"""The outcome of a job whose worker refused its input."""


@pytest.mark.parametrize("clocks", ["apart", "together"])
@pytest.mark.parametrize("asked", ["auto", 256])
def test_a_baseline_that_is_refused_ends_the_search_before_another_trial(tmp_path, clocks, asked):
    search = Search(tmp_path, clocks=clocks, asked=asked, has_controls=True)
    search.loop.ended(search.loop.next(), REFUSED)
    assert search.loop.next() is None
    assert search.loop.refusal == "The baseline cannot be trained: The weights are damaged."
    assert (search.heard.plan, search.heard.controlled) == (None, None)
    search.loop.close()
    rows = search.ledger.rows
    assert [row["state"] for row in rows] == ([] if (clocks, asked) == ("together", "auto") else ["interrupted"])
    again = Search(tmp_path / "again", clocks=clocks, asked=asked, has_controls=True, rows=rows, num_trials=1).run()
    assert [(row["trial_id"], row["state"]) for row in again.ledger.rows] == [("t0001", "complete")]


def test_a_baseline_whose_error_training_is_refused_ends_the_search(tmp_path):
    search = Search(tmp_path, has_controls=True)
    search.step()
    search.loop.ended(search.loop.next(), REFUSED)
    assert (search.loop.next(), [row["state"] for row in search.ledger.rows]) == (None, ["interrupted"])
    assert "damaged" in search.loop.refusal


def test_another_trial_that_is_refused_is_a_row(tmp_path):
    search = Search(tmp_path, clocks="together", has_controls=True, num_trials=3)
    search.step()
    search.loop.ended(search.loop.next(), REFUSED)
    search.run()
    assert [row["state"] for row in search.ledger.rows] == ["complete", "failed", "complete"]
    assert search.loop.refusal is None
