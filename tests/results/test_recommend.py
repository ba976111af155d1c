import dataclasses
import json
import os
import subprocess
import sys

import pytest

from results.analysis.picks import recommend
from results.analysis.table import load_trials, typed_table
from results.document.recommend import run_config_of, write_recommendation
from tests.results.synthetic import make_manifest, make_rows, make_run
from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.layout import PICKS, RunFolder
from timellm.contract.zero2 import zero2_settings


@pytest.fixture
def folder(tmp_path):
    """A run folder with its recommendation written."""
    folder = make_run(tmp_path / "a run's folder", make_rows(20))
    write(folder)
    return folder


def write(folder, **changes):
    manifest = dataclasses.replace(folder.read_manifest(), **changes)
    write_recommendation(folder, recommend(load_trials(folder.path), manifest), manifest)


def arguments_of(script, *extra, **environment):
    """What a command hands to its interpreter, as a list; run from another folder."""
    show = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"
    stub = script.parent / "show.sh"
    stub.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{show}" "$@"\n')
    stub.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stub), **environment}
    done = subprocess.run(
        ["bash", script, *extra], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def config_of(arguments):
    """A run configuration from a command's flags, by the types of its fields; where its output goes is no part."""
    flags = arguments[2:]
    flags = flags[: flags.index("--checkpoints")]
    defaults = RunConfig().to_dict()
    values = {}
    for flag, text in zip(flags[::2], flags[1::2], strict=True):
        name = flag.removeprefix("--")
        kind = type(defaults[name])
        values[name] = text == "true" if kind is bool else text if kind in (str, type(None)) else kind(text)
    return RunConfig(**values)


@pytest.mark.parametrize("pick", PICKS)
def test_every_pick_has_its_files_and_they_agree(folder, pick):
    files = folder.recommendation(pick)

    config = RunConfig.from_json(files.run_config)
    deepspeed = json.loads(files.deepspeed_config.read_text())

    assert config_of(arguments_of(files.command)) == config
    assert deepspeed["train_micro_batch_size_per_gpu"] == config.batch_size
    assert deepspeed["gradient_clipping"] == 0.0
    assert deepspeed == zero2_settings(config.to_dict())  # as the run itself makes it, but for its buckets
    assert "# " in files.reasons.read_text()


def test_the_command_of_the_run_is_the_balanced_one(folder):
    assert folder.recommended_command.read_text() == folder.recommendation("balanced").command.read_text()


def test_a_command_changes_to_the_project_and_passes_flags_on(folder, tmp_path):
    here, script, *_, flag, value = arguments_of(folder.recommended_command, "--train_samples", "64")

    assert here == make_manifest().project_root
    assert script == "timellm/run_main.py"
    assert (flag, value) == ("--train_samples", "64")
    assert arguments_of(folder.recommended_command, TIMELLM_ROOT=str(tmp_path))[0] == str(tmp_path)


@pytest.mark.parametrize("pick", PICKS)
def test_a_command_trains_into_the_folder_of_its_pick_wherever_the_run_folder_lies(folder, tmp_path, pick):
    moved = folder.path.rename(tmp_path / "moved to")
    files = RunFolder(moved).recommendation(pick)
    flags = arguments_of(files.command)
    assert flags[flags.index("--checkpoint") + 1] == str(files.checkpoint)
    assert flags[flags.index("--checkpoints") + 1] == str(files.trainings)
    if pick == "balanced":
        assert arguments_of(RunFolder(moved).recommended_command) == flags


def test_a_command_is_executable(folder):
    assert os.access(folder.recommended_command, os.X_OK)


def test_the_command_of_the_run_is_the_exact_one_where_errors_are_not_telling(folder):
    write(folder, controls=[])

    assert folder.recommended_command.read_text() == folder.recommendation("exact").command.read_text()
    reasons = folder.recommendation("exact").reasons.read_text()
    assert "Errors are not telling: the baseline was not compared with forecasts that need no training." in reasons


def test_settings_with_spaces_and_quotes_survive_the_shell(folder):
    text = 'It\'s "hourly" $HOME `weather`; rows | columns'
    write(folder, run_config={**folder.read_manifest().run_config, "prompt_description": text})

    assert config_of(arguments_of(folder.recommended_command)).prompt_description == text


def test_a_short_trial_is_recommended_as_a_whole_run(tmp_path):
    rows = [{**row, "is_projected": True, "train_samples": 64} for row in make_rows(10)]
    config = {**make_manifest().run_config, "train_samples": 64, "val_samples": 32}
    folder = make_run(tmp_path / "t1", rows, run_config=config)
    write(folder)

    assert "samples" not in folder.recommended_command.read_text()
    assert json.loads(folder.recommendation("balanced").run_config.read_text())["train_samples"] is None
    assert "Preliminary" in folder.recommendation("balanced").reasons.read_text()


def test_the_types_of_settings_are_those_of_a_run():
    knobs = {"config/learning_rate": 1, "config/prompt_digits": "4", "config/use_swt": True, "config/llm_layers": 4}
    manifest = make_manifest()
    frame = typed_table([{"trial_id": "a", "seed": 7, **knobs}], manifest.run_defaults)

    config = RunConfig.from_dict(run_config_of(frame.iloc[0], manifest))

    assert config.learning_rate == 1.0
    assert isinstance(config.learning_rate, float)
    assert (config.prompt_digits, config.use_swt, config.llm_layers, config.seed) == ("4", True, 4, 7)


def test_a_knob_that_is_no_setting_is_refused():
    frame = typed_table([{"trial_id": "a", "config/warp": 9}])

    with pytest.raises(InputError, match="run_defaults has no warp"):
        run_config_of(frame.iloc[0], make_manifest())


def test_the_trials_own_deepspeed_file_is_copied(tmp_path):
    rows = [{**row, "config/offload_optimizer": "cpu"} for row in make_rows(5, failures=False)]
    folder = make_run(tmp_path / "t1", rows)
    own = folder.trial("t0000").deepspeed_config
    own.parent.mkdir(parents=True)
    own.write_text('{"own": 1}')
    write(folder)

    picks = [folder.recommendation(pick) for pick in PICKS]
    texts = {json.loads(pick.run_config.read_text())["llm_layers"]: pick.deepspeed_config.read_text() for pick in picks}
    assert texts[6] == '{"own": 1}'
    offloads = [json.loads(text)["zero_optimization"] for layers, text in texts.items() if layers != 6]
    assert all(zero["offload_optimizer"]["device"] == "cpu" for zero in offloads)


@pytest.mark.deepspeed
def test_the_deepspeed_file_is_valid_for_deepspeed(folder):
    from deepspeed.runtime.config import DeepSpeedConfig

    for pick in PICKS:
        settings = DeepSpeedConfig(str(folder.recommendation(pick).deepspeed_config))
        assert settings.zero_config.stage == 2
        assert settings.gradient_clipping == 0.0


def test_without_a_complete_trial_nothing_is_written(tmp_path):
    folder = make_run(tmp_path / "t1", [{"trial_id": "a", "state": "failed"}])
    write(folder)

    assert not folder.recommended.exists()


def test_what_a_manifest_lacks_is_named(folder):
    with pytest.raises(InputError, match="must hold train_command, python"):
        write(folder, train_command=None, python="")


def test_nothing_beats_a_reference_that_is_no_baseline_is_written(tmp_path):
    rows = [
        {**row, "seconds_per_epoch": 9.0 + i, "val_mse": 0.4 + i} for i, row in enumerate(make_rows(4, failures=False))
    ]
    rows[0] |= {"state": "failed", "seconds_per_epoch": None, "val_mse": None}
    folder = make_run(tmp_path / "t1", rows)
    write(folder)

    reasons = folder.recommendation("balanced").reasons.read_text()

    assert "Nothing beats trial t0001 in the joint score." in reasons
    assert "Nothing beats the baseline" not in reasons


def test_a_control_that_no_trial_beats_is_written(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(5), controls=[{"name": "window mean", "val_mse": 0.2}])
    write(folder)

    assert "- The control window mean (0.2000) has" in folder.recommendation("balanced").reasons.read_text()


def test_nothing_beats_the_baseline_is_written(tmp_path):
    rows = [
        {**row, "seconds_per_epoch": 9.0 + i, "val_mse": 0.4 + i} for i, row in enumerate(make_rows(3, failures=False))
    ]
    folder = make_run(tmp_path / "t1", rows)
    write(folder)

    assert "Nothing beats the baseline" in folder.recommendation("balanced").reasons.read_text()
