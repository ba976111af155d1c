"""What a report shows is computed once and handed on, and other outputs say the same."""

import sys
from collections import Counter

from results.analysis.evidence import gather, recommendation_of
from results.analysis.fidelity import main_fidelity
from results.analysis.pareto import average_repeats, front_of, references_of
from tests.results.synthetic import make_errors, make_rows, make_run


def test_the_rows_that_may_be_compared_are_chosen_once_for_a_whole_report(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(20))
    watched = {function.__code__: function.__name__ for function in (main_fidelity, average_repeats, front_of)}
    watched[references_of.__code__] = references_of.__name__
    calls = Counter()

    def count(frame, event, argument):
        if event == "call" and frame.f_code in watched:
            calls[watched[frame.f_code]] += 1

    sys.setprofile(count)
    try:
        gather(folder)
    finally:
        sys.setprofile(None)

    assert calls == dict.fromkeys(watched.values(), 1)


def test_the_picks_of_a_folder_are_those_of_its_report_where_errors_were_measured_apart(tmp_path):
    rows = make_rows(20)
    folder = make_run(tmp_path / "t1", rows)
    make_errors(folder, rows)

    picks, shown = recommendation_of(folder).picks, gather(folder).recommendation.picks

    assert [(pick.trial_id, pick.reason) for pick in picks] == [(pick.trial_id, pick.reason) for pick in shown]
    assert any(pick.difference is not None for pick in picks)
