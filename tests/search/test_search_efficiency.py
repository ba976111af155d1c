import dataclasses
import math

import numpy as np
import pytest

from benchmarks.factorial import Conditions, Factorial, Recorded, Validation, is_complete, recorded_space
from benchmarks.medians import median_of, ratio_of_medians
from benchmarks.record_factorial import missing, record, run_config
from benchmarks.replay import Hypervolume
from benchmarks.search_efficiency import SearchEfficiency, load_replay
from search.decide.clocks.halving import rungs_of
from search.decide.clocks.schedulers import NoScheduler
from search.decide.spend.fidelity import Fidelity
from spaces import load_space
from tests.timellm.tiny_runs import tiny_config
from timellm.contract.errors import InputError
from timellm.contract.job import CLOCKS

SPACE = """
[space]
name = "tiny"
[search]
fidelity = 256
[knobs.precision]
values = ["fp32", "bf16"]
[knobs.batch_size]
values = [8, 16, 32]
[knobs.llm_layers]
values = [1, 2, 3]
[baseline]
precision = "fp32"
batch_size = 32
llm_layers = 3
"""
CONDITIONS = Conditions(
    startup_seconds=5.0,
    train_samples=256,
    val_samples=128,
    rungs=(64, 128),
    threads=1,
    machine={"cpu": "a processor", "cores": 1},
    versions={},
    revision=None,
    date="2026-11-25",
    forked_startup_seconds=1.0,
)


def run_of(settings):
    """A made run: more layers take longer, small batches learn more, and both are told apart at every rung."""
    seconds = settings["llm_layers"] * (2.0 if settings["precision"] == "fp32" else 1.0)
    mse = 0.4 + 0.01 * settings["batch_size"] / settings["llm_layers"]
    parts = (Validation(n, round(mse * (1 + 8 / n), 4), 100 * seconds, seconds * n / 64) for n in (64, 128, 256))
    return Recorded(settings, "complete", tuple(parts))


def part_of(settings, clock):
    """What a made run measures by itself: half of its time for the error, a quarter of it for the time."""
    run = run_of(settings)
    if clock == "together":
        return run
    if clock == "time":
        parts = [Validation(160, None, run.last.seconds_per_epoch, run.last.seconds / 4)]
    else:
        parts = [
            dataclasses.replace(part, seconds_per_epoch=None, seconds=part.seconds / 2) for part in run.validations
        ]
    return dataclasses.replace(run, validations=tuple(parts))


def made_tables(space_path, path):
    """Tables of made runs, with what they were recorded with; that of whole runs."""
    for clock in CLOCKS:
        table = Factorial(load_space(str(space_path)), path, clock)
        for settings in table.runs():
            table.append(part_of(settings, clock))
    CONDITIONS.write(path)
    return Factorial(table.space, path)


