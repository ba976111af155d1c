"""The recommendations and the reasons for them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from results.analysis.errors import ErrorTraining
from results.analysis.fidelity import Compared, compared
from results.analysis.judgement import TOLERANCE, Difference
from results.analysis.pareto import score_against
from results.analysis.ratios import Ratio, mse_change, speedup_ratio
from results.analysis.reference import baseline_lack, reference_name
from results.analysis.verdict import Verdict, judge
from results.analysis.wording import error_change_words, multiple, signed, weight_words
from timellm.contract.columns import BASELINE, CONTENDED, SECONDS_PER_EPOCH, VAL_MSE, knob_columns, knob_name
from timellm.contract.layout import PickName
from timellm.contract.manifest import Manifest
from timellm.contract.words import seconds_words

TITLES = {
    PickName.EXACT: "Exact",
    PickName.FASTEST: "Fastest",
    PickName.BALANCED: "Balanced",
    PickName.ACCURATE: "Most accurate",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """One recommended configuration."""

    name: PickName
    """Which one."""
    row: pd.Series
    """Its row of `results.analysis.fidelity.Compared.timed`."""
    reason: str
    """Why it was picked, one or two sentences."""
    speedup: Ratio
    """Against the reference; of the exact pick against the baseline."""
    mse_change: float
    """Against the reference, percent; NaN where one of both has no error."""
    mse_std: float
    """Standard deviation of `mse_change` over seeds, percent; NaN with one seed."""
    difference: Difference | None
    """Difference of error over the seeds that both were trained with; None where they share none."""
    has_same_numbers: bool
    """Whether it differs from the reference only in ways to compute, so that both have the same error."""
    is_telling: bool
    """Whether errors tell anything; if not, nothing is said about its error."""
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
        """Whether it is based on projected rows that no other seed has confirmed; the same numbers need no seed."""
        projected = pd.isna(self.row["is_projected"]) or bool(self.row["is_projected"])
        repeated = int(self.row["confirmations"]) > 0 or (
            self.difference is not None and len(self.difference.seeds) > 1
        )
        return projected and not repeated and not self.has_same_numbers

    @property
    def error_words(self) -> str:
        """What can be said about its error: `the same numbers`, or the change with its interval and word."""
        return error_change_words(
            self.mse_change, self.difference, is_same=self.has_same_numbers, is_telling=self.is_telling
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What a run recommends."""

    picks: tuple[Pick, ...]
    """In the order of `PICKS`: exact where the baseline was timed, the others where there is a complete trial."""
    reference: pd.Series
    """The row that ratios refer to; empty while no trial was timed."""
    considered: int
    """Complete configurations of the main fidelity."""
    caveats: tuple[str, ...]
    """What a reader must know about all picks, one sentence each."""
    verdict: Verdict
    """What errors show."""

    def pick(self, name: str) -> Pick:
        """One of the picks by name."""
        return next(pick for pick in self.picks if pick.name == name)

    @property
    def headline(self) -> Pick | None:
        """What is recommended first: the balanced pick, or the exact one where errors are not telling."""
        by_name = {pick.name: pick for pick in self.picks}
        order = (
            (PickName.BALANCED, PickName.EXACT) if self.verdict.telling.holds else (PickName.EXACT, PickName.BALANCED)
        )
        return next((by_name[name] for name in order if name in by_name), None)

    @property
    def reference_name(self) -> str:
        """What ratios refer to, in words: `the baseline` or `trial t0001`; needs a timed trial."""
        return reference_name(self.reference)

    @property
    def beats_baseline(self) -> bool:
        """Whether what is recommended first is another configuration than the reference."""
        return self.headline is not None and not self.headline.is_reference

    @property
    def beats_in_score(self) -> bool:
        """Whether some complete configuration has a better joint score than the reference."""
        return any(pick.name == PickName.BALANCED and not pick.is_reference for pick in self.picks)


