"""One training run: `python timellm/run_main.py --help`."""

import argparse
import json
import os
import re
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from timellm.contract.columns import State
from timellm.contract.config import RunConfig
from timellm.contract.declarations import AtLeast, AtMost, ReadBy, Shown
from timellm.contract.errors import ExitStatus, InputError
from timellm.contract.flags import CommandOptions, add_flags, text_or_none
from timellm.contract.layout import TrialFolder
from timellm.contract.result import RunResult
from timellm.machine.cores import Threads

PROG = "run_main.py"

_LONGEST_NAME = 100

Listener = Callable[[dict[str, Any]], None]
"""Hears the events of a run."""

OF_THE_DATA = ("data", "root_path", "data_path", "features", "target", "percent", "train_samples", "val_samples")
"""Settings that a training does not take from the checkpoint it starts from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output(CommandOptions):
    """What is made of a run beside its training; the run itself is a `RunConfig`."""

    # Output
    model_id: Annotated[str | None, ReadBy(text_or_none)] = "run"
    """First part of the run's folder name."""
    des: Annotated[str | None, ReadBy(text_or_none)] = None
    """Last part of the run's folder name."""
    checkpoints: Annotated[str, Shown("DIR")] = "checkpoints"
    """Folder of the runs' folders."""
    checkpoint: Annotated[str | None, Shown("FILE", default="in the run's folder")] = None
    """What forecasts are made with; with --itr the first run's."""
    init_from: Annotated[str | None, Shown("FILE")] = None
    """Checkpoint to go on training from, with its settings."""
    save_forecasts: bool = False
    """Leave the test split's forecasts in the run's folder."""
    itr: Annotated[int, AtLeast(1), AtMost(10**6), Shown("N")] = 1
    """Runs, each with the next seed."""
    num_threads: Threads = None
    """CPU threads."""
    profile: bool = False
    """Record some steps: shares, operations, a trace."""

    def __post_init__(self) -> None:
        """Refuse values of another type, numbers beyond their limits, and what cannot name a file or a folder.

        Raises:
            InputError: With every problem found, at once.
        """
        problems: list[str] = []
        try:
            CommandOptions.__post_init__(self)
        except InputError as error:
            problems += error.problems
        for name in ("model_id", "des"):
            if (length := len(getattr(self, name) or "")) > _LONGEST_NAME:
                problems.append(
                    f"{name} must have at most {_LONGEST_NAME} characters, got {length}: it names a folder."
                )
        if self.checkpoint is not None and Path(self.checkpoint).is_dir():
            problems.append(f"checkpoint must be a file, got the folder {self.checkpoint}.")
        if problems:
            raise InputError(problems)


def main() -> int:
    """Parse the flags, train `--itr` times, print the test errors on the last line."""
    from timellm.arguments import build_parser, config_from, ignored_flags, launcher_notes
    from timellm.machine.process import leave_process_group, world_size

    parser = build_parser(PROG, "Trains Time-LLM once, or --itr times with different seeds.")
    add_flags(parser, Output)
    arguments = parser.parse_args()
    output = Output.of(vars(arguments))
    config = config_from(_with_settings_of_start(arguments, output.init_from))
    _check_forecasts(output, config)
    if ignored := ignored_flags(arguments):
        print(f"No effect in Time-LLM's forecasting: {', '.join(ignored)}.", file=sys.stderr)
    for note in launcher_notes(arguments):
        print(note, file=sys.stderr)
    status = _train(config, output)
    if status == 0 and world_size() > 1:
        leave_process_group()
    return status


def _with_settings_of_start(arguments: argparse.Namespace, init_from: str | None) -> argparse.Namespace:
    """The flags, and for those not given the settings of the checkpoint that the training starts from."""
    from timellm.run.checkpoint import read_checkpoint

    if init_from is None:
        return arguments
    config = read_checkpoint(Path(init_from)).config
    kept = {name: value for name, value in config.to_dict().items() if name not in OF_THE_DATA and value is not None}
    return argparse.Namespace(**{**kept, **vars(arguments)})


def _check_forecasts(output: Output, config: RunConfig) -> None:
    """Refuse forecasts of a test pass that the run does not make."""
    from timellm.machine.process import world_size

    problems = []
    if output.save_forecasts and config.train_samples is not None:
        problems.append("save_forecasts needs a test pass, which a run on train_samples does not make. Drop one.")
    if output.save_forecasts and world_size() > 1:
        problems.append("save_forecasts needs one process. Use timellm/forecast.py CHECKPOINT --backtest test instead.")
    if problems:
        raise InputError(problems)


