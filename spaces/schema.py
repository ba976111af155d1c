"""The schema of a space's TOML: every problem of a file is found at once, each with its key."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from spaces.knobs import KNOBS, KNOWN, value_text
from timellm.contract.columns import BASELINE, CONFIRM, SAMPLER
from timellm.contract.declarations import FEATURES

SECTIONS = ("space", "fixed", "knobs", "baseline", "plans", "exclude", "search")
_KNOB_KEYS = {"values", "low", "high", "log", "when", "needs"}


_LONGEST_PLAN = 60


def find_problems(raw: Mapping[str, Any]) -> list[str]:
    """Every problem of a parsed space file, each as "key must …"; empty for a good one.

    Args:
        raw: What the TOML parser returned.
    """
    problems = [f"{name} is not a section; a space has {', '.join(SECTIONS)}" for name in raw if name not in SECTIONS]
    tables = {name: raw.get(name, {}) for name in SECTIONS if name != "exclude"}
    problems += [f"{name} must be a table, got {value!r}" for name, value in tables.items() if not _is_table(value)]
    tables = {name: value if _is_table(value) else {} for name, value in tables.items()}
    return [
        *problems,
        *_head_problems(tables["space"]),
        *_value_problems("fixed", tables["fixed"], known=set(KNOWN)),
        *_knobs_problems(tables["knobs"], set(tables["fixed"])),
        *_first_trials_problems(tables),
        *_exclusion_problems(raw.get("exclude", []), tables),
        *_search_problems(tables["search"]),
    ]


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _head_problems(head: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(head.get("name"), str) or not head.get("name"):
        yield f"space.name must be the name of the space, got {head.get('name')!r}"
    if not isinstance(head.get("description", ""), str):
        yield f"space.description must be text, got {head['description']!r}"
    for name in head:
        if name not in ("name", "description"):
            yield f"space.{name} is unknown; [space] has name and description"


def unknown_knob(name: str) -> str:
    """A sentence's end that says a knob is unknown, and which it may have meant."""
    near = difflib.get_close_matches(name, KNOWN, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(KNOWN)}"
    return f"is not a knob; {hint}"