def recommend(df: pd.DataFrame | Compared, manifest: Manifest, errors: Sequence[ErrorTraining] = ()) -> Recommendation:
    """Choose the exact, the fastest, the balanced and the most accurate configuration.

    Args:
        df: The trials table of one run.
        manifest: The run's manifest, for its time weight, its controls and the weights of its language model.
        errors: The run's error trainings, from `results.analysis.errors.load_errors`.

    Returns:
        Picks of the main fidelity, repeats averaged. exact: least seconds_per_epoch of the timed rows with the
        baseline's own numbers; it needs a timed baseline, and no error. The others among complete rows; fastest: least
        seconds_per_epoch with a val_mse at most `TOLERANCE` above the reference's; balanced: best joint score;
        accurate: least val_mse of the rows that owe it to no greater number of optimizer steps.
    """
    weight, table = manifest.time_weight, compared(df)
    rows, baseline, reference = table.configurations, table.baseline, table.reference
    verdict = judge(table.main, reference, manifest, errors)
    chosen: dict[PickName, pd.Series] = {}
    tolerated = rows
    if not baseline.empty:
        chosen[PickName.EXACT] = _exact(table.timed, baseline, verdict)
    if len(rows):
        rows = rows.assign(joint_score=score_against(rows, table.references, weight))
        tolerated = rows[(rows[VAL_MSE] <= (1 + TOLERANCE) * reference[VAL_MSE]).to_numpy(dtype=bool)]
        by_error = rows.sort_values([VAL_MSE, SECONDS_PER_EPOCH])
        chosen[PickName.FASTEST] = tolerated.sort_values([SECONDS_PER_EPOCH, VAL_MSE]).iloc[0]
        chosen[PickName.BALANCED] = rows.sort_values(["joint_score", SECONDS_PER_EPOCH]).iloc[0]
        chosen[PickName.ACCURATE] = next(row for _, row in by_error.iterrows() if verdict.may_be_accurate(row))
    picks = tuple(
        _pick(
            name, row, baseline if name == PickName.EXACT else reference, verdict, (len(rows), len(tolerated)), weight
        )
        for name, row in chosen.items()
    )
    caveats = tuple(_caveats(table, picks, manifest, verdict)) if picks else ()
    return Recommendation(picks=picks, reference=reference, considered=len(rows), caveats=caveats, verdict=verdict)


def _exact(rows: pd.DataFrame, baseline: pd.Series, verdict: Verdict) -> pd.Series:
    """The fastest row with the baseline's own numbers; the baseline itself where nothing is faster."""
    key = verdict.key(baseline)
    faster = rows[(rows[SECONDS_PER_EPOCH] < baseline[SECONDS_PER_EPOCH]).to_numpy(dtype=bool)]
    in_order = faster.sort_values(SECONDS_PER_EPOCH, kind="stable")
    return next((row for _, row in in_order.iterrows() if verdict.key(row) == key), baseline)


def _pick(
    name: PickName, row: pd.Series, reference: pd.Series, verdict: Verdict, counts: tuple[int, int], weight: float
) -> Pick:
    """A pick and what is said about it.

    Args:
        name: Which one.
        row: Its row.
        reference: The row that its ratios refer to.
        verdict: What errors show.
        counts: Complete configurations, and those of them within the tolerance.
        weight: Of log time in the joint score.
    """
    change, deviation = mse_change(row, reference)
    is_reference = bool(row["trial_id"] == reference["trial_id"])
    pick = Pick(
        name=name,
        row=row,
        reason="",
        speedup=speedup_ratio(row, reference),
        mse_change=change,
        mse_std=deviation,
        difference=verdict.difference(row),
        has_same_numbers=name == PickName.EXACT or is_reference or verdict.key(row) == verdict.key(reference),
        is_telling=verdict.telling.holds,
        changes=_changes(row, reference),
        is_reference=is_reference,
    )
    return dataclasses.replace(pick, reason=_reason(pick, reference, counts, weight))


