"""What a prepared search is planned from."""

from search.decide.clocks.confirmation import REPEATS
from search.decide.spend.costs import RunCosts
from search.decide.spend.fidelity import parse_fidelity
from search.decide.spend.planning import Planner, choose_clocks
from search.decide.spend.work import Work
from search.setup.preparation import Preparation


def costs_of(prepared: Preparation) -> RunCosts:
    """What runs cost, before any was measured: from the speed of a matrix product on this machine."""
    facts = prepared.facts
    return RunCosts(
        Work.of(facts["backbone"]),
        facts["data"]["windows"],
        slowdown=facts.get("slowdown"),
        rate=facts.get("gflop_per_second"),
        is_causal="causal" in facts["features"],
        has_cpu_adam=bool(facts.get("has_cpu_adam")),
    )


def planner_of(prepared: Preparation) -> Planner:
    """The planner of a search."""
    options = prepared.options
    asked = parse_fidelity(options.fidelity or "auto")
    clocks = choose_clocks(options.clocks, asked, options.time_budget)
    return Planner(
        asked=asked,
        clocks="together" if prepared.resources.devices > 1 else clocks,
        space=prepared.space,
        config=prepared.config,
        baseline=prepared.baseline,
        plans=prepared.plans,
        windows=prepared.facts["data"]["windows"],
        slowdown=prepared.facts.get("slowdown") or {},
        budget=options.time_budget,
        repeats=REPEATS * (options.confirm + 1) if options.confirm else 0,
        seed=options.seed,
        devices=prepared.resources.devices,
    )
