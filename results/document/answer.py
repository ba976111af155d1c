"""The top of a report: what to run, why, and how sure that is."""

import shlex
from datetime import UTC, datetime

import pandas as pd

from results.analysis.evidence import Evidence
from results.analysis.judgement import Word
from results.analysis.picks import Pick
from results.analysis.wording import factor, percent
from results.document.markup import Child, Element, definition_list, el, table
from timellm.contract.columns import PEAK_MEMORY_GIB, SECONDS_PER_EPOCH, VAL_MSE, State
from timellm.contract.words import MISSING, seconds_words

REFRESH_SECONDS = 15
"""How often the page of a running search is loaded again."""

PICKS_TITLES = {1: "The pick", 3: "Three picks", 4: "Four picks"}
"""Heading of the table of picks, by their number."""


def answer_section(evidence: Evidence) -> Element:
    """The recommended setting: headline, figures, command, the picks and their caveats."""
    recommendation = evidence.recommendation
    if not recommendation.picks:
        return el(
            "section",
            {"class": "answer", "id": "answer"},
            _eyebrow(evidence),
            el("h1", None, "No complete trial yet" if evidence.is_live else "No trial completed"),
            el("p", {"class": "lead"}, _empty_words(evidence)),
        )
    first = recommendation.headline
    assert first is not None  # there are picks
    return el(
        "section",
        {"class": "answer", "id": "answer"},
        _eyebrow(evidence),
        el("h1", None, headline(evidence)),
        el("p", {"class": "lead"}, _changes_words(first, evidence), _badge(first)),
        _figures(first, evidence),
        _command(evidence, first),
        el("h2", None, PICKS_TITLES[len(recommendation.picks)]),
        _picks_table(evidence),
        el("ul", {"class": "reasons"}, [_reason(pick) for pick in recommendation.picks]),
        el("ul", {"class": "caveats"}, [el("li", None, caveat) for caveat in recommendation.caveats])
        if recommendation.caveats
        else None,
    )


def headline(evidence: Evidence) -> str:
    """The answer in one line."""
    recommendation = evidence.recommendation
    first, base = recommendation.headline, recommendation.reference_name
    yet = " yet" if evidence.is_live else ""
    if first is None or not recommendation.beats_baseline:
        if first is not None and first.name == "exact":
            return f"No faster way to the baseline's numbers was found{yet}"
        return f"Nothing beats {base}{yet}"
    faster = f"{factor(first.speedup.value)}× as fast"
    if first.name == "exact":
        return f"{faster}, the same numbers"
    if first.has_same_numbers:
        return f"{faster} as {base}, the same numbers"
    if not first.is_telling:
        return f"{faster} as {base}, errors not telling"
    change = first.difference.percent if first.difference is not None else first.mse_change
    word = first.difference.word if first.difference is not None else Word.NOT_SHOWN
    return f"{faster} as {base}, at {percent(change)} validation MSE ({word})"


def live_banner(evidence: Evidence) -> Element | None:
    """Says that the search is running and lets the reader stop the page from loading again."""
    if not evidence.is_live:
        return None
    ended = len(evidence.trials)
    updated = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return el(
        "div",
        {"class": "live", "role": "status"},
        el("span", {"class": "pulse", "aria-hidden": "true"}, ""),
        el(
            "span",
            None,
            f"The search is running: {ended} trial{'s' if ended != 1 else ''} so far{_time_spent(evidence)}. ",
            "Updated at ",
            el("time", {"datetime": updated.replace(" ", "T") + "Z"}, f"{updated} UTC"),
            f". This page loads again every {REFRESH_SECONDS} seconds.",
        ),
        el("button", {"type": "button", "id": "pause", "aria-pressed": "false", "hidden": "hidden"}, "Pause"),
    )


def _time_spent(evidence: Evidence) -> str:
    """How long the search has run, and of what budget."""
    elapsed, budget = evidence.manifest.get("elapsed_seconds"), evidence.manifest.get("time_budget_seconds")
    if not elapsed:
        return ""
    return f" in {seconds_words(elapsed)}" + (f" of {seconds_words(budget)}" if budget else "")


def _eyebrow(evidence: Evidence) -> Element:
    manifest = evidence.manifest
    data, backbone = (manifest.get(key) or {} for key in ("data", "backbone"))
    parts = [evidence.name, data.get("name"), backbone.get("label") or backbone.get("name")]
    if evidence.manifest.get("status") == "interrupted":
        parts.append("interrupted")
    return el("p", {"class": "eyebrow"}, " · ".join(str(part) for part in parts if part))


def _empty_words(evidence: Evidence) -> str:
    if evidence.is_live and evidence.trials.empty:
        return "The first trial, the baseline, is being trained. Its result comes here."
    if evidence.trials.empty:
        return "The run ended before its first trial did."
    return f"{len(evidence.trials)} trials ended in another way; see what went wrong and what to do below."


