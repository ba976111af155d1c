import json
import re
from importlib import resources

import plotly.graph_objects as go
import pytest

from results.analysis.evidence import gather
from results.document.page import build_report
from results.document.plots.front import MAX_POINTS, draw_front, front_plot
from results.document.plots.levers import levers_plot
from results.document.plots.standalone import resolve_colours
from tests.results.synthetic import confirm, edit_manifest, make_rows, make_run
from timellm.contract.colours import DARK, LIGHT
from timellm.contract.errors import InputError
from timellm.contract.layout import RunFolder


def body_of(folder):
    """The report without the drawing library."""
    text = build_report(folder).read_text()
    return re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL)


def figures_of(text):
    found = re.findall(r'<script type="application/json" id="figure-(\w+)">(.*?)</script>', text, flags=re.DOTALL)
    return {name: json.loads(figure) for name, figure in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = make_rows(40)
    rows += confirm(rows, "t0000") + confirm(rows, "t0004", 3)
    return make_run(tmp_path_factory.mktemp("runs") / "t1", rows)


@pytest.fixture(scope="module")
def report(folder):
    return body_of(folder)


def test_the_same_run_folder_makes_the_same_report(folder, report):
    assert body_of(folder) == report


def test_the_answer_comes_first(report):
    headings = re.findall(r"<h[12][^>]*>(.*?)</h[12]>", report)

    assert headings[0] == "6.64× as fast as the baseline, at +2.3\u00a0% validation MSE (worse)"
    assert headings[1:3] == ["Four picks", "Speed against accuracy"]
    assert "95\u00a0% interval 6.56 to 6.71" in report
    assert "+2.3\u00a0% (95\u00a0% interval" in report


def test_every_figure_is_one_that_plotly_knows(report):
    figures = figures_of(report)

    assert set(figures) == {"pareto", "levers", "importance", "growth", "parallel", "time"}
    for figure in figures.values():
        go.Figure(resolve_colours(figure))


def test_the_fronts_points_are_the_tables_pareto_rows(folder, report):
    traces = {trace["name"]: trace for trace in figures_of(report)["pareto"]["data"]}
    evidence = gather(folder)

    assert sorted(traces["Pareto front"]["customdata"]) == sorted(
        evidence.trials.loc[evidence.trials["is_pareto"].fillna(False), "trial_id"]
    )
    assert set(traces["confirmed with other seeds"]["customdata"]) == {"t0000", "t0004"}
    assert "plan-a" in traces["baseline and plans"]["text"]
    assert "exact, most accurate,<br>baseline" in traces["baseline and plans"]["text"]


def test_hovering_shows_the_configuration(report):
    trace = next(t for t in figures_of(report)["pareto"]["data"] if t["name"] == "Pareto front")

    assert all("precision bf16" in text or "precision fp32" in text for text in trace["text"])
    assert "%{text}" in trace["hovertemplate"]


def test_the_page_loads_nothing(report):
    assert "default-src 'none'" in report
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", report)


def test_errors_of_trials_are_text(report):
    assert "&lt;script&gt;alert(&#39;not run&#39;)&lt;/script&gt;" in report
    assert "<script>alert" not in report


def test_names_of_users_are_text_everywhere(tmp_path):
    nasty = "</script><img src=x onerror=alert(1)>"
    rows = [{**row, "source": nasty if row["source"] == "plan-a" else row["source"]} for row in make_rows(20)]
    rows = [{**row, "config/target": nasty + str(index % 2)} for index, row in enumerate(rows)]
    folder = make_run(tmp_path / "t1", rows, notes=[nasty], controls=[{"name": nasty, "val_mse": 0.4}])
    edit_manifest(folder, name=nasty, run_defaults={**folder.read_manifest().run_defaults, "target": "x"})

    assert "<img" not in body_of(folder).replace("\\u003cimg", "")


def test_failures_come_with_remedies(report):
    assert "1 out of memory" in report
    assert "gradient_checkpointing, or offload_optimizer cpu" in report
    assert "Loss became NaN at step 41" in report


def test_levers_stand_beside_the_guides_expectation(folder, report):
    levers = {lever.name: lever for lever in levers_plot(gather(folder)).levers}

    assert levers["precision fp32 → bf16"].speedup == pytest.approx(2.0, rel=0.03)
    assert levers["precision fp32 → bf16"].expected.words == "1.5 to 3×"
    assert levers["prompt_prefix recompute → reuse"].expected is None
    assert "2 to 3.7×" in report  # plan A


def test_the_small_print_names_machine_versions_and_fidelity(report):
    for words in ("Made-up CPU", "torch", "2.13.0", "32,000 training and 5,000 validation windows, measured whole"):
        assert words in report
    assert "contended" in report.lower()
    assert "plan-a: num_workers 8 became 2" in report


def test_a_finished_report_is_not_loaded_again(report):
    assert 'http-equiv="refresh"' not in report
    assert 'role="status"' not in report


def test_a_live_report_says_so_and_is_loaded_again(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(5), status="running", elapsed_seconds=120.0)

    text = body_of(folder)

    assert "The search is running: 5 trials so far in 2 min 00 s of 10 min 00 s. " in text.replace("\u00a0", " ")
    assert re.search(r'Updated at <time datetime="[0-9-]{10}T[0-9:]{8}Z">', text)
    assert '<noscript><meta http-equiv="refresh" content="15"></noscript>' in text
    assert not folder.plots.exists()


def test_what_nothing_beats_so_far_may_still_be_beaten(tmp_path):
    text = body_of(make_run(tmp_path / "t1", make_rows(1)[:1], status="running"))

    assert "Nothing beats the baseline yet" in text
    assert "It is the only complete configuration." in text


def test_the_objectives_of_few_configurations_are_labelled_in_words(tmp_path):
    text = body_of(make_run(tmp_path / "t1", make_rows(2)))

    labels = [note["text"] for note in figures_of(text)["parallel"]["layout"]["annotations"]]
    assert re.fullmatch(r"\d\d\.\d s 3 min \d\d s 0\.4\d{3} 0\.4\d{3}", " ".join(labels[-4:]))


def test_a_note_is_said_once(tmp_path):
    data = {"name": "nyc-weather", "notes": ["26 hours."], "columns": []}

    assert body_of(make_run(tmp_path / "t1", data=data, notes=["26 hours.", "26 hours."])).count("26 hours.") == 1


def test_a_search_without_trials_has_a_report(tmp_path):
    folder = make_run(tmp_path / "t1", [], status="running")

    text = body_of(folder)

    assert "No complete trial yet" in text
    assert not folder.recommended.exists()


def test_a_run_in_which_all_failed_has_a_report(tmp_path):
    rows = [{"trial_id": f"t{i}", "state": "failed", "error": "Out of luck."} for i in range(3)]

    text = body_of(make_run(tmp_path / "t1", rows))

    assert "No trial completed" in text
    assert "3 failed" in text
    assert "Out of luck." in text


def test_a_single_complete_trial_has_a_report(tmp_path):
    text = body_of(make_run(tmp_path / "t1", make_rows(1)[:1]))

    assert "Nothing beats the baseline" in text
    assert "Not enough data" in text


def test_projected_results_are_called_preliminary(tmp_path):
    rows = [{**row, "is_projected": True, "train_samples": 512, "val_samples": 256} for row in make_rows(20)]

    text = body_of(make_run(tmp_path / "t1", rows))

    assert ">preliminary<" in text
    assert "512 training and 256 validation windows, projected" in text


def test_nothing_beats_the_baseline_is_the_headline(tmp_path):
    rows = [
        {**row, "seconds_per_epoch": 9.0 + i, "val_mse": 0.4 + i / 50}
        for i, row in enumerate(make_rows(5, failures=False))
    ]

    assert "<h1>Nothing beats the baseline</h1>" in body_of(make_run(tmp_path / "t1", rows))


def test_plans_stand_against_the_reference_that_is_used(tmp_path):
    rows = make_rows(20)
    rows[0] |= {"state": "failed", "seconds_per_epoch": None, "val_mse": None}
    rows[3] |= {"source": "plan-b"}

    text = body_of(make_run(tmp_path / "t1", rows))

    assert "Plans against trial t0001" in text
    assert "Plans against the baseline" not in text
    assert "The baseline ended as failed, so every ratio refers to the first complete trial, t0001." in text


def test_trials_without_a_start_are_left_out_of_the_growth_and_counted(tmp_path):
    rows = make_rows(20)
    rows[4]["started_at"] = None

    text = body_of(make_run(tmp_path / "t1", rows))

    assert "Trials without a start time are left out: 1." in text
    assert None not in figures_of(text)["growth"]["data"][0]["x"]


def test_a_run_without_any_start_has_a_report(tmp_path):
    folder = make_run(tmp_path / "t1", [{**row, "started_at": None} for row in make_rows(5)])

    assert "This plot needs a complete trial with a start time" in body_of(folder)


def test_a_control_that_no_trial_beats_is_a_caveat(tmp_path):
    folder = make_run(tmp_path / "t1", make_rows(5), controls=[{"name": "window mean", "val_mse": 0.2}])

    assert "The control window mean (0.2000) has a lower validation MSE than every trial" in body_of(folder)


def test_controls_that_lie_close_share_a_label(tmp_path):
    controls = [
        {"name": "window mean", "val_mse": 0.43}, {"name": "last value", "val_mse": 0.4301},
        {"name": "last day", "val_mse": 0.9},
    ]  # fmt: skip
    evidence = gather(make_run(tmp_path / "t1", make_rows(20), controls=controls))
    layout = draw_front(front_plot(evidence))["layout"]
    assert [label["text"] for label in layout["annotations"]] == ["window mean, last value", "last day"]
    assert len(layout["shapes"]) == 3


def test_controls_are_shown_beside_the_front(tmp_path):
    controls = [{"name": "last value", "val_mse": 0.43}, {"name": "seasonal naive", "val_mse": 0.9}]
    folder = make_run(tmp_path / "t1", make_rows(20), controls=controls)

    text = body_of(folder)
    figure = figures_of(text)["pareto"]

    assert "last value 0.4300, seasonal naive 0.9000" in text
    assert [shape["y0"] for shape in figure["layout"]["shapes"]] == [0.43, 0.9]
    assert figure["layout"]["yaxis"]["range"][1] < 0.6


def test_a_table_of_many_trials_is_cut_and_says_so(tmp_path):
    rows = [{**row, "config/learning_rate": 1e-4 + i * 1e-6} for i, row in enumerate(make_rows(1800, failures=False))]
    folder = make_run(tmp_path / "t1", rows)

    text = body_of(folder)

    assert "1,800 trials" in text
    assert "The 500 with the best joint score are shown" in text
    assert len(front_plot(gather(folder)).others) == MAX_POINTS


def test_plots_are_files_of_their_own_that_share_the_library(folder):
    build_report(folder)

    assert {path.name for path in folder.plots.iterdir()} == {
        "pareto.html",
        "levers.html",
        "importance.html",
        "growth.html",
        "parallel.html",
        "time.html",
        "plotly.min.js",
    }
    assert 'src="plotly.min.js"' in (folder.plots / "pareto.html").read_text()


def test_the_style_sheet_has_every_colour_for_light_and_dark(report):
    light, dark = report.split("@media (prefers-color-scheme: dark)")[:2]

    assert all(f"--{name}: {colour};" in light for name, colour in LIGHT.items())
    assert all(f"--{name}: {colour};" in dark.split("* {")[0] for name, colour in DARK.items())
    assert LIGHT.keys() == DARK.keys()


def test_every_colour_that_the_style_sheet_uses_is_one_of_the_palette():
    own = resources.files("results.document").joinpath("templates/style.css.j2").read_text()

    assert set(re.findall(r"var\(--([a-z-]+)\)", own)) <= set(LIGHT)
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(", own) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds manifest\.json"):
        build_report(RunFolder(tmp_path))
