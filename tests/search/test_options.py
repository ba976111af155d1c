import pytest

from search.setup.options import parse, seconds_of
from spaces import InputError


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
        (["--time_budget", "soon"], r"time_budget: must be a time above 0 and below ten years such as 90s"),
        (["--time_budget", "0"], r"must be a time above 0"),
        (["--num_trials", "0"], r"must be a whole number of at least 1, got '0'"),
        (["--num_trials", "x"], r"must be a whole number"),
        (["--time_weight", "-1"], r"must be a number of at least 0"),
        (["--time_weight", "nan"], r"must be a number of at least 0"),
        (["--max_memory_gib", "0"], r"must be a number above 0"),
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
