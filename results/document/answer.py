"""The top of a report: what to run, why, and how sure that is."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from results.analysis.evidence import Evidence
from results.analysis.judgement import Word
from results.analysis.picks import Pick
from results.analysis.wording import factor, percent
from results.document.parts import gib_words
from timellm.contract.columns import PEAK_MEMORY_GIB, SECONDS_PER_EPOCH, VAL_MSE, Status
from timellm.contract.layout import PickName
from timellm.contract.words import MISSING, seconds_words

REFRESH_SECONDS = 15
"""How often the page of a running search is loaded again."""

PICKS_TITLES = {1: "The pick", 3: "Three picks", 4: "Four picks"}
"""Heading of the table of picks, by their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One of the large figures."""

    title: str
    value: str
    note: str
    """What it compares with; may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The pick that the report recommends."""

    title: str
    settings: Sequence[str]
    """What to set, empty where the baseline's settings stay."""
    badge: str
    is_preliminary: bool
    cards: Sequence[Card]
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PickRow:
    """A pick as a row of their table, and its reason."""

    title: str
    trial_id: str
    seconds: str
    speedup: str
    error: str
    error_change: str
    """Empty for the reference itself."""
    memory: str
    settings: Sequence[str]
    no_settings: str
    """Stands where no setting differs."""
    reason: str
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the top of a report says."""

    eyebrow: str
    headline: str
    lead: str
    pick: Headline | None = None
    picks_title: str = ""
    rows: Sequence[PickRow] = ()
    caveats: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """That the search is still running."""

    ended: int
    """Trials so far."""
    spent: str
    updated: datetime
    refresh_seconds: int = REFRESH_SECONDS


def answer(evidence: Evidence) -> Answer:
    """The recommended setting: headline, figures, command, the picks and their caveats."""
    recommendation = evidence.recommendation
    pick = recommendation.headline
    if pick is None:
        title = "No complete trial yet" if evidence.is_live else "No trial completed"
        return Answer(eyebrow=_eyebrow(evidence), headline=title, lead=_empty_words(evidence))
    return Answer(
        eyebrow=_eyebrow(evidence),
        headline=headline(evidence),
        lead=_lead(pick, evidence),
        pick=Headline(
            title=pick.title,
            settings=_settings(pick) if recommendation.beats_baseline else (),
            badge=_badge(pick),
            is_preliminary=pick.is_preliminary and pick.name != PickName.EXACT,
            cards=_cards(pick, evidence),
            command=f"bash {shlex.quote(str(evidence.folder.recommended_command))}",
        ),
        picks_title=PICKS_TITLES[len(recommendation.picks)],
        rows=[_pick_row(each, evidence) for each in recommendation.picks],
        caveats=recommendation.caveats,
    )


def headline(evidence: Evidence) -> str:
    """The answer in one line."""
    recommendation = evidence.recommendation
    first, base = recommendation.headline, recommendation.reference_name
    yet = " yet" if evidence.is_live else ""
    if first is None or not recommendation.beats_baseline:
        if first is not None and first.name == PickName.EXACT:
            return f"No faster way to the baseline's numbers was found{yet}"
        return f"Nothing beats {base}{yet}"
    faster = f"{factor(first.speedup.value)}× as fast"
    if first.name == PickName.EXACT:
        return f"{faster}, the same numbers"
    if first.has_same_numbers:
        return f"{faster} as {base}, the same numbers"
    if not first.is_telling:
        return f"{faster} as {base}, errors not telling"
    change = first.difference.percent if first.difference is not None else first.mse_change
    word = first.difference.word if first.difference is not None else Word.NOT_SHOWN
    return f"{faster} as {base}, at {percent(change)} validation MSE ({word})"


def live(evidence: Evidence) -> Live | None:
    """How far a running search is; None for one that has ended."""
    if not evidence.is_live:
        return None
    return Live(ended=len(evidence.trials), spent=_time_spent(evidence), updated=datetime.now(UTC))


def _time_spent(evidence: Evidence) -> str:
    """How long the search has run, and of what budget."""
    elapsed, budget = evidence.manifest.elapsed_seconds, evidence.manifest.time_budget_seconds
    if not elapsed:
        return ""
    return f" in {seconds_words(elapsed)}" + (f" of {seconds_words(budget)}" if budget else "")


def _eyebrow(evidence: Evidence) -> str:
    manifest = evidence.manifest
    parts = [evidence.name, manifest.data.name, manifest.backbone.label or manifest.backbone.name]
    if manifest.status == Status.INTERRUPTED:
        parts.append(Status.INTERRUPTED)
    return " · ".join(str(part) for part in parts if part)


def _empty_words(evidence: Evidence) -> str:
    if evidence.is_live and evidence.trials.empty:
        return "The first trial, the baseline, is being trained. Its result comes here."
    if evidence.trials.empty:
        return "The run ended before its first trial did."
    return f"No trial of {len(evidence.trials)} completed; what went wrong and what to do is said below."


def _lead(pick: Pick, evidence: Evidence) -> str:
    """The sentence under the headline; where something is to be set, the settings end it."""
    recommendation = evidence.recommendation
    if recommendation.beats_baseline:
        return "Set"
    if recommendation.considered == 1:
        return "It is the only complete configuration."
    if pick.name == PickName.EXACT:
        return "No other configuration that was timed has the baseline's numbers and is faster."
    return (
        f"None of the {recommendation.considered} complete configurations has a better joint score, "
        "so keep its settings."
    )


def _settings(pick: Pick) -> list[str]:
    return [f"{knob} {value}" for knob, value, _ in pick.changes]


def _badge(pick: Pick) -> str:
    if pick.name == PickName.EXACT:
        return PickName.EXACT
    if pick.is_preliminary:
        return "preliminary"
    seeds = int(pick.row["repeats"])
    return f"{seeds} seeds" if seeds > 1 else "one seed"


def _cards(pick: Pick, evidence: Evidence) -> Sequence[Card]:
    row, reference = pick.row, evidence.recommendation.reference
    base = "baseline" if evidence.has_baseline else "reference"

    def against(name: str, words: str) -> str:
        return "" if pick.is_reference or pd.isna(reference[name]) else f"{base} {words}"

    interval = "the interval is not known"
    if pick.speedup.is_known:
        interval = f"95 % interval {factor(pick.speedup.low)} to {factor(pick.speedup.high)}"
    errors = (against(VAL_MSE, _error(reference)), "" if pick.is_reference else pick.error_words)
    return (
        Card(
            title="Speed-up",
            value=f"{factor(pick.speedup.value)}×",
            note="" if pick.is_reference else interval,
        ),
        Card(
            title="Seconds per epoch",
            value=seconds_words(row[SECONDS_PER_EPOCH]),
            note=against(SECONDS_PER_EPOCH, seconds_words(reference[SECONDS_PER_EPOCH])),
        ),
        Card(title="Validation MSE", value=_error(row), note=", ".join(words for words in errors if words)),
        Card(title="Peak memory", value=_memory(row), note=against(PEAK_MEMORY_GIB, _memory(reference))),
    )


def _pick_row(pick: Pick, evidence: Evidence) -> PickRow:
    return PickRow(
        title=pick.title,
        trial_id=pick.trial_id,
        seconds=seconds_words(pick.row[SECONDS_PER_EPOCH]),
        speedup=f"{factor(pick.speedup.value)}×",
        error=_error(pick.row),
        error_change="" if pick.is_reference else pick.error_words,
        memory=_memory(pick.row),
        settings=_settings(pick),
        no_settings="as the baseline" if evidence.has_baseline else "",
        reason=pick.reason,
        folder=f"recommended/{pick.name}/",
    )


def _error(row: pd.Series) -> str:
    return MISSING if pd.isna(row[VAL_MSE]) else f"{row[VAL_MSE]:.4f}"


def _memory(row: pd.Series) -> str:
    return gib_words(row[PEAK_MEMORY_GIB], " GiB")
