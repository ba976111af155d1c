"""The loop of a search, played without Ray, processes or a terminal, by a clock that only the jobs move."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from search.decide.clocks.confirmation import Confirmation
from search.decide.ledger import Ledger
from search.decide.loop import Loop
from search.decide.propose.samplers import make_sampler
from search.decide.propose.study import SearchStudy, StudyOptions
from search.decide.spend.costs import RunCosts
from search.decide.spend.limits import Limits
from search.decide.spend.planning import Planner
from search.decide.spend.work import Work
from search.decide.workplace import Workplace
from spaces import Knob, Space
from timellm.contract.config import RunConfig
from timellm.contract.job import Job
from timellm.contract.layout import RunFolder

SPACE = Space(
    name="test",
    knobs=(
        Knob(name="batch_size", values=(8, 16, 32)),
        Knob(name="llm_layers", values=(1, 2)),
        Knob(name="attention", values=("eager", "sdpa")),
        Knob(name="num_workers", values=(0, 2)),
        Knob(name="prompt_prefix", values=("recompute", "reuse")),
    ),
    baseline={
        "batch_size": 32,
        "llm_layers": 2,
        "attention": "eager",
        "num_workers": 2,
        "prompt_prefix": "recompute",
    },
)
WINDOWS = {"train": 100_000, "validation": 10_000, "test": 20_000}


class Heard:
    """Keeps what the loop says."""

    def __init__(self):
        self.plan, self.rows, self.notes, self.jobs, self.controlled = None, [], [], [], None

    def planned(self, plan, rows):
        self.plan = plan

    def started(self, proposal, what):
        self.jobs.append((proposal.trial_id, what))

    def row(self, row, rows):
        if row is not None:
            self.rows.append(row)

    def controls(self, controls, rows):
        self.controlled = controls

    def note(self, text, *, is_kept):
        self.notes.append(text)


class Machine:
    """Runs jobs at a known speed: a clock, and a result for each job.

    Args:
        rate: Operations per second, in 1e9.
        startup: Seconds from the start of a process to its first step.
        faults: State of the jobs that a condition holds for; they are over at once.
    """

    def __init__(
        self, rate: float = 300.0, startup: float = 6.0, faults: Callable[[Job], str | None] = lambda job: None
    ):
        self.now, self.rate, self.startup, self.faults = 1_000_000.0, rate, startup, faults
        self.work, self.ran = Work(), []

    def run(self, job: Job) -> dict:
        config = RunConfig.from_dict(dict(job.config))
        self.ran.append((job, config))
        state = self.faults(job)
        if state:
            self.now += self.startup
            return {"state": state, "error": f"It {state}.", "total_seconds": self.startup}
        step = self.work.step_gflop(config, keeps_prompts=job.clock == "error") / self.rate
        seconds = self.startup
        outcome = {"state": "complete", "timing_quality": "clean", "startup_seconds": self.startup, "seed": config.seed}
        if job.clock != "error":
            seconds += (config.untimed_steps + job.min_timed_steps) * step
            outcome |= {
                "seconds_per_epoch": step * WINDOWS["train"] / config.global_batch,
                "seconds_per_batch": step / config.accumulation_steps,
                "validation_seconds": 10.0,
                "peak_memory_gib": 1.0,
            }
        if job.clock != "time":
            steps = math.ceil((config.train_samples or 1000) / config.global_batch)
            seconds += steps * (0.01 if config.has_no_backbone else step)
            outcome |= {"val_mse": self.mse(config), "val_mae": 0.5, "val_samples": config.val_samples, "steps": steps}
            outcome |= {"naive_mse": {"last value": 2.0}, "train_samples": config.train_samples, "epochs": 0.1}
        self.now += seconds
        return {**outcome, "total_seconds": seconds}

    def mse(self, config: RunConfig) -> float:
        return 0.5 + 0.02 / config.llm_layers + 0.001 * config.batch_size + 0.0001 * (config.seed % 7)


class Search:
    """A loop on a machine, run job by job."""

    def __init__(self, folder: Path, machine: Machine | None = None, **more):
        self.machine, self.heard = machine or Machine(), Heard()
        self.folder = RunFolder(folder)
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        asked, budget = more.pop("asked", 256), more.pop("budget", 600.0)
        space, rows = more.pop("space", SPACE), more.pop("rows", [])
        options = StudyOptions(name="t", storage=folder / "study.db", sampler=make_sampler("random", space, 0))
        self.study = SearchStudy(space, options, rows)
        self.ledger = Ledger(self.folder, 0.05, rows)
        config = RunConfig()

        def run_config(proposal):
            seed = 2021 if proposal.seed is None else proposal.seed
            return config.replace(**proposal.settings, seed=seed)

        deadline = None if budget is None else self.machine.now + budget
        self.limits = Limits(deadline=deadline, budget_seconds=budget, num_trials=more.pop("num_trials", None))
        planner = Planner(
            asked=asked,
            clocks=more.pop("clocks", "apart"),
            space=space,
            config=config,
            baseline=config.replace(**space.settings(space.baseline)),
            plans=[config.replace(**space.settings(plan)) for plan in space.plans.values()],
            windows=WINDOWS,
            slowdown={},
            budget=budget,
        )
        self.loop = Loop(
            space=space,
            study=self.study,
            ledger=self.ledger,
            folder=self.folder,
            run_config=run_config,
            planner=planner,
            costs=RunCosts(Work(), WINDOWS, rate=self.machine.rate),
            workplace=Workplace(),
            limits=self.limits,
            confirmation=Confirmation(space, self.ledger, more.pop("confirm", 0), 2021, self.study.new_trial_id),
            listener=self.heard,
            seed=2021,
            clock=lambda: self.machine.now,
            plan=more.pop("plan", planner.without_measurement()),
            **more,
        )

    def step(self) -> Job | None:
        """Run the next job; None at the end."""
        job = self.loop.next()
        if job is not None:
            self.loop.ended(job, self.machine.run(job))
        return job

    def run(self) -> "Search":
        for _ in range(500):
            if self.step() is None:
                break
        self.loop.close()
        return self

    def jobs(self, clock: str) -> list[RunConfig]:
        return [config for job, config in self.machine.ran if job.clock == clock]

    def errors(self) -> list[dict]:
        return [json.loads(line) for line in self.folder.errors.read_text().splitlines()]


def test_a_trial_is_a_timing_as_configured_and_an_error_on_the_cheapest_path(tmp_path):
    search = Search(tmp_path)
    timing = search.loop.next()
    assert (timing.clock, timing.config["prompt_prefix"], timing.config["num_workers"]) == ("time", "recompute", 2)
    search.loop.ended(timing, search.machine.run(timing))
    control = search.step()
    assert (control.clock, control.config["llm_model"]) == ("error", "none")
    error = search.step()
    assert error.clock == "error"
    assert (error.config["prompt_prefix"], error.config["num_workers"], error.config["attention"]) == (
        "reuse",
        0,
        "sdpa",
    )
    assert (error.max_memory_gib, error.config["train_samples"]) == (None, 256)
    (row,) = search.heard.rows
    assert (row["state"], row["error_from"], row["time_from"]) == ("complete", "t0001", "t0001")
    assert row["val_mse"] > 0
    assert row["seconds_per_epoch"] > 0
    assert row["peak_memory_gib"] == 1.0
    assert row["config/num_workers"] == 2


def test_an_error_that_is_known_is_not_trained_again(tmp_path):
    search = Search(tmp_path, num_trials=14, budget=3000.0).run()
    rows = [row for row in search.ledger.rows if row["state"] == "complete"]
    sets = {(row["config/batch_size"], row["config/llm_layers"]) for row in rows}
    first_seed = [entry for entry in search.errors() if entry["seed"] == 2021]
    assert len(first_seed) == len(sets) < len(rows)
    borrowed = [row for row in rows if row["error_from"] != row["trial_id"]]
    by_id = {row["trial_id"]: row for row in rows}
    assert borrowed
    assert all(row["val_mse"] == by_id[row["error_from"]]["val_mse"] for row in borrowed)


def test_half_of_the_proposals_or_more_search_the_way_to_compute_known_numbers(tmp_path):
    search = Search(tmp_path, num_trials=20, budget=6000.0).run()
    rows = [row for row in search.ledger.rows if row["source"] == "sampler"]
    borrowed = sum(row["error_from"] != row["trial_id"] for row in rows)
    assert borrowed >= len(rows) / 2 - 1
    assert len({(row["config/batch_size"], row["config/llm_layers"]) for row in rows}) >= 4


def test_the_baselines_error_has_further_seeds_and_the_table_says_which(tmp_path):
    search = Search(tmp_path, num_trials=3, budget=3000.0).run()
    baseline = search.ledger.rows[0]
    seeds = baseline["error_seeds"].split()
    assert seeds[:2] == ["2021", "2022"]
    assert baseline["val_mse_low"] < baseline["val_mse"] < baseline["val_mse_high"]
    assert {entry["trial_id"] for entry in search.errors() if entry["seed"] != 2021} >= {"t0001"}


def test_the_best_candidates_get_the_baselines_seeds_where_errors_can_tell(tmp_path):
    telling = Search(tmp_path / "a", asked=2048, num_trials=5, budget=9000.0).run()
    others = {entry["trial_id"] for entry in telling.errors() if entry["seed"] != 2021}
    assert len(others) > 1
    short = Search(tmp_path / "b", asked=256, num_trials=5, budget=9000.0).run()
    assert {entry["trial_id"] for entry in short.errors() if entry["seed"] != 2021} == {"t0001"}


def test_a_timing_that_runs_out_of_memory_gets_no_error(tmp_path):
    machine = Machine(
        faults=lambda job: "out_of_memory" if job.config["prompt_prefix"] == "reuse" and job.clock == "time" else None
    )
    search = Search(tmp_path, machine, num_trials=10, budget=6000.0).run()
    lost = [row for row in search.ledger.rows if row["state"] == "out_of_memory"]
    assert lost
    assert all(row["val_mse"] is None and row["error_from"] is None for row in lost)


def test_a_trial_whose_error_does_not_fit_the_time_is_timed_only(tmp_path):
    search = Search(tmp_path, Machine(rate=40.0, startup=10.0), asked=4096, budget=400.0).run()
    timed = [row for row in search.ledger.rows if row["state"] == "stopped_early"]
    assert timed
    assert all(row["seconds_per_epoch"] and row["val_mse"] is None for row in timed)
    assert "Timed only" in timed[0]["error"]
    assert search.machine.now < search.limits.deadline + 60


def test_timed_only_trials_get_their_errors_when_the_search_is_resumed(tmp_path):
    first = Search(tmp_path, Machine(rate=40.0, startup=10.0), asked=4096, budget=400.0).run()
    timed = {row["trial_id"] for row in first.ledger.rows if row["state"] == "stopped_early"}
    again = Search(
        tmp_path, Machine(rate=40.0), asked=4096, budget=90_000.0, plan=first.heard.plan, has_controls=True,
        rows=Ledger.reopen(first.folder, 0.05).rows, num_trials=len(first.ledger.rows),
    ).run()  # fmt: skip
    assert {row["state"] for row in again.ledger.rows} == {"complete"}
    assert timed <= {row["trial_id"] for row in again.ledger.rows}
    assert not [config for config in again.jobs("time") if config.batch_size == 32]


def test_a_hopeless_plan_is_not_begun_and_says_why(tmp_path):
    slow = {**SPACE.baseline, "batch_size": 256}
    space = Space(
        name="s",
        knobs=(Knob(name="batch_size", values=(8, 32, 256)), *SPACE.knobs[1:]),
        baseline=SPACE.baseline,
        plans={"plan-a": slow},
    )
    search = Search(tmp_path, Machine(rate=30.0), space=space, num_trials=4).run()
    assert "plan-a" not in {row["source"] for row in search.ledger.rows}
    (note,) = [note for note in search.heard.notes if note.startswith("plan-a")]
    assert "is not begun: its warm-up and timed steps are predicted to take" in note
    assert "more than a tenth of the time budget (600 s)" in note


@pytest.mark.parametrize(("other", "reason", "rows"), [(64, "every configuration", 2), (4096, "nothing is left", 1)])
def test_the_end_says_whether_anything_is_left_that_does_not_fit_the_time(tmp_path, other, reason, rows):
    knobs = (Knob(name="batch_size", values=(32, other)),)
    space = Space(name="s", knobs=knobs, baseline={"batch_size": 32}, plans={})
    search = Search(tmp_path, space=space, asked=8192, budget=6000.0).run()
    assert search.loop.ended_because.startswith(reason)
    assert len(search.ledger.rows) == rows


def test_a_slow_baseline_is_timed_with_fewer_steps_and_says_so(tmp_path):
    search = Search(tmp_path, Machine(rate=5.0), budget=600.0)
    job = search.step()
    assert (job.min_timed_steps, job.config["warmup_steps"]) == (2, 1)
    assert any("timed with one warm-up step and two others" in note for note in search.heard.notes)


def test_a_disturbed_timing_is_repeated_and_no_error_with_it(tmp_path):
    search = Search(tmp_path)
    first = search.loop.next()
    search.loop.ended(first, {**search.machine.run(first), "timing_quality": "contended", "seconds_per_epoch": 1e6})
    while (job := search.loop.next()).clock != "time":
        search.loop.ended(job, search.machine.run(job))
    assert job.run_dir == first.run_dir + "/retimed"
    search.loop.ended(job, search.machine.run(job))
    search.step()
    (row,) = search.heard.rows
    assert (row["timing_quality"], row["trial_id"]) == ("clean", "t0001")
    assert row["seconds_per_epoch"] < 1e6
    assert len(search.errors()) == 1


def test_numbers_that_diverge_are_known_for_every_way_to_compute_them(tmp_path):
    machine = Machine(faults=lambda job: "diverged" if job.clock == "error" and job.config["batch_size"] == 8 else None)
    search = Search(tmp_path, machine, num_trials=16, budget=6000.0).run()
    lost = [row for row in search.ledger.rows if row["config/batch_size"] == 8]
    assert lost
    assert {row["state"] for row in lost} == {"diverged"}
    assert all(row["val_mse"] is None and row["seconds_per_epoch"] for row in lost)


def test_the_search_ends_within_its_budget_and_keeps_count_of_it(tmp_path):
    search = Search(tmp_path, asked="auto").run()
    assert search.machine.now <= search.limits.deadline + 30
    assert sum(search.loop.time_spent.values()) == pytest.approx(search.machine.now - 1_000_000.0, rel=0.01)
    assert search.heard.plan.spending.seconds["timings"] > 0


def test_one_run_measures_both_where_the_clocks_stay_together(tmp_path):
    search = Search(tmp_path, clocks="together", num_trials=3).run()
    assert {job.clock for job, _ in search.machine.ran} == {"together"}
    assert [row["state"] for row in search.ledger.rows] == ["complete"] * 3
    assert not search.folder.errors.exists()


def test_a_search_that_is_stopped_leaves_rows_that_a_resumed_one_runs_again(tmp_path):
    search = Search(tmp_path)
    timing = search.step()
    search.step()
    error = search.loop.next()
    assert search.loop.stop("Enough.") == [error]
    search.loop.ended(error, {"state": "interrupted", "error": "told"})
    assert search.loop.next() is None
    search.loop.close()
    (row,) = search.ledger.rows
    assert (row["state"], row["error"]) == ("interrupted", "Enough.")
    assert row["seconds_per_epoch"] > 0
    assert timing.run_dir.endswith("t0001")


def test_trials_with_the_same_numbers_wait_for_the_training_that_runs(tmp_path):
    search = Search(tmp_path, num_trials=8, budget=6000.0)
    search.step()
    search.step()
    out = [search.loop.next() for _ in range(4)]
    errors = [job for job in out if job is not None and job.clock == "error"]
    keys = {(job.config["batch_size"], job.config["llm_layers"], job.config["seed"]) for job in errors}
    assert len(keys) == len(errors)
    for job in [job for job in out if job is not None]:
        search.loop.ended(job, search.machine.run(job))
    search.run()
    assert len(search.ledger.rows) == 8


def test_a_confirmation_trains_new_seeds_and_is_timed_again(tmp_path):
    search = Search(tmp_path, num_trials=3, budget=9000.0, confirm=1).run()
    confirmed = [row for row in search.ledger.rows if row["source"] == "confirm"]
    assert {row["seed"] for row in confirmed} == {2022, 2023}
    assert all(row["time_from"] == row["trial_id"] for row in confirmed)


WIDE = Space(
    name="wide",
    knobs=(
        Knob(name="batch_size", values=(8, 16, 32, 64)),
        Knob(name="llm_layers", values=(1, 2, 3, 4, 5, 6)),
        Knob(name="num_prototypes", values=(1000, 500, 250, 100)),
        *SPACE.knobs[2:],
    ),
    baseline={**SPACE.baseline, "llm_layers": 6, "num_prototypes": 1000},
)
"""As many layers and sets of numbers as the space that the first command searches."""


@pytest.mark.parametrize(("rate", "samples", "trials", "sets"), [(340.0, 1024, 12, 5), (75.0, 256, 8, 2)])
def test_ten_minutes_are_enough_on_each_kind_of_cpu(tmp_path, rate, samples, trials, sets):
    search = Search(tmp_path, Machine(rate=rate, startup=8.0), space=WIDE, asked="auto", budget=570.0).run()
    rows = [row for row in search.ledger.rows if row["state"] == "complete"]
    assert search.heard.plan.fidelity.train_samples >= samples
    assert len(rows) >= trials
    assert len({entry["numbers"] for entry in search.errors()}) >= sets
    assert sum(row["source"] == "sampler" for row in rows) >= len(rows) / 2
    assert search.machine.now <= search.limits.deadline + 30


def test_a_guess_that_an_interrupted_timing_leaves_is_not_kept(tmp_path):
    search = Search(tmp_path, asked="auto")
    job = search.loop.next()
    search.loop.stop("Enough.")
    search.loop.ended(job, {"state": "interrupted", "error": "told"})
    assert search.heard.plan is None
    assert [row["state"] for row in search.ledger.rows] == ["interrupted"]


def test_controls_that_were_interrupted_are_not_kept(tmp_path):
    search = Search(tmp_path)
    search.step()
    control = search.loop.next()
    search.loop.stop("Enough.")
    search.loop.ended(control, {"state": "interrupted", "naive_mse": {"last value": 1.5}})
    assert search.heard.controlled is None


def test_a_baseline_that_cannot_be_timed_leaves_a_guess_and_the_search_goes_on(tmp_path):
    faults = lambda job: "failed" if job.run_dir.endswith("t0001") else None  # noqa: E731
    search = Search(tmp_path, Machine(faults=faults), asked="auto", num_trials=4).run()
    assert "the plan is a guess" in search.heard.plan.notes[0]
    assert [row["state"] for row in search.ledger.rows] == ["failed", *["complete"] * 3]


def test_a_probe_plans_a_search_whose_clocks_stay_together(tmp_path):
    search = Search(tmp_path, clocks="together", asked="auto", num_trials=2)
    assert search.loop.next().run_dir.endswith("probe")
    search = Search(tmp_path / "b", clocks="together", asked="auto", num_trials=2).run()
    assert search.heard.plan.fidelity.kind == "samples"
    assert len(search.ledger.rows) == 2


def test_a_trial_that_other_load_disturbed_is_run_again_where_the_clocks_stay_together(tmp_path):
    search = Search(tmp_path, clocks="together", has_controls=True, num_trials=1)
    first = search.loop.next()
    search.loop.ended(first, {**search.machine.run(first), "timing_quality": "contended"})
    second = search.loop.next()
    assert second.run_dir == first.run_dir + "/retimed"
    assert search.heard.rows == []
    search.loop.ended(second, search.machine.run(second))
    assert [row["timing_quality"] for row in search.heard.rows] == ["clean"]
    assert "the second time counts (trials/t0001/retimed)" in search.heard.notes[-1]
    assert search.loop.next() is None
