"""Everything a report shows, computed once from a run folder."""

from dataclasses import dataclass

import pandas as pd

from results.analysis.effects import main_effects
from results.analysis.errors import ErrorTraining, load_errors
from results.analysis.fidelity import Compared, fidelity_words
from results.analysis.importance import knob_importance, varied_knobs
from results.analysis.pareto import hypervolume_over_time
from results.analysis.picks import Recommendation, recommend
from results.analysis.table import load_trials
from timellm.contract.columns import BASELINE, CONFIRM, SAMPLER, State, Status, knob_columns, knob_name
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """A run's table and what follows from it."""

    folder: RunFolder
    manifest: Manifest
    table: Compared
    """The table and the views of it."""
    errors: tuple[ErrorTraining, ...]
    """Every training that measured an error, where errors were measured apart."""
    varied: list[str]
    """Columns of the knobs that differ between trials, of every state."""
    recommendation: Recommendation
    importance: pd.DataFrame
    effects: pd.DataFrame
    growth: pd.DataFrame
    """Hypervolume over wall clock; empty without a reference point."""

    @property
    def trials(self) -> pd.DataFrame:
        """Every row."""
        return self.table.trials

    @property
    def main(self) -> pd.DataFrame:
        """Rows of the main fidelity, failed ones included."""
        return self.table.main

    @property
    def configurations(self) -> pd.DataFrame:
        """Complete rows of the main fidelity, repeats averaged."""
        return self.table.configurations

    @property
    def front(self) -> pd.DataFrame:
        """Its Pareto front, from fast to slow."""
        return self.table.front

    @property
    def is_live(self) -> bool:
        """Whether the search is still running."""
        return self.manifest.status == Status.RUNNING

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.manifest.name or self.folder.name

    @property
    def fidelity(self) -> str:
        """The main fidelity in words."""
        return fidelity_words(self.main)

    @property
    def fixed(self) -> dict[str, str]:
        """Knobs that are the same in every trial."""
        return {
            knob_name(name): str(self.trials[name].iloc[0])
            for name in knob_columns(self.trials)
            if name not in self.varied and len(self.trials) and pd.notna(self.trials[name].iloc[0])
        }

    @property
    def named(self) -> pd.DataFrame:
        """The complete baseline and plans."""
        sources = self.configurations["source"].astype("string")
        return self.configurations[(~sources.isin([SAMPLER, CONFIRM]) & sources.notna()).to_numpy(dtype=bool)]

    @property
    def stopped(self) -> pd.DataFrame:
        """Trials stopped early."""
        return self.main[(self.main["state"] == State.STOPPED_EARLY).to_numpy()]

    @property
    def failures(self) -> pd.DataFrame:
        """Trials that neither completed nor were stopped early."""
        ended_well = self.trials["state"].isin([State.COMPLETE, State.STOPPED_EARLY])
        return self.trials[(~ended_well).to_numpy()]

    @property
    def has_baseline(self) -> bool:
        """Whether ratios refer to the baseline."""
        reference = self.recommendation.reference
        return len(reference) > 0 and reference["source"] == BASELINE

    @property
    def time_weight(self) -> float:
        """Weight of log time in the joint score."""
        return self.manifest.time_weight

    @property
    def controls(self) -> dict[str, float]:
        """Forecasts without training to compare with: their validation MSE by name."""
        return self.manifest.control_errors


def recommendation_of(folder: RunFolder) -> Recommendation:
    """What a run folder recommends, without the rest of a report.

    Raises:
        InputError: If the folder is not a run folder or cannot be read.
    """
    return recommend(load_trials(folder.path), folder.read_manifest(), load_errors(folder))


def gather(folder: RunFolder) -> Evidence:
    """Read a run folder and compute what its report shows.

    Raises:
        InputError: If the folder is not a run folder or cannot be read.
    """
    manifest = folder.read_manifest()
    table, errors = Compared.of(load_trials(folder.path)), load_errors(folder)
    growth = pd.DataFrame({"trial_id": [], "trials": [], "elapsed_seconds": [], "hypervolume": []})
    if manifest.reference_point and len(table.configurations):
        growth = hypervolume_over_time(table.main, manifest.reference_point)
    return Evidence(
        folder=folder,
        manifest=manifest,
        table=table,
        errors=errors,
        varied=varied_knobs(table.trials),
        recommendation=recommend(table, manifest, errors),
        importance=knob_importance(table),
        effects=main_effects(table),
        growth=growth,
    )
