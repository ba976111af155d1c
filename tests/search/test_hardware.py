from benchmarks import fuzz_searches
from search.run import main
from search.setup.hardware import wavelet_variants, with_earlier_features
from spaces import load_space, narrow, parse_settings
from timellm.contract.errors import InputError
from timellm.contract.manifest import Manifest


def _variants(space: str, *settings: str):
    return wavelet_variants(narrow(load_space(space), parse_settings(settings)))


def test_every_wavelet_that_a_trial_may_have_is_a_variant_at_its_lowest_level():
    assert _variants("smoke", "use_swt=false,true", "swt_wavelet=haar,db4", "swt_level=2,1") == [
        {"use_swt": True, "swt_wavelet": "haar", "swt_level": 1},
        {"use_swt": True, "swt_wavelet": "db4", "swt_level": 1},
    ]
    assert _variants("smoke", "prompt=official,dwt-minimal", "dwt_wavelet=sym4") == [
        {"prompt": "dwt-minimal", "dwt_wavelet": "sym4"}
    ]


def test_wavelets_that_no_trial_uses_are_no_variants():
    assert _variants("smoke", "use_swt=false", "swt_wavelet=haar,db4", "dwt_wavelet=haar,db4") == []
    assert _variants("full", "use_swt=false", "prompt=official,none") == []


def test_listed_wavelets_that_cannot_be_are_refused_at_once_before_anything_starts(tmp_path, capsys):
    embedding = ["--set", "use_swt=true", "--set", "swt_wavelet=nope,db4", "--set", "n_heads=3,5"]
    prompts = ["--set", "prompt=official,dwt-minimal", "--set", "dwt_wavelet=db4,bad,db20"]
    assert main(["--space", "smoke", *embedding, *prompts, "--dry_run", "--runs_dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for message in (
        "swt_wavelet must be a discrete wavelet, got nope. Use one like haar, db4, db6, sym4 or coif2.",
        "dwt_wavelet must be a discrete wavelet, got bad. Use one like haar, db4, sym4 or coif2.",
        "dwt_prompt_level must be at most 1 for seq_len 96 and db20, got 3.",
    ):
        assert said.count(message) == 1


def test_a_resumed_search_takes_what_was_measured_from_its_manifest():
    facts = {"features": ["bf16", "causal", "fast-bf16"], "slowdown": {"bf16": 1.2}}
    assert with_earlier_features(facts, Manifest(features=("bf16", "compiler")))["features"] == ["bf16", "causal"]
    assert with_earlier_features({**facts, "features": ["bf16"]}, Manifest(features=("fast-bf16",)))["features"] == [
        "bf16",
        "fast-bf16",
    ]
    assert with_earlier_features(facts, Manifest()) == facts


def test_a_plan_says_what_tokenising_takes(tmp_path, monkeypatch, capsys):
    class Facts(fuzz_searches.Facts):
        def facts(self):
            return {**super().facts(), "prompts": {"notes": ["A run tokenises 14,400,000 prompts."]}}

    monkeypatch.setattr("search.setup.preparation.FactFinder", Facts)
    assert main(["--space", "smoke", "--dry_run", "--runs_dir", str(tmp_path)]) == 0
    assert "A run tokenises 14,400,000 prompts." in capsys.readouterr().out


def test_what_a_search_runs_on_is_loaded_while_its_facts_are_found(tmp_path, monkeypatch):
    done = []

    class Facts:
        def __init__(self, config, variants=()):
            done.append("asked")

        def facts(self):
            done.append("waited")
            raise InputError("There are none.")

    monkeypatch.setattr("search.setup.preparation.FactFinder", Facts)
    monkeypatch.setattr("search.run.load_search", lambda: done.append("loaded"))
    arguments = ["--space", "smoke", "--runs_dir", str(tmp_path)]
    assert (main(arguments), done) == (2, ["asked", "loaded", "waited"])
    done.clear()
    assert (main([*arguments, "--dry_run"]), done) == (2, ["asked", "waited"])