def _reason(pick: Pick, reference: pd.Series, counts: tuple[int, int], weight: float) -> str:
    row, (considered, tolerated) = pick.row, counts
    base = "baseline" if reference["source"] == BASELINE else f"reference {reference['trial_id']}"
    count = f"{considered} complete configuration{'s' if considered != 1 else ''}"
    against = f"{seconds_words(row[SECONDS_PER_EPOCH])} per epoch"
    if pick.is_reference:
        against += f", and it is the {base} itself"
    else:
        against += f" against the {base}'s {seconds_words(reference[SECONDS_PER_EPOCH])}: {multiple(pick.speedup)}"
        if pick.has_same_numbers:
            against += ", the same numbers"
        elif pick.is_telling:
            against += f", at {pick.error_words} validation MSE"
    within = "only one" if tolerated == 1 else f"fastest of the {tolerated}"
    if pick.name == PickName.EXACT:
        return f"The fastest way to compute the {base}'s own numbers, so its error need not be measured: {against}."
    if pick.name == PickName.FASTEST:
        limit = f"{TOLERANCE:.0%}".replace("%", " %")
        return f"The {within} of {count} whose validation MSE is at most {limit} above the {base}'s: {against}."
    if pick.name == PickName.BALANCED:
        score = signed(row["joint_score"])
        return f"The best joint score of {count}, {score} (lower is better): {against}. {weight_words(weight)}"
    lowest = f"The lowest validation MSE of {count}, {row[VAL_MSE]:.4f}"
    return f"{lowest}, which is not an effect of more optimizer steps over as many windows: {against}."


def _changes(row: pd.Series, reference: pd.Series) -> tuple[tuple[str, str, str], ...]:
    changes = []
    for name in knob_columns(row.index):
        value, base = ("not set" if pd.isna(side[name]) else str(side[name]) for side in (row, reference))
        if value != base:
            changes.append((knob_name(name), value, base))
    return tuple(changes)


def _caveats(table: Compared, picks: tuple[Pick, ...], manifest: Manifest, verdict: Verdict) -> list[str]:
    caveats = []
    if not verdict.telling.holds:
        caveats.append(
            verdict.telling.reason + " So the exact pick is recommended, and no error is claimed."
            if any(pick.name == PickName.EXACT for pick in picks)
            else verdict.telling.reason
        )
    lack = baseline_lack(table.trials, table.reference)
    if lack is not None:
        caveats.append(
            f"The baseline {lack}, so every ratio refers to the first complete trial, {table.reference['trial_id']}."
        )
    if any(pick.is_preliminary for pick in picks):
        caveats.append(
            "Preliminary: trials saw only a part of the windows, times per epoch are projected and no other seed has "
            "confirmed the picks. Run the search with --confirm 3, or train the commands in full."
        )
    caveats += _control_caveat(picks, table.configurations, manifest.control_errors)
    contended = [pick for pick in picks if pick.row["timing_quality"] == CONTENDED]
    names = sorted({pick.trial_id for pick in contended if not (pick.name == PickName.EXACT and pick.is_reference)})
    if names:
        doubt = "its time is less sure than it looks" if len(names) == 1 else "their times are less sure than they look"
        caveats.append(f"Other load was seen during the timing of {', '.join(names)}; {doubt}.")
    if manifest.has_random_weights:
        caveats.append("The language model has random weights: times are real, accuracy means nothing.")
    return caveats


def _control_caveat(picks: tuple[Pick, ...], rows: pd.DataFrame, controls: Mapping[str, float]) -> list[str]:
    """Which controls no trial beats, or if none those that the balanced pick does not beat; empty if it beats all."""
    balanced = next((float(pick.row[VAL_MSE]) for pick in picks if pick.name == PickName.BALANCED), None)
    if balanced is None:
        return []
    best = rows.sort_values([VAL_MSE, SECONDS_PER_EPOCH]).iloc[0]
    better = [name for name, error in controls.items() if error < best[VAL_MSE]]
    than = "every trial"
    if not better:
        better = [name for name, error in controls.items() if error < balanced]
        than = f"the balanced pick, {balanced:.4f}"
    if not better:
        return []
    names = ", ".join(f"{name} ({controls[name]:.4f})" for name in better)
    verb = "control {} has" if len(better) == 1 else "controls {} have"
    return [
        f"The {verb.format(names)} a lower validation MSE than {than} (the best trial, {best['trial_id']}, has "
        f"{best[VAL_MSE]:.4f}): the settings do not fit the data yet, or the trials were too short to tell."
    ]
