import json

import plotly.graph_objects as go
import pytest

from results.analysis.evidence import gather
from results.document.page import build_report
from results.document.plots.curves import curve_points, curves_plot, draw_curves
from results.document.plots.examples import draw_examples, examples_plot
from results.document.plots.standalone import resolve_colours
from tests.results.synthetic import make_errors, make_rows, make_run


@pytest.fixture
def folder(tmp_path):
    """A run whose errors were measured apart."""
    rows = make_rows(12, failures=False)
    folder = make_run(tmp_path / "t1", rows)
    make_errors(folder, rows)
    return folder


def test_training_time_is_start_up_compilation_and_steps_at_the_settings_own_pace():
    row = make_rows(1)[0] | {"startup_seconds": 6.0, "compile_seconds": 54.0, "seconds_per_batch": 0.5}

    assert curve_points(row, [{"step": 120, "val_mse": 0.5}], accumulation=2) == ((3.0, 0.5),)


def test_errors_over_training_time_show_baseline_front_and_controls(folder):
    plot = curves_plot(gather(folder))

    assert [curve.is_baseline for curve in plot.curves] == [True] + [False] * (len(plot.curves) - 1)
    assert [control.name for control in plot.controls] == ["window mean"]
    figure = draw_curves(plot)
    go.Figure(resolve_colours(figure))
    assert {trace["name"] for trace in figure["data"]} == {"baseline", "Pareto front", "window mean"}


def test_each_pick_shows_four_windows_with_four_lines(folder):
    plot = examples_plot(gather(folder))

    assert sorted(title for row in plot.rows for title in row.title.split(", ")) == [
        "Balanced", "Exact", "Fastest", "Most accurate",
    ]  # fmt: skip
    assert plot.naive_names == ("last value",)
    first = plot.rows[0].windows[0]
    assert first.name == "<temp>, window 0"
    assert [len(first.history), first.truth, first.forecast, first.naive] == [8, (1.0,) * 4, (0.9,) * 4, (0.5,) * 4]
    figure = draw_examples(plot)
    go.Figure(resolve_colours(figure))
    assert len(figure["data"]) == 16 * len(plot.rows)
    assert "<temp>" not in json.dumps(figure)


def test_the_report_holds_both_and_leaves_them_out_where_errors_were_not_measured_apart(folder):
    assert 'id="figure-examples"' in build_report(folder).read_text()
    folder.errors.unlink()

    text = build_report(folder).read_text()

    assert 'id="figure-examples"' not in text
    assert 'id="figure-learning"' not in text