def _changes_words(pick: Pick, evidence: Evidence) -> list[Child]:
    if not evidence.recommendation.beats_baseline:
        if evidence.recommendation.considered == 1:
            return ["It is the only complete configuration. "]
        if pick.name == "exact":
            return ["No other configuration that was timed has the baseline's numbers and is faster. "]
        return [
            f"None of the {evidence.recommendation.considered} complete configurations has a better joint score, "
            "so keep its settings. "
        ]
    words: list[Child] = ["Set "]
    for index, (knob, value, _) in enumerate(pick.changes):
        words += [", " if index else "", el("code", None, f"{knob} {value}")]
    return [*words, " "]


def _badge(pick: Pick) -> Element:
    if pick.name == "exact":
        return el("span", {"class": "badge"}, "exact")
    if pick.is_preliminary:
        return el("span", {"class": "badge warn"}, "preliminary")
    seeds = int(pick.row["repeats"])
    return el("span", {"class": "badge"}, f"{seeds} seeds" if seeds > 1 else "one seed")


def _figures(pick: Pick, evidence: Evidence) -> Element:
    row, reference = pick.row, evidence.recommendation.reference
    base = "baseline" if evidence.has_baseline else "reference"

    def against(name: str, words: str) -> str:
        return "" if pick.is_reference else f"{base} {words}" if pd.notna(reference[name]) else ""

    interval = "the interval is not known"
    if pick.speedup.is_known:
        interval = f"95 % interval {factor(pick.speedup.low)} to {factor(pick.speedup.high)}"
    spread = "" if pick.is_reference else pick.error_words
    cards = [
        ("Speed-up", f"{factor(pick.speedup.value)}×", "" if pick.is_reference else interval),
        (
            "Seconds per epoch",
            seconds_words(row[SECONDS_PER_EPOCH]),
            against(SECONDS_PER_EPOCH, seconds_words(reference[SECONDS_PER_EPOCH])),
        ),
        ("Validation MSE", _error(row), _join(against(VAL_MSE, _error(reference)), spread)),
        ("Peak memory", _gib(row), against(PEAK_MEMORY_GIB, _gib(reference))),
    ]
    values: list[tuple[str, Child]] = [
        (title, [el("span", {"class": "value"}, value), el("span", {"class": "note"}, note)])
        for title, value, note in cards
    ]
    return definition_list(values, "figures")


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _command(evidence: Evidence, pick: Pick) -> Element:
    path = shlex.quote(str(evidence.folder.recommended_command))
    return el(
        "div",
        {"class": "command"},
        el(
            "pre",
            {"tabindex": "0", "aria-label": f"Command of the {pick.title.lower()} pick"},
            el("code", None, f"bash {path}"),
        ),
        el("button", {"type": "button", "class": "copy", "hidden": "hidden"}, "Copy"),
    )


def _picks_table(evidence: Evidence) -> Element:
    rows: list[list[Child]] = []
    for pick in evidence.recommendation.picks:
        changes: list[Child] = [el("code", None, f"{knob} {value}") for knob, value, _ in pick.changes]
        rows.append(
            [
                pick.title,
                pick.trial_id,
                seconds_words(pick.row[SECONDS_PER_EPOCH]),
                f"{factor(pick.speedup.value)}×",
                _error(pick.row),
                MISSING if pick.is_reference else el("span", {"class": "wraps"}, pick.error_words),
                _gib(pick.row),
                el("span", {"class": "settings"}, changes or "as the baseline" if evidence.has_baseline else changes),
            ]
        )
    heads = ["Pick", "Trial", "Per epoch", "Speed-up", "Validation MSE", "MSE change", "Memory", "Settings that differ"]
    return table("The recommended configurations", heads, rows, numeric=range(2, 7))


def _reason(pick: Pick) -> Element:
    folder = f"recommended/{pick.name}/"
    return el("li", None, el("strong", None, f"{pick.title}. "), pick.reason, " Files: ", el("code", None, folder))


def _error(row: pd.Series) -> str:
    return MISSING if pd.isna(row[VAL_MSE]) else f"{row[VAL_MSE]:.4f}"


def _gib(row: pd.Series) -> str:
    return MISSING if pd.isna(row[PEAK_MEMORY_GIB]) else f"{row[PEAK_MEMORY_GIB]:.1f} GiB"


def state_words(evidence: Evidence) -> str:
    """How many trials ended in each state."""
    counts = evidence.trials["state"].value_counts()
    parts = [f"{counts[state]} {state.replace('_', ' ')}" for state in State if counts.get(state, 0)]
    return ", ".join(parts) or "none yet"