def _value_problems(section: str, values: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    for name, value in values.items():
        if name not in KNOWN:
            yield f"{section}.{name} {unknown_knob(name)}"
        elif name not in known:
            yield f"{section}.{name} is not a knob of this space; add [knobs.{name}] or write it under [fixed]"
        elif problem := KNOWN[name].problem(value):
            yield f"{section}.{name} {problem}"


def _knobs_problems(knobs: Mapping[str, Any], fixed: set[str]) -> Iterator[str]:
    if not knobs:
        yield "knobs must hold at least one knob, such as [knobs.batch_size]; got none"
    above = set(fixed)
    for name, raw in knobs.items():
        key = f"knobs.{name}"
        if name not in KNOBS:
            reason = "can be fixed but not searched; move it to [fixed]" if name in KNOWN else unknown_knob(name)
            yield f"{key} {reason}"
        elif not _is_table(raw):
            yield f"{key} must be a table with values, or with low and high, got {raw!r}"
        else:
            if name in fixed:
                yield f"{key} is also in [fixed]; keep one of the two"
            yield from _knob_problems(key, name, raw, above)
        above.add(name)


def _knob_problems(key: str, name: str, raw: Mapping[str, Any], above: set[str]) -> Iterator[str]:
    for unknown in sorted(set(raw) - _KNOB_KEYS):
        yield f"{key}.{unknown} is unknown; a knob has values, or low, high and log; when; needs"
    if ("values" in raw) == ("low" in raw or "high" in raw):
        yield f"{key} must have either values or low and high"
    elif "values" in raw:
        yield from _listed_problems(key, name, raw)
    else:
        yield from _range_problems(key, name, raw)
    yield from _when_problems(key, raw.get("when", {}), above)
    yield from _needs_problems(key, raw)


def _texts(values: Any) -> list[str]:
    """The values of a list as TOML spells them, without those that no knob can have: each is a problem of its own."""
    return [value_text(value) for value in values if isinstance(value, str | int | float)]


def _listed_problems(key: str, name: str, raw: Mapping[str, Any]) -> Iterator[str]:
    values = raw["values"]
    if not isinstance(values, list) or not values:
        yield f"{key}.values must be a list of one value or more, got {values!r}"
        return
    for value in values:
        if problem := KNOBS[name].problem(value):
            yield f"{key}.values {problem}"
    texts = _texts(values)
    for twice in sorted(text for text, count in Counter(texts).items() if count > 1):
        yield f"{key}.values must differ, got {twice} twice"
    if "log" in raw:
        yield f"{key}.log belongs to a range of low and high, not to values"


def _range_problems(key: str, name: str, raw: Mapping[str, Any]) -> Iterator[str]:
    if KNOBS[name].kind not in ("whole", "number"):
        yield f"{key} must list its values, because it has no range"
        return
    bad = False
    for end in ("low", "high"):
        if problem := KNOBS[name].problem(raw.get(end)):
            bad = True
            yield f"{key}.{end} {problem}"
    if not bad and raw["low"] >= raw["high"]:
        yield f"{key}.low must be below high ({raw['high']}), got {raw['low']}"
    if not isinstance(raw.get("log", False), bool):
        yield f"{key}.log must be true or false, got {raw['log']!r}"
    elif raw.get("log") and not bad and raw["low"] <= 0:
        yield f"{key}.low must be above 0 on a logarithmic scale, got {raw['low']}"


def _when_problems(key: str, when: Any, above: set[str]) -> Iterator[str]:
    if not _is_table(when):
        yield f"{key}.when must be a table such as {{ use_swt = true }}, got {when!r}"
        return
    for name, values in when.items():
        if name not in KNOWN:
            yield f"{key}.when.{name} {unknown_knob(name)}"
        elif name not in above:
            yield f"{key}.when.{name} must be a knob that stands above {key} in the file, or a fixed setting"
        else:
            for value in values if isinstance(values, list) else [values]:
                if problem := KNOWN[name].problem(value):
                    yield f"{key}.when.{name} {problem}"


def _needs_problems(key: str, raw: Mapping[str, Any]) -> Iterator[str]:
    needs = raw.get("needs", {})
    if not _is_table(needs):
        yield f'{key}.needs must be a table such as {{ bf16 = "cuda" }}, got {needs!r}'
        return
    listed = raw.get("values")
    texts = _texts(listed) if isinstance(listed, list) else []
    for value, features in needs.items():
        if value not in texts:
            yield f"{key}.needs.{value} must be one of the knob's values ({', '.join(texts) or 'none are listed'})"
        for feature in features if isinstance(features, list) else [features]:
            if not isinstance(feature, str) or feature not in FEATURES:
                yield f"{key}.needs.{value} must be one of {', '.join(FEATURES)}, got {feature!r}"


def _first_trials_problems(tables: Mapping[str, Any]) -> Iterator[str]:
    own = set(tables["knobs"])
    yield from _value_problems("baseline", tables["baseline"], known=own)
    yield from _membership_problems("baseline", tables["baseline"], tables["knobs"])
    for plan, values in tables["plans"].items():
        if not plan.strip() or not plan.isprintable() or len(plan) > _LONGEST_PLAN:
            yield f"plans.{plan[:80]!r} must have a name of at most {_LONGEST_PLAN} characters that can be printed"
        if plan in (BASELINE, SAMPLER, CONFIRM):
            yield f"plans.{plan} must have another name, because {plan} is a source of its own"
        if not _is_table(values):
            yield f"plans.{plan} must be a table of knobs, got {values!r}"
        else:
            yield from _value_problems(f"plans.{plan}", values, known=own)
            yield from _membership_problems(f"plans.{plan}", values, tables["knobs"])


def _membership_problems(section: str, values: Mapping[str, Any], knobs: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        raw = knobs.get(name)
        if name not in KNOBS or not isinstance(raw, dict) or KNOBS[name].problem(value):
            continue
        listed, low, high = raw.get("values"), raw.get("low"), raw.get("high")
        if isinstance(listed, list) and value not in listed:
            yield f"{section}.{name} must be one of the knob's values ({', '.join(_texts(listed))}), got {value!r}"
        elif isinstance(value, str):
            continue
        elif isinstance(low, int | float) and isinstance(high, int | float) and not low <= value <= high:
            yield f"{section}.{name} must be between {low} and {high}, got {value}"


def _exclusion_problems(rules: Any, tables: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(rules, list) or not all(_is_table(rule) for rule in rules):
        yield "exclude must be a list of tables: [[exclude]]"
        return
    own = set(tables["knobs"]) | set(tables["fixed"])
    for number, rule in enumerate(rules, start=1):
        key = f"exclude[{number}]"
        if not isinstance(rule.get("reason"), str):
            yield f"{key}.reason must say why the values do not go together, got {rule.get('reason')!r}"
        settings = {name: value for name, value in rule.items() if name != "reason"}
        if not settings:
            yield f"{key} must name the values that do not go together"
        yield from _value_problems(key, settings, known=own)


def _search_problems(search: Mapping[str, Any]) -> Iterator[str]:
    for name, value in search.items():
        if name == "fidelity":
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not is_count and value not in ("auto", "full"):
                yield f"search.fidelity must be auto, full or a number of training windows above 0, got {value!r}"
        elif name == "scheduler":
            if not isinstance(value, str):  # the search knows the names
                yield f"search.scheduler must be the name of a scheduler, got {value!r}"
        else:
            yield f"search.{name} is unknown; [search] has fidelity and scheduler"
