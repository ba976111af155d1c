import pytest

from spaces import Hardware, InputError, Space, load_space, narrow, parse_settings, resolve, space_names
from timellm.contract.numbers import same_numbers

LAPTOP = Hardware(cores=2, features=frozenset({"causal", "deepspeed"}), llm_layers=4, hidden_size=576)
SERVER = Hardware(
    cores=64,
    features=frozenset({"causal", "deepspeed", "compiler", "cuda", "bf16", "fp16", "fast-bf16", "fast-fp16"}),
    llm_layers=30,
    hidden_size=576,
)


def test_what_the_machine_lacks_is_left_out_and_said():
    space, notes = resolve(load_space("speed"), LAPTOP)
    assert space.fixed["precision"] == "fp32"
    assert space.knob("num_workers").values == (0, 2)
    assert space.knob("llm_layers").values == (1, 2, 3, 4)
    assert space.knob("offload_optimizer").values == ("off", "none")
    text = "\n".join(notes)
    assert "precision: bf16 is left out, because it needs a device that computes in bf16" in text
    assert "offload_optimizer: cpu is left out, because it needs a C++ compiler (g++" in text
    assert "compile_mode: default, reduce-overhead are left out, because they need" in text
    assert "num_workers: 4, 8, 10, 16 become 2, because this machine has 2 cores." in text
    assert (
        "baseline, reuse-fp32, plan-a, plan-b, reuse: llm_layers 6 becomes 4, because the language model has 4 layers."
        in text
    )
    assert "plan-a, plan-b: num_workers 8 becomes 2, because this machine has 2 cores." in text


def test_a_server_runs_the_guides_baseline_as_it_is():
    space, notes = resolve(load_space("speed"), SERVER)
    assert space.baseline["num_workers"] == 10
    assert space.baseline["precision"] == "fp32"
    assert space.plans["plan-a"]["precision"] == "bf16"
    assert notes == []


def test_every_first_trial_lies_in_the_resolved_space():
    for hardware in (LAPTOP, SERVER, Hardware(cores=1)):
        for name in space_names():
            space, _ = resolve(load_space(name), hardware)
            for values in (space.baseline, *space.plans.values()):
                assert all(knob.holds(values[knob.name]) for knob in space.knobs)
            assert Space.from_dict(space.to_dict()) == space


def test_a_condition_on_a_capped_knob_still_holds():
    space, _ = resolve(load_space("full"), Hardware(cores=6, features=SERVER.features))
    assert space.knob("num_workers").values == (0, 2, 4, 6)
    assert space.knob("prefetch_factor").when == {"num_workers": (2, 4, 6)}


def test_plan_a_takes_fp16_where_bf16_is_missing():
    hardware = Hardware(cores=64, features=SERVER.features - {"bf16"}, llm_layers=30, hidden_size=576)
    space, _ = resolve(load_space("speed"), hardware)
    assert space.plans["plan-a"]["precision"] == "fp16"


@pytest.mark.parametrize("name", ["speed", "memory", "full"])
def test_the_first_plan_has_the_baselines_own_numbers(name):
    """So a search has an exact answer whatever the other plans and the sampler try."""
    space = load_space(name)
    first = next(iter(space.plans.values()))

    assert same_numbers(space.settings(space.baseline), space.settings(first))
    assert first["prompt_prefix"] == "reuse"


AVX2 = Hardware(cores=2, features=frozenset({"causal", "bf16"}), slowdown={"bf16": 80.3})


def test_a_precision_that_can_only_lose_is_left_out_with_its_figure():
    space, notes = resolve(load_space("speed"), AVX2)
    assert space.fixed["precision"] == "fp32"
    text = "\n".join(notes)
    assert "bf16 is left out, because its products take 80 times as long as fp32's on this CPU." in text
    assert "plan-a, plan-b, reuse: precision bf16 becomes fp32" in text


def test_other_spaces_keep_a_slow_precision_which_saves_memory_there():
    space, _ = resolve(load_space("memory"), AVX2)
    assert "bf16" in space.knob("precision").values


def test_set_brings_a_slow_precision_back():
    space, _ = resolve(narrow(load_space("speed"), parse_settings(["precision=fp32,bf16"])), AVX2)
    assert space.knob("precision").values == ("fp32", "bf16")


def test_set_does_not_bring_back_what_the_device_cannot_do_at_all():
    space, notes = resolve(narrow(load_space("speed"), parse_settings(["precision=fp32,fp16"])), AVX2)
    assert space.fixed["precision"] == "fp32"
    assert any("fp16 is left out, because it needs a device that computes in fp16" in note for note in notes)


def test_a_plan_that_becomes_the_baseline_is_dropped_and_said():
    space, notes = resolve(load_space("smoke"), Hardware(cores=2, features=frozenset({"causal"})))
    assert "plan-a" not in space.plans
    assert "plan-a is not run on its own, because here it is the same as baseline." in notes


def test_a_language_model_that_reads_both_ways_recomputes():
    space, _ = resolve(load_space("speed"), Hardware(cores=2, features=frozenset({"bf16"})))
    assert space.fixed["prompt_prefix"] == "recompute"


def test_a_fixed_setting_that_cannot_be_is_refused():
    space = narrow(load_space("smoke"), parse_settings(["llm_layers=40", "precision=fp16"]))
    with pytest.raises(InputError, match=r"precision can be used.*fp16 is left out.*llm_layers must be at most 4"):
        resolve(space, LAPTOP)
    wide = narrow(load_space("smoke"), parse_settings(["d_ff=1024"]))
    with pytest.raises(InputError, match=r"d_ff must be at most 576, because the language model's hidden size is 576"):
        resolve(wide, LAPTOP)


def test_set_fixes_narrows_and_adds_knobs_for_every_trial():
    asked = parse_settings(["batch_size=64,128", "llm_layers=2", "d_ff=16,32", "train_epochs=1"])
    space, notes = resolve(narrow(load_space("speed"), asked), SERVER)
    assert space.knob("batch_size").values == (64, 128)
    assert space.knob("d_ff").values == (16, 32)
    assert space.fixed["llm_layers"] == 2
    assert space.fixed["train_epochs"] == 1
    assert space.baseline["batch_size"] == 64
    assert space.settings(space.plans["plan-b"])["llm_layers"] == 2
    assert "baseline, reuse-fp32, reuse: batch_size 32 becomes 64, because it is the nearest left." in notes


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["batchsize=3"], r"batchsize is not a knob; did you mean batch_size"),
        (["batch_size"], r"must look like knob=value"),
        (["batch_size="], r"must look like knob=value"),
        (["batch_size=8,x"], r"batch_size must be a whole number, got 'x'"),
        (["batch_size=8", "batch_size=9"], r"must name a knob once"),
        (["seq_len=48,96"], r"can be fixed to one value but not searched"),
        (["a=1", "precision=int8"], r"a is not a knob.*precision must be one of"),
    ],
)
def test_a_wrong_set_is_refused(texts, message):
    with pytest.raises(InputError, match=message):
        parse_settings(texts)


def test_text_settings_keep_their_commas():
    assert parse_settings(["prompt_description=Hourly, real"]) == {"prompt_description": ("Hourly, real",)}
