"""The files of a run folder: every name is decided here once."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from timellm.contract.errors import InputError
from timellm.contract.files import require_ordinary, write_atomically
from timellm.contract.manifest import Manifest

RESULT = "result.json"
EVENTS = "events.jsonl"
DEEPSPEED_CONFIG = "ds_config_zero2.json"
CHECKPOINT = "checkpoint.safetensors"
COMMAND = "command.sh"
DATA = "data.parquet"
"""Names that several folders have, or a search looks for."""


class PickName(StrEnum):
    """Names of the recommendations, which are those of their folders."""

    EXACT = "exact"
    FASTEST = "fastest"
    BALANCED = "balanced"
    ACCURATE = "accurate"


PICKS = tuple(PickName)
"""The recommendations, in the order they are shown."""


class RunFolder:
    """Paths in one run folder; nothing is created or read until asked.

    Args:
        path: The folder, existing or not.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def manifest(self) -> Path:
        """Resolved plan, versions, hardware, seeds, checksums."""
        return self.path / "manifest.json"

    @property
    def lock(self) -> Path:
        """Locked by the search that runs here."""
        return self.path / ".lock"

    @property
    def trials_csv(self) -> Path:
        """The trials table as CSV."""
        return self.path / "trials.csv"

    @property
    def trials_parquet(self) -> Path:
        """The trials table as Parquet."""
        return self.path / "trials.parquet"

    @property
    def errors(self) -> Path:
        """Every training that measured an error, one JSON object a line."""
        return self.path / "errors.jsonl"

    @property
    def study(self) -> Path:
        """The Optuna study, SQLite."""
        return self.path / "study.db"

    @property
    def ray(self) -> Path:
        """The Ray Tune experiment and its TensorBoard logs."""
        return self.path / "ray"

    @property
    def data(self) -> Path:
        """The DataFrame that a search was given, as a file that trainings read."""
        return self.path / DATA

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The report's plots, one file each."""
        return self.path / "plots"

    @property
    def recommended(self) -> Path:
        """The recommended settings."""
        return self.path / "recommended"

    @property
    def recommended_command(self) -> Path:
        """The headline as a command: the balanced pick, or exact where errors are not telling."""
        return self.recommended / COMMAND

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.path / "trials"

    def recommendation(self, pick: str) -> "PickFolder":
        """Files of one of the `PICKS`."""
        return PickFolder(self.recommended / pick)

    def trial(self, trial_id: str) -> "TrialFolder":
        """Files of one trial."""
        return TrialFolder(self.trials / trial_id)

    @property
    def probe(self) -> "TrialFolder":
        """Files of the probe that a plan with one clock is made from."""
        return TrialFolder(self.path / "probe")

    @property
    def control(self) -> "TrialFolder":
        """Files of the control without a language model."""
        return TrialFolder(self.path / "control")

    def read_manifest(self) -> Manifest:
        """The manifest.

        Raises:
            InputError: If the folder or its manifest is missing, cannot be read, or holds values of another type.
        """
        if not self.path.is_dir():
            raise InputError(f"A run folder is needed, but {self.path} does not exist. Check its name and --runs_dir.")
        try:
            return Manifest.from_json(require_ordinary(self.manifest).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"A run folder holds manifest.json, but {self.path} does not. Name the folder of one run."
            ) from None
        except InputError as error:
            raise InputError(f"{self.manifest}: {problem}." for problem in error.problems) from None
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.manifest} must be readable JSON, got: {error}.") from None

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest atomically."""
        write_atomically(self.manifest, manifest.to_json())


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Files of one trial, or of one of the trainings that it consists of."""

    path: Path

    @property
    def job(self) -> Path:
        """What the worker was asked to do."""
        return self.path / "job.json"

    @property
    def result(self) -> Path:
        """What the worker measured."""
        return self.path / RESULT

    @property
    def events(self) -> Path:
        """Progress of the worker, one JSON object a line."""
        return self.path / EVENTS

    @property
    def log(self) -> Path:
        """Standard output and error of the worker."""
        return self.path / "run.log"

    @property
    def checkpoint(self) -> Path:
        """The best validation's trained parameters, of a run on all windows."""
        return self.path / CHECKPOINT

    @property
    def deepspeed_config(self) -> Path:
        """The DeepSpeed configuration it trained with, if any."""
        return self.path / DEEPSPEED_CONFIG

    @property
    def stop(self) -> Path:
        """Ends the trial; holds why, after `now:` if at once."""
        return self.path / "stop"

    @property
    def error(self) -> "TrialFolder":
        """Files of the training of its error, if that is measured apart from its time."""
        return TrialFolder(self.path / "error")

    def error_with(self, seed: int) -> "TrialFolder":
        """Files of such a training with another seed."""
        return TrialFolder(self.path / f"error-{seed}")

    @property
    def retimed(self) -> "TrialFolder":
        """Files of its second timing."""
        return TrialFolder(self.path / "retimed")

    def rank(self, rank: int) -> "TrialFolder":
        """Files of one process of a trial on several devices: the first one's are the trial's own."""
        return TrialFolder(self.path / f"rank{rank}") if rank else self

    def outcome(self, rank: int) -> Path:
        """How such a process ended; removed at the end of the trial."""
        return self.path / f"outcome{rank}.json"

    @property
    def outcomes(self) -> list[Path]:
        """Those that are there."""
        return list(self.path.glob("outcome*.json"))

    @property
    def interrupt(self) -> Path:
        """Asks the first of such processes to end in good order; the others end with it."""
        return self.path / "interrupt"

    @property
    def ray_train(self) -> Path:
        """What Ray Train keeps while such processes run."""
        return self.path / "ray_train"


@dataclass(frozen=True, slots=True)
class PickFolder:
    """Files of one recommendation."""

    path: Path

    @property
    def command(self) -> Path:
        """Shell script that trains it."""
        return self.path / COMMAND

    @property
    def run_config(self) -> Path:
        """Its run configuration, every field."""
        return self.path / "run.json"

    @property
    def deepspeed_config(self) -> Path:
        """A DeepSpeed configuration for it."""
        return self.path / DEEPSPEED_CONFIG

    @property
    def checkpoint(self) -> Path:
        """What it forecasts with, once it was trained."""
        return self.path / CHECKPOINT

    @property
    def trainings(self) -> Path:
        """What its trainings leave beside the checkpoint: history, learning curve, TensorBoard logs."""
        return self.path / "runs"

    @property
    def reasons(self) -> Path:
        """Why it was picked, in words."""
        return self.path / "why.md"
