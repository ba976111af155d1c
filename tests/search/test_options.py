import json

import pytest

from search.setup.options import OPTIONS, Options, parse, seconds_of
from timellm.contract.errors import InputError

A_TIME = r"must be a time above 0 and below ten years such as 90s, 10m or 1h30m, got "
OF_ANY_TEXT = (
    *("space", "root_path", "data_path", "target", "llm_model", "llm_path", "fidelity"),
    *("warm_start", "address", "name", "runs_dir", "resume"),
)
WRONG = {
    **{name: {5: r"must be text, got 5", True: r"must be text, got True"} for name in OF_ANY_TEXT},
    "set": {"d_ff=8": r"must be several of text, got 'd_ff=8'", (8,): r"must be several of text, got \(8,\)"},
    "data": {"ETTh9": r"must be one of nyc-weather, .*, got 'ETTh9'", None: r"must be one of nyc-weather"},
    "features": {"A": r"must be one of M, S, MS, got 'A'"},
    "time_budget": {0: r"must be above 0, got 0", 1e12: r"must be at most 3\.2e\+08", "10m": r"must be a number"},
    "num_trials": {
        0: r"must be at least 1, got 0",
        1.5: r"must be a whole number, got 1\.5",
        10**10: r"must be at most 1e\+09",
    },
    "clocks": {"both": r"must be one of apart, together, got 'both'"},
    "trial_timeout": {-1.0: r"must be above 0, got -1\.0", float("nan"): r"must be finite, got nan"},
    "confirm": {-1: r"must be at least 0, got -1", None: r"must be a whole number, got None"},
    "objective": {"best": r"must be one of pareto, joint, got 'best'", 7: r"must be one of pareto, joint, got 7"},
    "time_weight": {
        -0.1: r"must be at least 0",
        101: r"must be at most 100, got 101",
        True: r"must be a number, got True",
    },
    "sampler": {"magic": r"must be one of .*gp, random, got 'magic'"},
    "scheduler": {"magic": r"must be one of moasha, none, got 'magic'"},
    "seed": {-1: r"must be at least 0", 2**63: r"must be at most", "1": r"must be a whole number, got '1'"},
    "max_concurrent": {0: r"must be at least 1, got 0"},
    "gpus_per_trial": {-0.5: r"must be at least 0, got -0\.5", float("inf"): r"must be finite, got inf"},
    "devices_per_trial": {0: r"must be at least 1, got 0"},
    "max_memory_gib": {0: r"must be above 0, got 0", "x" * 500: r"must be a number, got .*\.\.\. \(502 characters\)"},
    "dashboard": {1: r"must be true or false, got 1"},
    "dry_run": {"yes": r"must be true or false, got 'yes'"},
}
"""Values that an option does not take, as a run folder may hold them, and what is said."""


def test_defaults_are_those_of_the_documentation():
    options, given = parse([])
    assert (options.space, options.data, options.llm_model) == ("speed", "nyc-weather", "smollm2-135m")
    assert (options.time_budget, options.num_trials, options.fidelity) == (600.0, None, None)
    assert (options.objective, options.time_weight, options.sampler, options.seed) == ("pareto", 0.05, "gp", 2021)
    assert (options.confirm, options.runs_dir, options.dashboard, options.dry_run) == (0, "runs", True, False)
    assert given == set()


def test_given_flags_are_known():
    options, given = parse(["--set", "batch_size=8", "--set", "d_ff=16", "--no-dashboard", "--num_trials", "3"])
    assert given == {"set", "dashboard", "num_trials"}
    assert options.set == ("batch_size=8", "d_ff=16")
    assert options.dashboard is False


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400)]
)
def test_a_time_is_read(text, seconds):
    assert seconds_of(text) == seconds


def test_a_budget_may_be_none():
    assert parse(["--time_budget", "none"])[0].time_budget is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time_budget", "soon"], "time_budget: " + A_TIME + "'soon'"),
        (["--time_budget", "0"], A_TIME + "'0'"),
        (["--num_trials", "0"], r"num_trials must be at least 1, got 0\."),
        (["--num_trials", "x"], r"num_trials: must be a whole number, got 'x'"),
        (["--num_trials", "9" * 5000], r"must be a whole number, got '9+\.\.\. \(5000 characters\)'"),
        (["--trial_timeout", "none"], A_TIME + "'none'"),
        (["--time_weight", "-1"], r"time_weight must be at least 0, got -1\.0"),
        (["--time_weight", "nan"], r"time_weight must be finite, got nan"),
        (["--max_memory_gib", "0"], r"max_memory_gib must be above 0, got 0\.0"),
        (["--confirm", "-1", "--seed", "-1"], r"confirm must be at least 0, got -1\. --seed must be at least 0"),
        (["--sampler", "magic"], r"invalid choice: 'magic'"),
        (["--data", "ETTh9"], r"invalid choice: 'ETTh9'"),
        (["--spce", "speed"], r"Unrecognized arguments: --spce"),
        (["--num_tr", "3"], r"Unrecognized arguments"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)


def test_every_option_is_held_against_wrong_values():
    assert WRONG.keys() == OPTIONS.keys()


@pytest.mark.parametrize(("name", "value", "message"), [(n, v, m) for n, all in WRONG.items() for v, m in all.items()])
def test_a_value_that_an_option_does_not_take_is_refused(name, value, message):
    with pytest.raises(InputError, match=f"^--{name} {message}") as caught:
        Options.from_dict({name: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_left_out_takes_its_default(name):
    every = Options().to_dict()
    assert Options.from_dict({key: value for key, value in every.items() if key != name}) == Options()


def test_options_come_back_from_their_json():
    options, _ = parse(["--set", "d_ff=16", "--time_budget", "1h", "--no-dashboard", "--gpus_per_trial", "0.5"])
    assert Options.from_dict({**json.loads(json.dumps(options.to_dict())), "of_a_later_version": 1}) == options


def test_help_says_each_option_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Fail a trial that runs longer than this (default: no limit)." in said
    assert "Optuna's sampler (default: gp)." in said
    assert "on a CPU 90 % of its memory)." in said
    assert "how it searches: --objective {pareto,joint}" in said
