import dataclasses
import json
from pathlib import Path

import pytest

from timellm.contract.config import RunConfig
from timellm.contract.errors import InputError
from timellm.contract.job import Job, Launch

EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_run" / "trials"
CONFIG = RunConfig(batch_size=8).to_dict()
JOB = Job(config=CONFIG, run_dir="/runs/t0001", threads=2)


def test_a_job_survives_its_file():
    launch = Launch(devices=2, resources={"CPU": 1.0}, address="127.0.0.1:6379", command=("python", "-m", "worker"))
    job = dataclasses.replace(JOB, rungs=(64, 128), launch=launch, clock="error", prompt_memory_gib=2.5)
    assert Job.from_json(job.to_json()) == job
    assert Job.from_dict(job.to_dict()) == job


def test_a_job_file_of_an_earlier_version_takes_the_defaults():
    texts = [path.read_text() for path in sorted(EARLIER.glob("*/job.json"))]
    jobs = [Job.from_json(text) for text in texts]
    assert jobs
    assert {job.clock for job in jobs} == {"together"}
    assert {job.prompt_memory_gib for job in jobs} == {None}
    assert all(job.config == json.loads(text)["config"] for job, text in zip(jobs, texts, strict=True))


def test_every_problem_of_a_job_file_is_said_at_once():
    values = {name: value for name, value in JOB.to_dict().items() if name != "threads"} | {"cores": 2}
    with pytest.raises(InputError, match=r"(?s)no field 'cores'.*must have the field 'threads'"):
        Job.from_dict(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "A job must be JSON"),
        ("[]", "A job must be a JSON object, got list"),
        (dataclasses.replace(JOB).to_json().replace('"together"', '"apart"'), "must be one of together, time, error"),
        (JOB.to_json().replace('"launch": null', '"launch": {"devices": 2}'), "must have the field 'address'"),
    ],
)
def test_a_file_that_holds_no_job_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        Job.from_json(text)
