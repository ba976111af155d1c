"""What the plots show, without drawing them; then what a drawing makes of it."""

import math
from pathlib import Path

import pytest

from results.analysis.evidence import gather
from results.document.plots.breakdown import PARTS, breakdown_plot, draw_breakdown
from results.document.plots.front import FrontPlot, draw_front, front_plot, log_ticks
from results.document.plots.growth import GrowthPlot, GrowthPoint, growth_plot
from results.document.plots.importance import importance_plot
from results.document.plots.levers import Lever, LeversPlot, draw_levers
from results.document.plots.parallel import parallel_plot
from results.document.plots.points import Level, Point
from tests.results.synthetic import confirm, make_rows, make_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    rows = make_rows(24)
    rows += confirm(rows, "t0004", 3)
    rows[8]["config/num_workers"] = None
    controls = [{"name": "last <value>", "val_mse": 0.43}, {"name": "far off", "val_mse": 9.0}]
    return gather(make_run(tmp_path_factory.mktemp("runs") / "t1", rows, controls=controls))


def point(trial_id, seconds, mse):
    return Point(trial_id=trial_id, source="sampler", seconds_per_epoch=seconds, val_mse=mse, says=("a < b",))


def test_the_front_plot_shows_each_configuration_once_and_the_front_from_fast_to_slow(evidence):
    plot = front_plot(evidence)

    shown = [point.trial_id for point in (*plot.front, *plot.others)]
    assert sorted(shown) == sorted(evidence.configurations["trial_id"])
    assert plot.left_out == 0
    seconds = [point.seconds_per_epoch for point in plot.front]
    assert seconds == sorted(seconds)
    assert plot.seconds == (min(seconds), max(evidence.configurations["seconds_per_epoch"]))
    assert plot.mse[0] < 0.43 < plot.mse[1] < 9.0


def test_a_point_says_its_objectives_seeds_and_settings(evidence):
    confirmed = front_plot(evidence).confirmed[0]

    assert confirmed.point.trial_id == "t0004"
    assert confirmed.mse_std > 0
    says = confirmed.point.says
    assert "per epoch, validation MSE 0." in says[0]
    assert says[1] == "mean of 4 seeds"
    assert [line for line in says if line.startswith("precision ")]


def test_baseline_plans_and_picks_have_their_names(evidence):
    named = {each.point.trial_id: each for each in front_plot(evidence).named}

    assert named["t0000"].names[-1] == "baseline"
    assert named["t0001"].names[-1] == "plan-a"
    assert named["t0001"].is_planned
    assert {"exact", "fastest", "balanced", "most accurate"} <= {name for each in named.values() for name in each.names}


def test_a_drawing_escapes_what_it_writes():
    plot = FrontPlot(
        front=(point("<t1>", 10.0, 0.4),),
        others=(),
        left_out=0,
        stopped=(),
        confirmed=(),
        named=(),
        controls=(Level(name="<mean>", val_mse=0.5),),
        seconds=(10.0, 10.0),
        mse=(0.3, 0.6),
    )

    figure = draw_front(plot)

    assert figure["data"][1]["text"] == ["<b>&lt;t1&gt;</b> sampler<br>a &lt; b"]
    assert figure["layout"]["annotations"][0]["text"] == "&lt;mean&gt;"
    assert figure["layout"]["shapes"][0]["y0"] == 0.5


def test_ticks_of_a_logarithm_are_written_out():
    assert log_ticks(10.0, 100.0)["ticktext"] == ["10", "20", "50", "100"]
    assert log_ticks(0.001, 5000.0)["ticktext"] == [
        "0.0001",
        "0.001",
        "0.01",
        "0.1",
        "1",
        "10",
        "100",
        "1,000",
        "10,000",
    ]
    assert "tickvals" not in log_ticks(30.0, 30.0)


def test_steps_of_the_growth_are_the_trials_that_made_it_grow():
    volumes = (0.0, 0.5, 0.5, 0.7)
    points = [
        GrowthPoint(trial_id=f"t{i}", trials=i + 1, minutes=float(i), hypervolume=volume)
        for i, volume in enumerate(volumes)
    ]

    assert [step.trial_id for step in GrowthPlot(points=tuple(points)).steps] == ["t0", "t1", "t3"]
    assert GrowthPlot(points=()).steps == ()


def test_the_growth_is_in_minutes_since_the_start(evidence):
    points = growth_plot(evidence).points

    assert [point.minutes for point in points] == sorted(point.minutes for point in points)
    assert points[-1].minutes == pytest.approx(evidence.growth["elapsed_seconds"].iloc[-1] / 60)
    assert [point.trials for point in points] == sorted({point.trials for point in points})


def test_axes_run_from_0_to_1_and_what_is_not_set_is_a_level(evidence):
    plot = parallel_plot(evidence)

    assert plot.axes[-2].title == "seconds per epoch"
    assert plot.axes[-1].title == "validation MSE"
    assert len(plot.knobs) == len(plot.axes) - 2
    for axis in plot.axes:
        known = [height for height in axis.heights if not math.isnan(height)]
        assert (min(known), max(known)) == (0.0, 1.0)
        assert len(axis.heights) == len(plot.lines) == len(plot.is_on_front)
    workers = plot.axes[plot.knobs.index("num_workers")]
    assert [label for _, label in workers.labels] == ["0", "2", "not set"]


def test_shares_of_an_objective_add_up(evidence):
    plot = importance_plot(evidence)

    assert sum(row.of_seconds for row in plot.knobs) == pytest.approx(1.0)
    assert sum(row.of_mse for row in plot.knobs) == pytest.approx(1.0)


def test_the_parts_of_a_trials_time_are_its_whole_time(evidence):
    plot = breakdown_plot(evidence)
    totals = evidence.trials.set_index("trial_id")["total_seconds"]

    assert plot.timed == len(evidence.trials)
    assert sum(plot.totals) == pytest.approx(totals.sum())
    for trial in plot.trials:
        assert sum(trial.seconds) == pytest.approx(totals[trial.trial_id])
    assert [trace["name"] for trace in draw_breakdown(plot)["data"]] == list(PARTS)


def test_a_lever_without_an_interval_is_drawn_without_a_bar():
    lever = {"low": math.nan, "high": math.nan, "expected": None, "mse_percent": math.nan, "method": "paired"}
    plot = LeversPlot(levers=(Lever(name="precision fp32 → bf16", speedup=2.0, pairs=1, **lever),))

    ranges, measured = draw_levers(plot)["data"]

    assert ranges["x"] == [None]
    assert measured["x"] == [2.0]
    assert (measured["error_x"]["array"], measured["error_x"]["arrayminus"]) == ([0.0], [0.0])


def test_what_a_plot_shows_knows_no_colour_and_plotly_is_asked_where_files_are_written(evidence):
    shown = (front_plot, growth_plot, parallel_plot, importance_plot, breakdown_plot)
    modules = (ROOT / "results").rglob("*.py")

    assert "var(--" not in "".join(repr(show(evidence)) for show in shown)
    assert sorted(path.name for path in modules if "import plotly" in path.read_text()) == [
        "rendering.py",
        "standalone.py",
    ]