@pytest.fixture
def space_path(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def made(tmp_path, space_path):
    return made_tables(space_path, tmp_path / "made.csv")


def replay_to(enough, made, space_path):
    """Searches of the made table that end at this share of its hypervolume."""
    replay = load_replay(made.path, space_path)
    replay.enough = enough
    return replay


def test_a_table_is_read_as_it_was_written(made):
    expected = {made.key(settings): run_of(settings) for settings in made.space.configurations()}
    assert made.read() == expected
    assert Conditions.read(made.path) == CONDITIONS


def test_a_run_that_failed_is_kept_without_objectives(made, tmp_path):
    table = Factorial(made.space, tmp_path / "failed.csv")
    settings = dict(made.space.baseline)
    table.append(Recorded(settings, "diverged", (Validation(256, math.nan, None, 3.0),)))
    run = table.read()[table.key(settings)]
    assert run.last == Validation(256, None, None, 3.0)
    assert not is_complete(run)


def test_what_is_missing_is_recorded_in_a_random_order(made, tmp_path):
    table = Factorial(made.space, tmp_path / "new.csv")
    every = list(table.space.configurations())
    first = [settings for _, settings in missing([table], seed=0)]
    assert first == [settings for _, settings in missing([table], seed=0)] != every
    assert sorted(map(table.key, first)) == sorted(map(table.key, every))
    table.append(run_of(first[0]))
    assert [settings for _, settings in missing([table], seed=0)] == first[1:]
    with pytest.raises(InputError, match=r"every run of tiny, got 1 and misses 17\. Run"):
        table.require_whole()


def test_a_table_of_another_space_is_refused(made):
    space = dataclasses.replace(made.space, knobs=made.space.knobs[:2])
    with pytest.raises(InputError, match="must have the columns config/precision, config/batch_size, state"):
        Factorial(space, made.path).read()


def test_a_replayed_search_finds_all_there_is(made, space_path):
    replayed = replay_to(0.99, made, space_path).run("random", "none", seed=0)
    assert replayed.steps[-1].share >= 0.99
    assert [step.share for step in replayed.steps] == sorted(step.share for step in replayed.steps)
    assert all(step.is_complete for step in replayed.steps)


def test_the_clock_counts_each_trial_and_its_start(made, space_path):
    replayed = replay_to(0.99, made, space_path).run("random", "none", seed=0)
    first = replayed.steps[0]
    assert first.seconds == run_of({"precision": "fp32", "batch_size": 32, "llm_layers": 3}).last.seconds
    assert replayed.seconds_to(first.share, 5.0) == first.seconds + 5.0
    total = sum(step.seconds for step in replayed.steps)
    assert replayed.seconds_to(0.99, 5.0) == pytest.approx(total + 5.0 * len(replayed.steps))
    assert replayed.share_at(first.seconds + 4.9, 5.0) == 0
    assert replayed.seconds_to(1.01, 5.0) == math.inf


def test_a_trial_that_is_stopped_costs_less_and_adds_no_hypervolume(made, space_path):
    steps = replay_to(1.01, made, space_path).run("random", "moasha", seed=0).steps
    stopped = [number for number, step in enumerate(steps) if not step.is_complete]
    assert stopped
    assert 0 not in stopped
    assert all(steps[number].share == steps[number - 1].share for number in stopped)


@pytest.mark.parametrize(("rungs", "refusal"), [((64,), None), ((64, 96), "none at 96 windows. Record it again")])
def test_a_scheduler_of_the_registry_is_replayed_at_the_rungs_it_plans(made, space_path, monkeypatch, rungs, refusal):
    class Strict(NoScheduler):
        def plan(self, fidelity, config, train_windows):
            assert fidelity.train_samples == CONDITIONS.train_samples
            return rungs

        def passes(self, trial_id, samples, values):
            return samples not in rungs

    monkeypatch.setattr("benchmarks.replay.SCHEDULERS", {"strict": Strict})
    replay = replay_to(1.01, made, space_path)
    if refusal:
        with pytest.raises(InputError, match=refusal):
            replay.run("random", "strict", seed=0)
    else:
        assert [step.is_complete for step in replay.run("random", "strict", seed=0).steps].count(True) == 1


def test_the_whole_table_has_all_of_the_hypervolume(made):
    recorded = made.read()
    runs = list(recorded.values())
    volume = Hypervolume(recorded, runs[0])
    points = [(run.last.val_mse, run.last.seconds_per_epoch) for run in runs]
    assert volume.share(points) == pytest.approx(1)
    assert 0 < volume.share(points[:1]) < 1
    assert volume.share([]) == 0


def test_seeds_that_never_get_there_count_as_the_slowest():
    found = median_of(np.array([1.0, 2.0, math.inf]))
    assert (found.median, found.high) == (2.0, math.inf)
    assert ratio_of_medians(np.array([1.0, 1.0]), np.array([4.0, 4.0])).median == 0.25


def test_the_command_writes_its_file_and_its_drawing(made, space_path, tmp_path, capsys):
    output = tmp_path / "found.md"
    flags = ["--table", made.path, "--space", space_path, "--output", output, "--seeds", "2", "--samplers", "tpe"]
    assert SearchEfficiency().run(list(map(str, flags))) == 0
    text = output.read_text()
    assert "| tpe + moasha |" in text
    assert "Goal, at most 0.33" in text
    assert "| tpe + moasha |" in capsys.readouterr().out
    assert text.endswith("![](found.svg)\n")
    assert (tmp_path / "found.svg").read_text().count("<polyline") == 3


def test_a_run_is_recorded_at_its_rungs(tmp_path):
    config = tiny_config(tmp_path, train_samples=16, val_samples=4, batch_size=2)
    run = record(config, {"batch_size": 2}, (4, 8))
    assert run.state == "complete"
    assert [part.samples for part in run.validations] == [4, 8, 16]
    error = record(config, {"batch_size": 2}, (4, 8), "error")
    assert [part.samples for part in error.validations] == [4, 8, 16]
    assert [part.seconds_per_epoch for part in error.validations] == [None] * 3
    errors = [part.val_mse for part in run.validations]
    assert [part.val_mse for part in error.validations] == pytest.approx(errors, rel=1e-4)
    (timed,) = record(config, {"batch_size": 2}, (4, 8), "time").validations
    assert timed.val_mse is None
    assert timed.seconds_per_epoch > 0
    seconds = [part.seconds for part in run.validations]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert is_complete(run)


def test_every_configuration_of_the_recorded_space_is_a_run():
    space = recorded_space()
    fidelity = Fidelity.of_samples(int(space.search["fidelity"]))
    configs = [run_config(space, settings, fidelity) for settings in space.configurations()]
    assert len(configs) >= 200
    assert all(fidelity.refusal(config) is None for config in configs)
    assert rungs_of(fidelity, configs[0], 0) == (64, 128)


def test_a_search_ends_when_what_it_needs_was_stopped(made, space_path):
    replay = replay_to(1.01, made, space_path)
    for key, run in replay.recorded.items():
        if run.settings["precision"] == "bf16":
            early = tuple(Validation(part.samples, 9.0, 9000.0, part.seconds) for part in run.validations[:-1])
            replay.recorded[key] = dataclasses.replace(run, validations=(*early, run.last))
    whole = replay.run("random", "moasha", seed=0)
    ended = replay.run("random", "moasha", seed=0, needed=1.0)
    assert ended.steps == whole.steps[: len(ended.steps)]
    assert len(ended.steps) < len(whole.steps)
    assert ended.seconds_to(1.0, 0.0) == math.inf
