"""Everything a report shows, computed once from a run folder."""

from dataclasses import dataclass

import pandas as pd

from results.analysis.effects import main_effects
from results.analysis.errors import ErrorTraining, load_errors
from results.analysis.fidelity import fidelity_words, main_fidelity
from results.analysis.importance import knob_importance, varied_knobs
from results.analysis.pareto import average_repeats, hypervolume_over_time, pareto_front
from results.analysis.picks import Recommendation, recommend
from results.analysis.table import load_trials
from timellm.contract.columns import BASELINE, CONFIRM, SAMPLER, State, knob_columns, knob_name
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """A run's table and what follows from it."""

    folder: RunFolder
    manifest: Manifest
    trials: pd.DataFrame
    """Every row."""
    errors: tuple[ErrorTraining, ...]
    """Every training that measured an error, where errors were measured apart."""
    main: pd.DataFrame
    """Rows of the main fidelity, failed ones included."""
    configurations: pd.DataFrame
    """Complete rows of the main fidelity, repeats averaged."""
    front: pd.DataFrame
    """Its Pareto front, from fast to slow."""
    recommendation: Recommendation
    importance: pd.DataFrame
    effects: pd.DataFrame
    growth: pd.DataFrame
    """Hypervolume over wall clock; empty without a reference point."""

    @property
    def is_live(self) -> bool:
        """Whether the search is still running."""
        return self.manifest.status == "running"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.manifest.name or self.folder.name

    @property
    def fidelity(self) -> str:
        """The main fidelity in words."""
        return fidelity_words(self.main)

    @property
    def varied(self) -> list[str]:
        """Columns of the knobs that differ between trials, of every state."""
        return varied_knobs(self.trials)

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


def gather(folder: RunFolder) -> Evidence:
    """Read a run folder and compute what its report shows.

    Raises:
        InputError: If the folder is not a run folder or cannot be read.
    """
    manifest = folder.read_manifest()
    trials, errors = load_trials(folder.path), load_errors(folder)
    main = main_fidelity(trials)
    configurations = average_repeats(main)
    growth = pd.DataFrame({"trial_id": [], "trials": [], "elapsed_seconds": [], "hypervolume": []})
    if manifest.reference_point and len(configurations):
        growth = hypervolume_over_time(main, manifest.reference_point)
    return Evidence(
        folder=folder,
        manifest=manifest,
        trials=trials,
        errors=errors,
        main=main,
        configurations=configurations,
        front=pareto_front(main),
        recommendation=recommend(trials, manifest, errors),
        importance=knob_importance(trials),
        effects=main_effects(trials),
        growth=growth,
    )