def _train(config: RunConfig, output: Output) -> int:
    import torch

    from timellm.check import check_run
    from timellm.machine.environment import describe_machine
    from timellm.machine.process import process_rank, world_size

    world, is_first = world_size(), process_rank() == 0
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(output.num_threads or max(1, describe_machine()["cores"] // here))
    facts = check_run(config)
    notes = facts.pop("prompts", {}).get("notes", ())
    if is_first:
        factors = f"{config.batch_size} x {config.accumulation_steps}" + (f" x {world} processes" if world > 1 else "")
        print(f"global batch {config.global_batch * world} = {factors}", flush=True)
        for note in notes:
            print(note, file=sys.stderr, flush=True)
    should_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: should_stop.set())
    results = []
    for repeat in range(output.itr):
        this = config.replace(seed=config.seed + repeat)
        folder = TrialFolder(_folder(output, this)).rank(process_rank())
        checkpoint = Path(output.checkpoint) if output.checkpoint is not None and repeat == 0 else folder.checkpoint
        checkpoint.parent.mkdir(parents=True, exist_ok=True)  # what is wrong with it is said before the training
        result = _run(output, this, facts, folder, checkpoint.absolute(), should_stop, is_profiled=repeat == 0)
        results.append(result)
        if result.state != State.COMPLETE:
            print(f"{PROG}: {result.state}: {result.error}", file=sys.stderr)
            return ExitStatus.of(result.state)
        if is_first:
            print("\n".join([_summary(result, folder.path), _device_line(result), *result.notes]), flush=True)
            print(f"checkpoint: {checkpoint}", flush=True)
    if is_first:
        print(_last_line(results))
    return 0


def _run(
    output: Output,
    config: RunConfig,
    facts: Mapping[str, Any],
    folder: TrialFolder,
    checkpoint: Path,
    should_stop: threading.Event,
    *,
    is_profiled: bool,
) -> RunResult:
    """One of the runs that the flags ask for, and what it leaves in its folder."""
    from timellm.machine.environment import describe_machine, git_revision, package_versions
    from timellm.machine.process import process_rank
    from timellm.run.history import History
    from timellm.run.progress import ProgressPrinter
    from timellm.run.training import RunOptions, TrainingRun

    folder.path.mkdir(parents=True, exist_ok=True)
    saved: dict[str, Any] = {"config": config.to_dict(), "versions": package_versions(), "machine": describe_machine()}
    saved |= {"git_revision": git_revision(), **facts}
    (folder.path / "config.json").write_text(json.dumps(saved, indent=2) + "\n")
    history, progress = History(folder.path) if process_rank() == 0 else None, ProgressPrinter()
    options = RunOptions(
        folder=folder.path,
        checkpoint=checkpoint,
        init_from=Path(output.init_from) if output.init_from else None,
        saves_forecasts=output.save_forecasts,
        is_profiled=output.profile and is_profiled,
        on_event=_told(progress, history) if history is not None else lambda event: None,
        should_stop=should_stop,
    )
    try:
        result = TrainingRun(config, options).run()
    finally:
        progress.close()
        if history is not None:
            history.close()
    result.write(folder.result)
    return result


def _told(*listeners: Listener) -> Listener:
    """One listener that tells several."""

    def tell(event: dict[str, Any]) -> None:
        for listener in listeners:
            listener(event)

    return tell


def _folder(output: Output, config: RunConfig) -> Path:
    parts = (
        output.model_id,
        config.data,
        f"sl{config.seq_len}",
        f"pl{config.pred_len}",
        output.des,
        f"s{config.seed}",
    )
    name = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in parts if part)
    return Path(output.checkpoints) / name


def _summary(result: RunResult, folder: Path) -> str:
    spread = ""
    if result.seconds_per_epoch_high is not None:
        spread = f" (95 % {result.seconds_per_epoch_low:.1f} to {result.seconds_per_epoch_high:.1f})"
    kind = "projected" if result.is_projected else "measured"
    return (
        f"{folder}: val mse {result.val_mse:.6f}, {kind} {result.seconds_per_epoch:.1f} s per epoch{spread}, "
        f"{result.seconds_per_batch:.4f} s per batch, peak {result.peak_memory_gib:.2f} GiB, "
        f"{result.trainable_parameters:,} of {result.total_parameters:,} parameters trained, {result.backbone}, "
        f"attention {result.attention_kernel}"
    )


def _device_line(result: RunResult) -> str:
    """What was sampled of the device and the processor during training, as far as it is known."""
    figures = (
        ("{mean:.0f} % busy (at most {max:.0f} %)", "device_utilisation_percent"),
        ("at most {max:.2f} GiB in use", "device_memory_gib"),
        ("{mean:.0f} W (at most {max:.0f} W)", "device_power_watts"),
        ("at most {max:.0f} °C", "device_temperature_celsius"),
        ("CPU {mean:.0f} %", "cpu_utilisation_percent"),
        ("at most {max:.2f} GiB of host memory", "host_memory_gib"),
    )
    parts = [
        text.format(mean=getattr(result, f"mean_{name}"), max=getattr(result, f"max_{name}"))
        for text, name in figures
        if getattr(result, f"max_{name}") is not None and not (result.device == "cpu" and "device" not in name)
    ]
    waited = f"waited for data in {result.data_wait_percent:.0f} % of the step time"
    return ", ".join([f"{result.device}: {parts[0]}", *parts[1:], waited]) if parts else f"{result.device}: {waited}"


def _last_line(results: Sequence[RunResult]) -> str:
    mse = [result.test_mse for result in results if result.test_mse is not None]
    mae = [result.test_mae for result in results if result.test_mae is not None]
    if not mse:
        return f"val mse {results[-1].val_mse:.6f}, no test mse, because a run on train_samples makes no test pass"
    line = f"test mse {statistics.fmean(mse):.6f}, mae {statistics.fmean(mae):.6f}"
    if len(results) > 1:
        line += f" (mean of {len(results)} seeds, standard deviation {statistics.stdev(mse):.6f})"
    return line


def command() -> NoReturn:
    """The command `timellm-train`."""
    from timellm.machine.process import restart_with_environment

    restart_with_environment()
    from timellm.arguments import run_command

    run_command(main, PROG)


if __name__ == "__main__":
    command()
