"""The sections of a report that say how the numbers came about: time, failures, small print."""

import pandas as pd

from results.analysis.evidence import Evidence
from results.document.figures_detail import MAX_BARS, PARTS, breakdown_figure, breakdown_rows, time_parts
from results.document.markup import Child, Element, definition_list, details, el, table
from results.document.page_parts import Section, plot
from timellm.contract.columns import CONTENDED, State
from timellm.contract.words import seconds_words

MAX_FAILURES = 50
"""Failed trials that are listed one by one."""

REMEDIES: dict[State, str] = {
    State.OUT_OF_MEMORY: "Use bf16 or fp16, a smaller batch_size with more accumulation_steps, fewer llm_layers, "
    "prompt_prefix reuse, gradient_checkpointing, or offload_optimizer cpu.",
    State.DIVERGED: "Use bf16 instead of fp16, a lower learning_rate, or clip gradients with --max_grad_norm.",
    State.FAILED: "Read run.log in the trial's folder; it holds the whole message.",
    State.INTERRUPTED: "Go on with --resume; an interrupted trial is run again.",
}
"""What to do about a state, beyond what the trial's own error says."""


def time_section(evidence: Evidence) -> Section:
    """Where the wall clock of the trials went."""
    timed = evidence.trials[evidence.trials["total_seconds"].notna().to_numpy()]
    if timed.empty:
        return Section("time", "Where the time went", [el("p", None, "No trial was timed.")])
    totals = time_parts(timed).sum()
    whole = max(float(totals.sum()), 1e-9)
    shares = ", ".join(f"{part} {100 * totals[part] / whole:.0f} %" for part in PARTS)
    words = f"{len(timed):,} trials took {seconds_words(whole)} together: {shares}."
    shown = breakdown_rows(evidence)
    if len(shown) < len(timed):
        words += f" Drawn are the last {MAX_BARS}."
    parts = time_parts(shown)
    rows = [
        [str(trial), *(seconds_words(value) for value in values)]
        for trial, values in zip(shown["trial_id"], parts.to_numpy().tolist(), strict=True)
    ]
    data = table("Time of each trial by part", ["Trial", *PARTS], rows, numeric=range(1, 5))
    label = f"Stacked bars: where the time of {len(shown)} trials went; the table of this plot lists it."
    children: list[Child] = [el("p", None, words), plot("time", label), details("The times as a table", data)]
    return Section("time", "Where the time went", children, {"time": breakdown_figure(evidence)})


def failures_section(evidence: Evidence) -> Section:
    """Trials that did not complete, and what to do about each kind."""
    failures = evidence.failures
    if failures.empty:
        return Section("failures", "What went wrong", [el("p", None, "Every trial completed or was stopped early.")])
    children: list[Child] = []
    kinds = [(state, int((failures["state"] == state).sum())) for state in REMEDIES]
    entries: list[tuple[str, Child]] = [
        (f"{count} {state.replace('_', ' ')}", REMEDIES[state]) for state, count in kinds if count
    ]
    children.append(definition_list(entries, "remedies"))
    if len(failures) > MAX_FAILURES:
        children.append(el("p", None, f"The last {MAX_FAILURES} of {len(failures):,}; trials.csv holds all."))
    rows = [
        [
            str(row["trial_id"]),
            el("span", {"class": f"state {row['state']}"}, str(row["state"]).replace("_", " ")),
            "no message" if pd.isna(row["error"]) else el("span", {"class": "error"}, str(row["error"])),
        ]
        for _, row in failures.tail(MAX_FAILURES).iterrows()
    ]
    children.append(table("Trials that did not complete", ["Trial", "State", "What happened"], rows))
    return Section("failures", "What went wrong", children)


