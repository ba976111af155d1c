"""Odd flags of searches and of the commands that read run folders."""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.fuzz_runs import NASTY
from benchmarks.fuzz_searches import results_case, search_case, sound_run
from benchmarks.fuzzing import Case, Maker
from search.setup.options import Options
from timellm.contract.columns import COLUMNS
from timellm.contract.layout import RunFolder

_VALUES = (
    *NASTY, "1" + "0" * 30, "-1", "0", "7", "442", "1e30", "2.5", "x" * 300, "x" * 5000, "~nobody/x", "a/b", "a?b",
    "100%", "$(touch hit)", "a;b", "/", ".", "..", "/dev/null", "/dev/zero", "/proc/self/mem", "\udcff", "10m", "90s",
    "1h30m", "-1s", "none", "full", "auto", "64", "gp", "tpe", "joint", "moasha", "apart", "together", "smoke", "speed",
    "nyc-weather", "ETTh1", "custom", "gpt2", "127.0.0.1:1", ":", "host:port", "[::1]:1", "odd",
)  # fmt: skip
_SETTINGS = (
    "batch_size=8", "batch_size=8,16", "batch_size=", "=8", "batch_size=8=8", "batch_size=" + "8," * 3000,
    "precision=bf16", "precision=bf64", "nothing=1", "batch_size=1e3", "learning_rate=nan", "llm_layers=0", "d_ff=x",
    "batch_size=8,8,8", "train_samples=1", "seed=1", "--", "", "use_swt=maybe", "dropout=-0", "n_heads=\u0663",
)  # fmt: skip
_TEXTS = ["space", "fidelity", "name", "resume", "warm_start", "llm_model", "root_path", "data_path", "target"]
"""Flags that take any text."""
_NOWHERE = ("", "x" * 5000, "\udcff", "/dev/zero")
_FLAGS_OF = {
    "report": (), "table": ("--sort", "--state"), "front": (), "importance": ("--evaluator",), "compare": (),
    "export": ("--format", "--output"),
}  # fmt: skip
"""The commands that read run folders."""
_SHORT = ("--space", "smoke", "--fidelity", "32", "--num_trials", "5", "--no-dashboard")


def make_search_flags(draw: random.Random, folder: Path) -> Case:
    """Flags of a search with values of any kind, most of them with `--dry_run`; there is an earlier run, `odd`."""
    names = [field for field in Options.__dataclass_fields__ if field not in ("set", "runs_dir", "dry_run")]
    words = list(_SHORT) if draw.random() < 0.7 else []
    for name in draw.sample([*names, *_TEXTS * 2], draw.choice([0, 1, 1, 1, 2])):
        value = draw.choice(_VALUES)
        words += draw.choice([*[[f"--{name}={value}"]] * 8, [f"--{name}", value], [f"--{name}"]])
    for _ in range(draw.choice([0, 0, 1, 2])):
        words += [f"--set={draw.choice(_SETTINGS)}"]
    words += draw.choice([*[[]] * 12, ["--bogus"], ["bogus"], ["--"], ["--help"], ["--se", "smoke"]])
    words += [] if draw.random() < 0.25 else ["--dry_run"]
    runs = folder / draw.choice(["runs", "runs", "100%", "what?mode=ro", "a b", "r" * 200, "é", "{0}", "a#b", "$(x)"])
    runs.mkdir()
    sound_run(runs)
    return search_case([*words, f"--runs_dir={runs}"])


def make_results_flags(draw: random.Random, folder: Path) -> Case:
    """Commands that read run folders, with a sound one, what is not one, and flags of any kind."""
    run = sound_run(folder)
    draw.choice(_PLACES)(other := folder / "other")
    others = [str(other), str(other), str(folder), str(RunFolder(run).trials_csv), *_NOWHERE]
    command = draw.choice([*_FLAGS_OF, "bogus"])
    count = 2 if command == "compare" else draw.choice([1, 1, 1, 2])
    words = [command, *(str(run) if draw.random() < 0.6 else draw.choice(others) for _ in range(count))]
    columns = [column.name for column in COLUMNS]
    values = {
        "--sort": [*columns, *columns, *_VALUES],
        "--state": ["complete", "failed", *_VALUES],
        "--evaluator": ["fanova", "ped-anova", "x"],
        "--format": ["csv", "json", "parquet", "x", ""],
        "--output": [*(str(folder / name) for name in ("out", "no/out", "other", "o" * 300)), "", "/dev/full"],
    }
    for flag in _FLAGS_OF.get(command, ()):
        if draw.random() < 0.6:
            words += [f"{flag}={draw.choice(values[flag])}"]
    return results_case([*words, *draw.choice([*[[]] * 12, ["--bogus"], ["--sort"], ["--"], ["--help"]])])


def _as_file(path: Path) -> None:
    path.write_text("run")


def _with_manifest(text: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        RunFolder(path).manifest.write_text(text)

    return make


def _with_pipes(path: Path) -> None:
    path.mkdir()
    folder = RunFolder(path)
    for file in (folder.manifest, folder.trials_csv, folder.trials_parquet):
        os.mkfifo(file)


def _endless(path: Path) -> None:
    path.mkdir()
    folder = RunFolder(path)
    folder.manifest.write_text("{}")
    for file in (folder.trials_csv, folder.errors):
        file.symlink_to("/dev/zero")


_PLACES: tuple[Callable[[Path], object], ...] = (
    Path.mkdir, _as_file, _with_manifest("{}"), _with_manifest("[" * 10**5), _with_manifest('{"name": null}'), _endless,
    _with_pipes, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero"),
)  # fmt: skip
"""What stands where a run folder should."""

KINDS: Mapping[str, Maker] = {"search flags": make_search_flags, "results flags": make_results_flags}
"""Kinds of flags."""
