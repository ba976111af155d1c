"""One real search: real Ray with its dashboard, real Optuna storage, SmolLM2's weights and the weather of New York."""

import json
import struct
from collections.abc import Iterator

import optuna
from tensorboardX.proto.event_pb2 import Event

from results import load_trials
from tests.end_to_end.conftest import TRIALS


def scalars(records: bytes) -> Iterator[str]:
    """Names of the scalars in a TensorBoard log: records of length, checksum, event, checksum."""
    start = 0
    while start < len(records):
        (length,) = struct.unpack_from("<Q", records, start)
        event = Event.FromString(records[start + 12 : start + 12 + length])
        yield from (value.tag for value in event.summary.value)
        start += 12 + length + 4


def test_real_trials_are_completed_and_recommended(searched):
    assert searched.status == 0, searched.log
    trials = load_trials(searched.folder.path)
    assert len(trials) == TRIALS
    assert set(trials["state"]) == {"complete"}, searched.log
    assert (trials["val_mse"] > 0).all()
    assert (trials["seconds_per_epoch_low"] <= trials["seconds_per_epoch"]).all()
    assert trials["is_projected"].all()
    assert set(trials["train_samples"]) == {32}
    assert (trials["startup_seconds"] > 0).all()
    assert "Pareto front" in searched.log
    assert "Traceback" not in searched.log
    assert searched.folder.report.is_file()
    assert "timellm/run_main.py" in searched.folder.recommended_command.read_text()


def test_the_report_is_refreshed_while_trials_run(searched):
    assert searched.reports, searched.log
    assert max(searched.reports) >= 1
    assert '<meta name="refresh"' not in searched.folder.report.read_text()


def test_the_dashboard_answers_and_shows_the_process_of_a_trial(searched):
    assert searched.page[0] == 200, searched.log
    assert "WorkerTrainable" in json.dumps(searched.actors)


def test_the_study_and_the_logs_open_in_their_own_tools(searched):
    study = optuna.load_study(study_name="real", storage=f"sqlite:///{searched.folder.study}")
    assert len(study.best_trials) >= 1, searched.log
    for job, measured in (("t0001", "seconds_per_epoch"), ("t0001-error", "val_mse")):
        logs = next(searched.folder.ray.glob(f"*/{job}/events.out.tfevents*"))
        assert f"ray/tune/{measured}" in set(scalars(logs.read_bytes()))
