"""`--dry_run`: the plan of a search, its cost as far as it is known, and its first trials."""

from search.decide.spend.fidelity import parse_fidelity
from search.decide.spend.plan import fixed_plan
from search.screen.terminal import Terminal
from search.setup.planner import costs_of, planner_of
from search.setup.preparation import Preparation
from spaces.knobs import value_text
from timellm.contract.columns import BASELINE
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder
from timellm.contract.manifest import Machine, Manifest


def show(prepared: Preparation, terminal: Terminal) -> None:
    """Print what a search would do; nothing is trained or written.

    Args:
        prepared: The search.
        terminal: Where to print.
    """
    space, options = prepared.space, prepared.options
    count = sum(1 for _ in space.configurations()) if space.size <= 1_000_000 else None
    terminal.say(f"Space {space.name}: {f'{count} configurations' if count else 'more than a million configurations'}.")
    for knob in space.knobs:
        values = f"{knob.low} to {knob.high}" if knob.ends else ", ".join(map(value_text, knob.values))
        terminal.say(f"  {knob.name}: {values}")
    for name, value in space.fixed.items():
        terminal.say(f"  {name}: {value_text(value)} (fixed)")
    terminal.say(_plan_words(prepared))
    budget = "no limit" if options.time_budget is None else f"{options.time_budget:.0f} s"
    trials = "no limit" if options.num_trials is None else str(options.num_trials)
    terminal.say(f"Time budget: {budget}. Trials: {trials}. Sampler: {options.sampler}. Seed: {options.seed}.")
    terminal.say(str(prepared.resources))
    terminal.say("First trials:")
    for source, trial in {BASELINE: space.baseline, **space.plans}.items():
        settings = space.settings(trial)
        terminal.say(f"  {source}: " + " ".join(f"{name}={value_text(settings[name])}" for name in settings))
    terminal.say("Nothing was trained.")


def _plan_words(prepared: Preparation) -> str:
    asked = parse_fidelity(prepared.options.fidelity or "auto")
    planner, costs = planner_of(prepared), costs_of(prepared)
    if planner.clocks == "apart" and prepared.options.time_budget is not None and _earlier(prepared) is None:
        timing = costs.timing_seconds(prepared.baseline)
        predicted = planner.estimate(costs, prepared.options.time_budget - timing)
        return (
            f"Time and error are measured apart. The baseline's timing is predicted to take {timing:.0f} s. "
            f"The plan, predicted from the speed of a matrix product here: {predicted}"
        )
    if asked != "auto":
        plan = str(fixed_plan(asked))
        earlier = None
    else:
        earlier = _earlier(prepared)
        plan = "Trials are as long as the time budget allows."
        if earlier is None:
            return f"{plan} How long that is, and what it costs, is unknown until the baseline has been measured."
    if earlier is None:
        return plan
    samples = earlier.fidelity.train_samples if earlier.fidelity else None
    windows = "the whole training run" if samples is None else f"{samples} training windows"
    return (
        f"{plan} In run {earlier.name}, with the same baseline and machine, that was {windows}: "
        f"{earlier.expected.baseline_seconds:.0f} s for the baseline, and about {earlier.expected.trials} trials."
    )


def _earlier(prepared: Preparation) -> Manifest | None:
    """The manifest of the newest run that planned for the same baseline, machine and budget."""
    baseline, runs = prepared.baseline.to_dict(), prepared.folder.path.parent
    machine = Machine.from_dict(prepared.facts["machine"])
    found = []
    for path in runs.glob("*/manifest.json"):
        try:
            manifest = RunFolder(path.parent).read_manifest()
        except InputError:
            continue
        settings = {**manifest.run_config, **manifest.space.baseline}
        same = settings == baseline and manifest.machine == machine
        same = same and manifest.time_budget_seconds == prepared.options.time_budget
        if same and manifest.expected.baseline_seconds and manifest.expected.trials:
            found.append(manifest)
    return max(found, key=lambda manifest: manifest.created_at or "", default=None)
