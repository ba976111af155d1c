import dataclasses

import pytest

from benchmarks.factorial import Conditions, Factorial
from benchmarks.replay import Replayed, Step
from benchmarks.replay_apart import SHARINGS, ReplayApart, Tables
from benchmarks.sharing import replayed_sharing, verdict
from spaces import load_space
from tests.search.test_search_efficiency import made_tables, part_of
from timellm.contract.errors import InputError

SPACE = """
[space]
name = "ways"
[search]
fidelity = 256
[fixed]
precision = "fp32"
[knobs.batch_size]
values = [8, 16, 32]
[knobs.llm_layers]
values = [1, 2]
[knobs.learning_rate]
values = [0.001, 0.003]
[knobs.prompt_prefix]
values = ["recompute", "reuse"]
[baseline]
batch_size = 32
llm_layers = 2
learning_rate = 0.001
prompt_prefix = "recompute"
"""
WHOLE, CHEAP, ERRORS, TODAY = SHARINGS


@pytest.fixture
def tables(tmp_path):
    path = tmp_path / "ways.toml"
    path.write_text(SPACE)
    table = made_tables(path, tmp_path / "made.csv")
    return Tables.load(table.path, load_space(str(path)))


def replayed(tables, sharing, scheduler="none"):
    """Every configuration, tried in a random order."""
    return ReplayApart(tables, enough=2).run(sharing, "random", scheduler, seed=0)


def seconds_of(tables, clock):
    """What all runs of a clock take with their starts, when workers are forked."""
    runs = Factorial(tables.table.space, tables.table.path, clock).runs()
    return sum(part_of(settings, clock).last.seconds + 1.0 for settings in runs), len(runs)


def test_a_time_serves_all_numbers_that_take_as_long_and_an_error_every_way_to_compute_it(tables):
    space, path = tables.table.space, tables.table.path
    assert len(list(space.configurations())) == 24
    for clock, free in (("time", "learning_rate"), ("error", "prompt_prefix")):
        table = Factorial(space, path, clock)
        assert len(table.runs()) == 12
        names = [knob.name for knob in space.knobs]
        for key, stand_in in table.stand_ins().items():
            differing = {name for name, one, other in zip(names, key, stand_in, strict=True) if one != other}
            assert differing <= {free}


def test_a_search_as_it_is_today_pays_once_for_each_time_and_each_error(tables):
    steps = replayed(tables, TODAY).steps
    assert len(steps) == 24
    assert all(step.is_complete for step in steps)
    assert steps[-1].share == pytest.approx(1)
    times, errors = seconds_of(tables, "time"), seconds_of(tables, "error")
    assert (times[1], errors[1]) == (12, 12)
    assert sum(step.seconds for step in steps) == pytest.approx(times[0] + errors[0])


def test_what_is_not_shared_is_paid_by_every_trial(tables):
    space, errors = tables.table.space, seconds_of(tables, "error")[0]
    timings = sum(part_of(settings, "time").last.seconds + 1.0 for settings in space.configurations())
    assert sum(step.seconds for step in replayed(tables, ERRORS).steps) == pytest.approx(timings + errors)
    neither = dataclasses.replace(TODAY, errors=False, times=False)
    trainings = sum(part_of(settings, "error").last.seconds + 1.0 for settings in space.configurations())
    assert sum(step.seconds for step in replayed(tables, neither).steps) == pytest.approx(timings + trainings)


def test_a_scheduler_stops_the_training_of_errors(tables):
    steps = replayed(tables, TODAY, "moasha").steps
    stopped = [number for number, step in enumerate(steps) if not step.is_complete]
    assert stopped
    assert 0 not in stopped
    assert sum(step.seconds for step in steps) < sum(step.seconds for step in replayed(tables, TODAY).steps)


def test_a_search_ends_when_it_has_found_enough_or_its_time_is_over(tables):
    assert len(ReplayApart(tables, enough=0.0).run(TODAY, "random", "none", seed=0).steps) == 1
    whole = replayed(tables, TODAY)
    ended = ReplayApart(tables, enough=2).run(TODAY, "random", "none", seed=0, most_seconds=10.0)
    assert ended.steps == whole.steps[: len(ended.steps)]
    assert len(ended.steps) < len(whole.steps)


def test_a_search_ends_when_what_it_needs_is_out_of_reach(tables):
    whole = replayed(tables, TODAY, "moasha").steps
    search = ReplayApart(tables, enough=2)
    assert search.run(TODAY, "random", "moasha", seed=0, needed=1.0).steps == whole  # nothing needed was stopped
    assert search.run(TODAY, "random", "moasha", seed=0, needed=1.01).steps == []


def test_whole_trials_find_the_errors_and_times_that_were_measured_apart(tables):
    for key, run in tables.whole_trials(5.0).recorded.items():
        assert run.last.val_mse == tables.runs["error"][key].last.val_mse
        assert run.last.seconds_per_epoch == tables.runs["time"][key].last.seconds_per_epoch
        assert run.last.seconds == tables.runs["together"][key].last.seconds


def test_a_start_costs_less_where_workers_are_forked(tables):
    whole = replayed_sharing(tables, WHOLE, ("random", "none"), 0, 1e9, 0.95)
    cheap = replayed_sharing(tables, CHEAP, ("random", "none"), 0, 1e9, 0.95)
    assert [step.share for step in cheap.steps] == [step.share for step in whole.steps]
    saved = [one.seconds - other.seconds for one, other in zip(whole.steps, cheap.steps, strict=True)]
    assert saved == pytest.approx([5.0 - 1.0] * len(saved))


def test_the_verdict_tells_what_each_kind_of_sharing_does():
    """Searches that find all in one step, of made lengths."""
    seconds = {WHOLE: (100.0, 50.0), CHEAP: (80.0, 40.0), ERRORS: (30.0, 20.0), TODAY: (20.0, 10.0)}
    runs = {
        (sharing, (sampler, "none")): [Replayed([Step(length, 1.0, is_complete=True)], 0.0)] * 3
        for sharing, lengths in seconds.items()
        for sampler, length in zip(("random", "gp"), lengths, strict=True)
    }
    told = verdict(runs, 0.95)
    assert "needs 0.10 (0.10 to 0.10) of the wall clock of random whole trials" in told
    assert "the sampler 2.00, cheap starts 1.25, shared errors 2.00, shared times 2.00" in told
    assert told.endswith("Goal, at most 0.20: met.")


def test_tables_without_the_start_of_forked_workers_are_refused(tables):
    path = tables.table.path
    dataclasses.replace(Conditions.read(path), forked_startup_seconds=None).write(path)
    with pytest.raises(InputError, match="start-ups of started and forked workers"):
        Tables.load(path, tables.table.space)