def print_section(evidence: Evidence) -> Section:
    """The small print: machine, software, data, fidelity, timing, settings."""
    groups = [("Machine", _machine(evidence)), ("Measurement", _measurement(evidence)), ("Search", _search(evidence))]
    groups += [("Data and model", _data(evidence)), ("Software", _software(evidence))]
    fixed: list[tuple[str, Child]] = [(knob, value) for knob, value in evidence.fixed.items()]
    children: list[Child] = [
        el("div", {"class": "columns"}, [_group(title, pairs) for title, pairs in groups if pairs])
    ]
    if fixed:
        children.append(details("Knobs that every trial shares", definition_list(fixed, "print")))
    notes = [*(evidence.manifest.get("notes") or []), *((evidence.manifest.get("data") or {}).get("notes") or [])]
    if notes:
        items = [el("li", None, str(note)) for note in dict.fromkeys(notes)]
        children += [el("h3", None, "Notes"), el("ul", None, items)]
    command = evidence.manifest.get("command")
    if command:
        text = " ".join(str(part) for part in command) if isinstance(command, list) else str(command)
        code = el("pre", {"tabindex": "0", "aria-label": "Command of the search"}, el("code", None, text))
        children += [el("h3", None, "Command of this search"), code]
    return Section("print", "Small print", children)


def _group(title: str, pairs: list[tuple[str, str]]) -> Element:
    return el("div", None, el("h3", None, title), definition_list(pairs, "print"))


def _pairs(entries: list[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(term, str(value)) for term, value in entries if value not in (None, "", [])]


def _machine(evidence: Evidence) -> list[tuple[str, str]]:
    machine = evidence.manifest.get("machine") or {}
    gpus = machine.get("gpus") or []
    names = [str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu) for gpu in gpus]
    memory = machine.get("memory_gib")
    return _pairs(
        [
            ("Processor", machine.get("cpu")),
            ("Cores", machine.get("cores")),
            ("Memory", f"{memory:.1f} GiB" if memory else None),
            ("GPU", ", ".join(names) or "none"),
            ("System", machine.get("platform")),
        ]
    )


def _measurement(evidence: Evidence) -> list[tuple[str, str]]:
    contended = int((evidence.trials["timing_quality"] == CONTENDED).sum())
    projected = int(evidence.trials["is_projected"].fillna(False).sum())
    other = len(evidence.trials) - len(evidence.main)
    return _pairs(
        [
            ("Fidelity", evidence.fidelity),
            ("Projected trials", f"{projected:,} of {len(evidence.trials):,}"),
            ("Trials of another fidelity", other or None),
            ("Contended trials", f"{contended:,} of {len(evidence.trials):,}, timed while other load was seen"),
            ("Seconds per epoch", "training pass only: no validation, start-up, compilation or warm-up"),
            ("Validation MSE", "scaled units, best checkpoint"),
        ]
    )


def _search(evidence: Evidence) -> list[tuple[str, str]]:
    manifest = evidence.manifest
    space, point = manifest.get("space") or {}, manifest.get("reference_point") or {}
    budget = manifest.get("time_budget_seconds")
    corner = f"{point['seconds_per_epoch']:.4g} s, MSE {point['val_mse']:.4g}" if point else None
    return _pairs(
        [
            ("Space", space.get("name")),
            ("Objective", manifest.get("objective")),
            ("Time weight", manifest.get("time_weight")),
            ("Sampler", manifest.get("sampler")),
            ("Scheduler", manifest.get("scheduler")),
            ("Time budget", seconds_words(float(budget)) if budget else None),
            ("Trials asked for", manifest.get("num_trials")),
            ("Seed", manifest.get("seed")),
            ("Reference point", corner),
            ("Started", _time(manifest.get("created_at"))),
            ("Finished", _time(manifest.get("finished_at"))),
        ]
    )


def _data(evidence: Evidence) -> list[tuple[str, str]]:
    data, backbone = (evidence.manifest.get(key) or {} for key in ("data", "backbone"))
    columns = data.get("columns") or []
    return _pairs(
        [
            ("Data", data.get("name")),
            ("Columns", len(columns) or None),
            ("Data checksum", data.get("checksum")),
            ("Language model", backbone.get("label") or backbone.get("name")),
            ("Model checksum", backbone.get("checksum")),
        ]
    )


def _software(evidence: Evidence) -> list[tuple[str, str]]:
    versions = evidence.manifest.get("versions") or {}
    revision = evidence.manifest.get("git_revision")
    return _pairs([*((name, version) for name, version in versions.items()), ("Revision", revision)])


def _time(text: object) -> str | None:
    return None if not text else pd.Timestamp(str(text)).strftime("%Y-%m-%d %H:%M UTC")
