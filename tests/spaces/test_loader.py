import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spaces import InputError, Space, load_space, space_names
from spaces.schema import find_problems

GOOD = """
[space]
name = "mine"
[fixed]
train_epochs = 2
[knobs.batch_size]
values = [16, 32]
[knobs.use_swt]
values = [false, true]
[knobs.swt_level]
values = [2, 3]
when = { use_swt = true }
[knobs.learning_rate]
low = 1e-5
high = 1e-2
log = true
"""


def load(tmp_path, text) -> Space:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_space(str(path))


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_comes_with_the_product_loads_and_round_trips(name):
    space = load_space(name)
    assert space.name == name
    assert space.description
    assert Space.from_dict(space.to_dict()) == space


def test_speed_and_smoke_are_there_and_unknown_names_are_refused():
    assert {"speed", "smoke"} <= set(space_names())
    with pytest.raises(InputError, match=r"--space must be one of .*speed.*got 'sped'"):
        load_space("sped")


def test_a_users_file_is_read_and_the_baseline_completed_with_the_guides(tmp_path):
    space = load(tmp_path, GOOD + "[baseline]\nbatch_size = 16\n[plans.big]\nuse_swt = true\n")
    assert [knob.name for knob in space.knobs] == ["batch_size", "use_swt", "swt_level", "learning_rate"]
    assert space.baseline == {"batch_size": 16, "use_swt": False, "swt_level": 3, "learning_rate": 1e-4}
    assert space.plans["big"]["use_swt"] is True
    assert space.plans["big"]["batch_size"] == 16
    assert not space.is_finite


def test_a_missing_file_and_broken_toml_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read: No such file"):
        load_space(str(tmp_path / "nowhere.toml"))
    with pytest.raises(InputError, match=r"mine\.toml must be TOML, got: "):
        load(tmp_path, "[space\nname=")


