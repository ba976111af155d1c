"""The three recommendations and the reasons for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.analysis.fidelity import main_fidelity
from results.analysis.pareto import average_repeats, joint_score, reference_rows, time_weight
from results.analysis.ratios import Ratio, mse_change, speedup_ratio
from results.analysis.reference import baseline_lack, reference_name
from results.analysis.wording import change_words, multiple, seconds_words, signed, weight_words
from timellm.contract.columns import BASELINE, SECONDS_PER_EPOCH, VAL_MSE, knob_columns, knob_name

MSE_TOLERANCE = 0.02
"""Share by which the fastest pick's validation MSE may exceed the reference's."""

TITLES = {"fastest": "Fastest", "balanced": "Balanced", "accurate": "Most accurate"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """One recommended configuration."""

    name: str
    """fastest, balanced or accurate."""
    row: pd.Series
    """Its row of `results.analysis.pareto.average_repeats`."""
    reason: str
    """Why it was picked, one or two sentences."""
    speedup: Ratio
    """Against the reference."""
    mse_change: float
    """Against the reference, percent."""
    mse_std: float
    """Standard deviation of `mse_change` over seeds, percent; NaN with one seed."""
    changes: tuple[tuple[str, str, str], ...]
    """Knob, its value, the reference's value, where the two differ."""
    is_reference: bool
    """Whether the reference itself was picked."""

    @property
    def title(self) -> str:
        """Its name for a reader."""
        return TITLES[self.name]

    @property
    def trial_id(self) -> str:
        """The trial it comes from."""
        return str(self.row["trial_id"])

    @property
    def is_preliminary(self) -> bool:
        """Whether it stands on projected rows that no other seed has confirmed."""
        projected = pd.isna(self.row["is_projected"]) or bool(self.row["is_projected"])
        return projected and int(self.row["confirmations"]) == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What a run recommends."""

    picks: tuple[Pick, ...]
    """fastest, balanced, accurate; empty while there is no complete trial."""
    reference: pd.Series
    """The row that ratios refer to; empty while there is no complete trial."""
    considered: int
    """Complete configurations of the main fidelity."""
    caveats: tuple[str, ...]
    """What a reader must know about all picks, one sentence each."""

    def pick(self, name: str) -> Pick:
        """One of the picks by name."""
        return next(pick for pick in self.picks if pick.name == name)

    @property
    def reference_name(self) -> str:
        """What ratios refer to, for a sentence: `the baseline` or `trial t0001`; needs a complete trial."""
        return reference_name(self.reference)

    @property
    def beats_baseline(self) -> bool:
        """Whether some configuration has a better joint score than the reference."""
        return bool(self.picks) and not self.pick("balanced").is_reference


def recommend(df: pd.DataFrame, manifest: Mapping[str, Any]) -> Recommendation:
    """Choose the fastest, the balanced and the most accurate configuration.

    Args:
        df: The trials table of one run.
        manifest: The run's manifest, for its time weight, its controls and the weights of its language model.

    Returns:
        Picks among the complete configurations of the main fidelity, repeats averaged. fastest: least
        seconds_per_epoch with a val_mse at most `MSE_TOLERANCE` above the reference's; balanced: best joint score;
        accurate: least val_mse.

    Raises:
        InputError: If the manifest's time weight is none.
    """
    weight = time_weight(manifest)
    main = main_fidelity(df)
    rows = average_repeats(main)
    if rows.empty:
        return Recommendation(picks=(), reference=pd.Series(dtype=object), considered=0, caveats=())
    reference = reference_rows(main).iloc[0]
    rows = rows.assign(joint_score=joint_score(rows, weight))
    tolerated = rows[(rows[VAL_MSE] <= (1 + MSE_TOLERANCE) * reference[VAL_MSE]).to_numpy(dtype=bool)]
    chosen = {
        "fastest": tolerated.sort_values([SECONDS_PER_EPOCH, VAL_MSE]).iloc[0],
        "balanced": rows.sort_values(["joint_score", SECONDS_PER_EPOCH]).iloc[0],
        "accurate": rows.sort_values([VAL_MSE, SECONDS_PER_EPOCH]).iloc[0],
    }
    picks = tuple(_pick(name, row, reference, rows, len(tolerated), weight) for name, row in chosen.items())
    return Recommendation(
        picks=picks, reference=reference, considered=len(rows), caveats=tuple(_caveats(df, reference, picks, manifest))
    )


def _pick(name: str, row: pd.Series, reference: pd.Series, rows: pd.DataFrame, tolerated: int, weight: float) -> Pick:
    change, deviation = mse_change(row, reference)
    speedup = speedup_ratio(row, reference)
    base = "baseline" if reference["source"] == BASELINE else f"reference {reference['trial_id']}"
    count = f"{len(rows)} complete configuration{'s' if len(rows) != 1 else ''}"
    against = f"{seconds_words(row[SECONDS_PER_EPOCH])} per epoch"
    if row["trial_id"] == reference["trial_id"]:
        against += f", and it is the {base} itself"
    else:
        against += f" against the {base}'s {seconds_words(reference[SECONDS_PER_EPOCH])}: {multiple(speedup)}"
        against += f", at {change_words(change, deviation)} validation MSE"
    within = "only one" if tolerated == 1 else f"fastest of the {tolerated}"
    reasons = {
        "fastest": f"The {within} of {count} whose validation MSE is at most "
        f"{MSE_TOLERANCE:.0%} above the {base}'s".replace("%", " %")
        + f": {against}.",
        "balanced": f"The best joint score of {count}, {signed(row['joint_score'])} (lower is better): {against}. "
        + weight_words(weight),
        "accurate": f"The lowest validation MSE of {count}, {row[VAL_MSE]:.4f}: {against}.",
    }
    return Pick(
        name=name,
        row=row,
        reason=reasons[name],
        speedup=speedup,
        mse_change=change,
        mse_std=deviation,
        changes=_changes(row, reference),
        is_reference=bool(row["trial_id"] == reference["trial_id"]),
    )


def _changes(row: pd.Series, reference: pd.Series) -> tuple[tuple[str, str, str], ...]:
    changes = []
    for name in knob_columns(row.index):
        value, base = ("not set" if pd.isna(side[name]) else str(side[name]) for side in (row, reference))
        if value != base:
            changes.append((knob_name(name), value, base))
    return tuple(changes)


def _caveats(df: pd.DataFrame, reference: pd.Series, picks: tuple[Pick, ...], manifest: Mapping[str, Any]) -> list[str]:
    caveats = []
    lack = baseline_lack(df, reference)
    if lack is not None:
        caveats.append(
            f"The baseline {lack}, so every ratio refers to the first complete trial, {reference['trial_id']}."
        )
    if any(pick.is_preliminary for pick in picks):
        caveats.append(
            "Preliminary: trials saw only a part of the windows, times per epoch are projected and no other seed has "
            "confirmed the picks. Run the search with --confirm 3, or train the commands in full."
        )
    caveats += _control_caveat(picks, manifest.get("controls") or [])
    if any(pick.row["timing_quality"] == "contended" for pick in picks):
        names = sorted({pick.trial_id for pick in picks if pick.row["timing_quality"] == "contended"})
        caveats.append(f"Other load was seen while {', '.join(names)} was timed; its time is less sure than it looks.")
    if (manifest.get("run_config") or {}).get("llm_weights") == "random":
        caveats.append("The language model has random weights: times are real, accuracy means nothing.")
    return caveats


def _control_caveat(picks: tuple[Pick, ...], controls: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which controls no trial beats, or else those that the balanced pick does not beat; empty where it beats all."""
    mse = {pick.name: float(pick.row[VAL_MSE]) for pick in picks}
    better = [control for control in controls if float(control[VAL_MSE]) < mse["accurate"]]
    than = "every trial"
    if not better:
        better = [control for control in controls if float(control[VAL_MSE]) < mse["balanced"]]
        than = f"the balanced pick, {mse['balanced']:.4f}"
    if not better:
        return []
    names = ", ".join(f"{control['name']} ({float(control[VAL_MSE]):.4f})" for control in better)
    verb = "control {} has" if len(better) == 1 else "controls {} have"
    best = next(pick.trial_id for pick in picks if pick.name == "accurate")
    return [
        f"The {verb.format(names)} a lower validation MSE than {than} (the best trial, {best}, has "
        f"{mse['accurate']:.4f}): the settings do not fit the data yet, or the trials were too short to tell."
    ]
