"""Flags and spaces that nobody would write on purpose: one line each, at once, before anything starts."""

import contextlib
import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.run import main
from search.setup.options import parse
from spaces import load_space
from timellm.contract.errors import InputError

HEAD = '[space]\nname = "odd"\n'
KNOB = "[knobs.batch_size]\nvalues = [8, 16]\n"


def refused(capsys, arguments):
    status = main(arguments)
    errors = capsys.readouterr().err
    assert (status, errors.count("\n")) == (2, 1), errors
    assert len(errors) < 1000
    return errors


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--fidelity", "1" + "0" * 30),
        ("--fidelity", "9" * 5000),
        ("--confirm", "9" * 400),
        ("--num_trials", "9" * 400),
        ("--seed", "9" * 400),
        ("--max_concurrent", "1" + "0" * 30),
        ("--time_budget", "9" * 400 + "d"),
        ("--time_weight", "442"),
        ("--time_weight", "1e300"),
        ("--time_weight", "nan"),
        ("--name", "n" * 300),
        ("--resume", "n" * 300),
        ("--runs_dir", "d" * 5000),
        ("--runs_dir", "/".join(["d" * 200] * 40)),
        ("--llm_model", "m" * 5000),
        ("--llm_path", "m" * 5000),
        ("--space", "s" * 300 + ".toml"),
        ("--runs_dir", "s3://bucket/runs"),
        ("--runs_dir", ""),
        ("--root_path", " "),
        ("--warm_start", ""),
        ("--data_path", "caf\udce9.csv"),
    ],
)
def test_a_value_that_is_far_too_large_or_too_long_is_one_line(tmp_path, monkeypatch, capsys, flag, value):
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["--space", "smoke", flag, value])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_several_processes_of_a_launcher_are_no_search(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "2")
    assert "A search is one process, got a launcher's 2" in refused(capsys, ["--space", "smoke"])
    assert not list(tmp_path.iterdir())


FLAGS = ["--space", "--set", "--fidelity", "--confirm", "--name", "--time_weight", "--data_path", "--resume", "--seed"]


@pytest.mark.parametrize("flag", FLAGS)
def test_two_dashes_are_no_value(flag):
    with pytest.raises(InputError, match="must have a value, got '--'"):
        parse([f"{flag}=--"])


@pytest.mark.parametrize("flag", ["--batch_size", "--use_swt", "--data", "--prompt_description"])
def test_two_dashes_are_no_value_of_a_run_either(flag):
    from timellm.arguments import build_parser

    with pytest.raises(InputError, match="must have a value, got '--'"):
        build_parser("run_main.py", "").parse_args([f"{flag}=--"])


def test_two_dashes_are_no_value_of_the_results_either(capsys):
    from results.commands import run

    assert run(["table", "nowhere", "--sort=--"]) == 2
    assert "must have a value" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "long"])
def test_a_space_that_is_no_ordinary_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "odd.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("w") as file:
            file.truncate(2**33)
    with pytest.raises(InputError, match=r"ordinary file|at most \d+ bytes"):
        load_space(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "[knobs]\n" + "a." * 5000 + "b = 1\n", "nested too deeply|not a knob"),
        (HEAD + "x = " + "[" * 5000 + "]" * 5000, "nested too deeply|must be TOML"),
        (HEAD + KNOB + '[plans.""]\nbatch_size = 8\n', "must have a name"),
        (HEAD + KNOB + '[plans."  "]\nbatch_size = 8\n', "must have a name"),
        (HEAD + KNOB + '[plans."a\\nb"]\nbatch_size = 8\n', "must have a name"),
        (HEAD + KNOB + f"[plans.{'p' * 500}]\nbatch_size = 8\n", "must have a name"),
    ],
    ids=["nested keys", "nested lists", "no name", "blank name", "name of two lines", "long name"],
)
def test_odd_keys_of_a_space_are_refused(tmp_path, text, message):
    (path := tmp_path / "odd.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_space(str(path))


def test_a_space_may_begin_with_a_byte_order_mark(tmp_path):
    (path := tmp_path / "bom.toml").write_text(HEAD + KNOB, encoding="utf-8-sig")
    assert load_space(str(path)).knob("batch_size").values == (8, 16)


@pytest.mark.timeout(120)
def test_a_space_of_twenty_thousand_values_is_read(tmp_path):
    """It took half a minute and more when the time grew with the square of the values."""
    (path := tmp_path / "many.toml").write_text(
        f"{HEAD}[knobs.batch_size]\nvalues = {list(range(1, 20001))}\n[knobs.d_ff]\nvalues = {list(range(1, 20001))}\n"
    )
    assert [len(knob.values) for knob in load_space(str(path)).knobs] == [20_000, 20_000]


_NAMES = st.sampled_from(["batch_size", "precision", "llm_layers", "dropout", "nothing", "", "a b", "train_epochs"])
_VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(10**25), 10**25),
        st.floats(),
        st.sampled_from(["", "fp32", "bf16", "é\n"]),
        st.dates(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


def toml_of(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return quoted(value) if isinstance(value, str) else str(value)


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    raw=st.dictionaries(
        st.sampled_from(["space", "fixed", "knobs", "baseline", "plans", "exclude", "search", "other"]),
        st.one_of(_VALUES, st.dictionaries(_NAMES, _VALUES, max_size=3)),
    ),
    named=st.booleans(),
)
def test_a_space_is_read_or_refused_whatever_it_holds(tmp_path, raw, named):
    text = "\n".join(f"{name} = {toml_of(value)}" for name, value in raw.items() if not (named and name == "space"))
    text = ('space = {name = "odd"}\n' if named else "") + text
    tomllib.loads(text)
    (path := tmp_path / "any.toml").write_text(text, encoding="utf-8")
    with contextlib.suppress(InputError):
        load_space(str(path))