def test_every_problem_of_a_file_is_reported_at_once_with_file_and_key(tmp_path):
    text = """
    [space]
    title = "no name"
    [fixed]
    learning_rte = 0.1
    batch_size = 16
    [knobs.batch_size]
    values = [0, 16, 16]
    [knobs.seq_len]
    values = [96]
    [knobs.swt_level]
    values = [2, 3]
    when = { use_swt = true }
    [knobs.dropout]
    low = 0.5
    high = 0.1
    [knobs.precision]
    values = ["fp32", "bf16"]
    needs = { fp16 = "gpu" }
    [baseline]
    precision = "fp16"
    [plans.sampler]
    d_ff = 32
    [[exclude]]
    precision = "bf16"
    [search]
    speed = 3
    [knob]
    """
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    found = "\n".join(caught.value.problems)
    for key in (
        "knob is not a section",
        "space.name must",
        "space.title is unknown",
        "fixed.learning_rte is not a knob; did you mean learning_rate",
        "knobs.batch_size is also in [fixed]",
        "knobs.batch_size.values must be at least 1, got 0",
        "knobs.batch_size.values must differ, got 16 twice",
        "knobs.seq_len can be fixed but not searched",
        "knobs.swt_level.when.use_swt must be a knob that stands above",
        "knobs.dropout.low must be below high",
        "knobs.precision.needs.fp16 must be one of the knob's values",
        "knobs.precision.needs.fp16 must be one of cuda",
        "baseline.precision must be one of the knob's values (fp32, bf16), got 'fp16'",
        "plans.sampler must have another name",
        "plans.sampler.d_ff is not a knob of this space",
        "exclude[1].reason must say why",
        "search.speed is unknown",
    ):
        assert key in found, key
    assert all("mine.toml: " in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"space\.name must be .* knobs must hold at least one knob"),
        ("space = 3", r"space must be a table, got 3"),
        ('[space]\nname = "x"\n[knobs]\nbatch_size = 3', r"knobs\.batch_size must be a table"),
        ('[space]\nname = "x"\n[knobs.batch_size]\n', r"must have either values or low and high"),
        ('[space]\nname = "x"\n[knobs.batch_size]\nvalues = []', r"values must be a list of one value or more"),
        ('[space]\nname = "x"\n[knobs.precision]\nlow = 1\nhigh = 2', r"precision must list its values"),
        ('[space]\nname = "x"\n[knobs.d_ff]\nlow = 8', r"d_ff\.high must be a whole number, got None"),
        ('[space]\nname = "x"\n[knobs.dropout]\nlow = 0\nhigh = 0.5\nlog = true', r"low must be above 0"),
        ('exclude = 3\n[space]\nname = "x"\n[knobs.d_ff]\nvalues = [8]', r"exclude must be a list of tables"),
        ('[space]\nname = "x"\n[knobs.d_ff]\nvalues = [8]\nstep = 2', r"d_ff\.step is unknown"),
        ('[space]\nname = "x"\n[knobs.d_ff]\nvalues = [8]\n[search]\nfidelity = 0', r"search\.fidelity must be auto"),
        (
            '[space]\nname = "x"\n[knobs.d_ff]\nvalues = [8]\n[search]\nscheduler = 3',
            r"must be the name of a scheduler",
        ),
        (
            '[space]\nname = "x"\n[knobs.precision]\nvalues = ["fp32"]\nneeds = { fp32 = [["cuda"]] }',
            r"precision\.needs\.fp32 must be one of cuda, .*, got \['cuda'\]",
        ),
        (
            '[space]\nname = "x"\n[knobs.precision]\nvalues = ["fp32"]\nneeds = { fp32 = { a = 1 } }',
            r"precision\.needs\.fp32 must be one of cuda, .*, got \{'a': 1\}",
        ),
        (
            '[space]\nname = "x"\n[knobs.precision]\nvalues = [2020-01-01]\nneeds = { fp32 = "cuda" }',
            r"precision\.values must be one of .*got datetime.*needs\.fp32 must be one of the knob's values \(none",
        ),
        (
            '[space]\nname = "x"\n[knobs.precision]\nvalues = [2020-01-01]\n[baseline]\nprecision = "fp32"',
            r"precision\.values must be one of .*baseline\.precision must be one of the knob's values",
        ),
        (
            '[space]\nname = "x"\n[knobs.precision]\nlow = 1\nhigh = 2\n[baseline]\nprecision = "fp32"',
            r"precision must list its values",
        ),
        (
            f'[space]\nname = "x"\n[knobs.learning_rate]\nvalues = [1{"0" * 400}]',
            r"learning_rate\.values must be a number of at most 64 bits, got one of 1329 bits",
        ),
        (f"a = 1{'0' * 5000}", r"must be TOML, got: .*4300 digits"),
        (f"a = {'[' * 5000}", r"nested too deeply"),
    ],
)
def test_a_single_fault_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)


_SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.text(max_size=3),
    st.sampled_from([10**400, 8, "fp32", "cuda", "full"]),
)
_NAMES = st.sampled_from(["precision", "batch_size", "learning_rate", "use_swt", "swt_wavelet", "seq_len", "fp32"])
_LISTS = st.lists(_SCALARS | st.lists(_SCALARS, max_size=1), max_size=3)
_ANYTHING = _SCALARS | _LISTS | st.dictionaries(_NAMES, _SCALARS, max_size=1)
_TABLES = st.dictionaries(_NAMES, _ANYTHING, max_size=2)
_KNOB = st.dictionaries(st.sampled_from(["values", "low", "high", "log", "when", "needs"]), _ANYTHING | _TABLES)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {"knobs": st.dictionaries(_NAMES, _KNOB, max_size=3)},
        optional={
            "fixed": _TABLES | _ANYTHING,
            "baseline": _TABLES,
            "plans": st.dictionaries(_NAMES, _TABLES | _ANYTHING, max_size=2),
            "exclude": st.lists(_TABLES | _ANYTHING, max_size=2),
            "search": st.dictionaries(st.sampled_from(["fidelity", "scheduler"]), _ANYTHING),
        },
    )
)
def test_whatever_a_file_holds_its_problems_are_found_and_each_is_text(raw):
    assert all(isinstance(problem, str) for problem in find_problems(raw))
