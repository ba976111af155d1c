"""A search from Python: the command in a process of its own, a DataFrame as its data, a result to go on with."""

import datetime
import html
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from results.analysis.evidence import recommendation_of
from results.analysis.picks import Pick
from results.analysis.table import load_trials
from timellm.contract.errors import InputError
from timellm.contract.layout import PICKS, PickName, RunFolder
from timellm.forecasting.apart import flags_of, run_apart
from timellm.forecasting.training import write_data
from timellm.machine.process import PROJECT_ROOT

if TYPE_CHECKING:
    from timellm.forecasting.forecaster import Forecaster


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search left.

    Attributes:
        folder: Its run folder, with the report.
    """

    folder: RunFolder

    @property
    def trials(self) -> pd.DataFrame:
        """The trials table, a row per trial."""
        return load_trials(self.folder.path)

    @property
    def picks(self) -> dict[str, Pick]:
        """The recommended settings by name, with their reasons."""
        return {pick.name: pick for pick in recommendation_of(self.folder).picks}

    def train(self, pick: str = PickName.BALANCED, **settings: Any) -> "Forecaster":
        """Train a pick to its end, as its recommended command does, and load it.

        Args:
            pick: Name of a pick.
            **settings: Settings that win over the pick's, such as `train_epochs`.

        Raises:
            InputError: If there is no such pick, or a training refuses the settings.
            RuntimeError: If the training fails.
        """
        if taken := sorted({"checkpoint", "checkpoints"} & settings.keys()):
            raise InputError(f"A pick is trained into its own folder, got {', '.join(taken)}. Use its command.sh.")
        command = self.folder.recommendation(self._known(pick)).command
        run_apart(["bash", str(command), *flags_of(settings)], "training")
        return self.forecaster(pick)

    def forecaster(self, pick: str = PickName.BALANCED) -> "Forecaster":
        """A pick that was trained.

        Raises:
            InputError: If there is no such pick, or it was not trained.
        """
        from timellm.forecasting.forecaster import Forecaster

        return Forecaster.load(self.folder.recommendation(self._known(pick)).path)

    def _known(self, pick: str) -> str:
        found = [name for name in PICKS if self.folder.recommendation(name).command.is_file()]
        if pick not in found:
            named = f"one of {', '.join(found)}" if found else "one that the search found, and it found none"
            raise InputError(f"pick must be {named}, got {pick!r}. The report says why: {self.folder.report}")
        return pick

    def __repr__(self) -> str:
        """Folder, number of trials and picks."""
        return f"SearchResult({str(self.folder.path)!r}: {len(self.trials)} trials, picks {', '.join(self.picks)})"

    def _repr_html_(self) -> str:
        """For notebooks: the picks, and where the report is."""
        rows = "".join(
            f"<tr><th>{html.escape(pick.title)}</th><td>{html.escape(pick.trial_id)}</td>"
            f"<td>{html.escape(pick.reason)}</td></tr>"
            for pick in self.picks.values()
        )
        report = html.escape(str(self.folder.report))
        return f"<table>{rows}</table><p>{len(self.trials)} trials. Report: <code>{report}</code></p>"


def search(
    data: pd.DataFrame | str | None = None,
    space: str | Path = "speed",
    *,
    set: Mapping[str, Any] | Sequence[str] = (),
    dashboard: bool = False,
    **options: Any,
) -> SearchResult:
    """Search the settings that train best on this machine; blocks until it ends, and shows its progress.

    The search runs in a process of its own, so that this one keeps its threads and environment. No `__main__` guard is
    needed.

    Args:
        data: A DataFrame, wide (`ds` or `date`, and a column per series) or long (`unique_id, ds, y`), which is kept
            in the run folder; or the name of a data set, with `root_path` and `data_path`; or None for the embedded
            one.
        space: Name of a search space, or a TOML file.
        set: Knobs to fix or narrow, `{"precision": "fp32", "batch_size": [32, 64]}`.
        dashboard: Whether Ray's dashboard is started.
        **options: Flags of `search/run.py` by name: `num_trials`, `time_budget` (`"10m"`), `fidelity`, `seed`, `name`,
            `runs_dir`, `llm_model` and so on.

    Raises:
        InputError: For data or options that a search refuses.
        RuntimeError: If nothing usable comes out.
        KeyboardInterrupt: If the user ends it; `resume=NAME` goes on.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S-%f")
    options = {"name": options.get("resume") or now, "runs_dir": "runs", **options}
    if unknown := sorted({"dry_run", "no-dashboard"} & options.keys()):
        raise InputError(f"search.search takes no option {', '.join(unknown)}. Use search/run.py for it.")
    folder = RunFolder(Path(str(options["runs_dir"])).expanduser() / str(options["name"]))
    flags = flags_of({"space": space, **options, "runs_dir": folder.path.parent})
    flags += [part for setting in _settings(set) for part in ("--set", setting)]
    flags += ["--dashboard" if dashboard else "--no-dashboard"]
    is_written = not isinstance(data, str | None)
    if isinstance(data, str):
        flags += ["--data", data]
    elif data is not None:
        flags += _kept_data(data, folder, options)
    try:
        run_apart([sys.executable, str(PROJECT_ROOT / "search" / "run.py"), *flags], "search")
    except InputError:
        if is_written and not folder.manifest.exists():
            shutil.rmtree(folder.path, ignore_errors=True)  # the name stays free
        raise
    return SearchResult(folder)


def _kept_data(data: Any, folder: RunFolder, options: Mapping[str, Any]) -> list[str]:
    """Write the DataFrame into the run folder; the flags that read it there."""
    taken = sorted({"root_path", "data_path"} & options.keys())
    if taken:
        raise InputError(
            f"A search on a DataFrame reads no other data, got also {', '.join(taken)}. Drop one of the two."
        )
    if options.get("resume") is not None:
        raise InputError("A resumed search reads the data that it began with. Drop data or resume.")
    if folder.path.exists():
        raise InputError(f"name must be new, but {folder.path} exists. Continue it with resume, or use another name.")
    folder.path.mkdir(parents=True)
    try:
        write_data(data, folder.data)
    except InputError:
        shutil.rmtree(folder.path)
        raise
    return ["--data", "custom", "--root_path", str(folder.path), "--data_path", folder.data.name]


def _settings(given: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Knobs as `--set` takes them."""
    if not isinstance(given, Mapping):
        return [given] if isinstance(given, str) else list(given)
    return [f"{name}={_text(value)}" for name, value in given.items()]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_text(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
