import json

import pytest

from results.analysis.errors import load_errors, repeats_of
from timellm.contract.config import RunConfig
from timellm.contract.layout import RunFolder


def line(trial_id="t0001", seed=2021, val_mse=0.4, state="complete", **settings):
    config = RunConfig(train_samples=512, seed=seed, **settings).to_dict()
    return json.dumps(
        {"trial_id": trial_id, "numbers": "x", "config": config, "seed": seed, "train_samples": 512}
        | {"val_samples": 256, "val_mse": val_mse, "val_mae": 0.5, "seconds": 9.0, "steps": 16, "state": state}
        | {"curve": [{"step": 8, "samples": 256, "val_mse": 0.5}], "examples": [], "something": "new"}
    )


def test_trainings_that_differ_in_seed_and_way_to_compute_alone_are_repeats(tmp_path):
    lines = [line(), line("t0002", 2022, 0.42, attention="sdpa"), line("t0003", 2021, 0.6, batch_size=64)]
    RunFolder(tmp_path).errors.write_text("\n".join(lines) + "\n")

    errors = load_errors(tmp_path)

    assert [error.trial_id for error in errors] == ["t0001", "t0002", "t0003"]
    assert errors[0].numbers == errors[1].numbers != errors[2].numbers
    assert list(repeats_of(errors).values()) == [{2021: 0.4, 2022: 0.42}, {2021: 0.6}]


def test_a_training_without_an_error_repeats_nothing(tmp_path):
    lines = [line(), line("t0002", 2022, None, "failed"), line("t0003", 2023, 0.5, "interrupted")]
    RunFolder(tmp_path).errors.write_text("\n".join(lines))

    assert list(repeats_of(load_errors(tmp_path)).values()) == [{2021: 0.4}]


def test_a_line_cut_short_by_a_kill_is_left_out_with_a_warning(tmp_path):
    RunFolder(tmp_path).errors.write_text(line() + "\n" + line("t0002", 2022)[:100])

    with pytest.warns(UserWarning, match=r"1 of 2 lines cannot be read"):
        errors = load_errors(tmp_path)

    assert len(errors) == 1


def test_a_run_without_the_file_has_no_errors_apart(tmp_path):
    assert load_errors(tmp_path) == ()
