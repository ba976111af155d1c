"""The report as Chromium shows it."""

import pytest

from results.analysis.table import load_trials
from results.document.page import build_report
from tests.results.chromium import browser, chromium_or_skip
from tests.results.report_page import accessibility_problems, front_points, hover_over_front, overflowing_plots
from tests.results.synthetic import confirm, make_rows, make_run

pytestmark = pytest.mark.browser

SIZES = [(390, 844, False), (1280, 900, False), (1280, 900, True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rows = make_rows(40)
    rows += confirm(rows, "t0000") + confirm(rows, "t0004", 3)
    controls = [{"name": "last value", "val_mse": 0.43}]
    folder = make_run(tmp_path_factory.mktemp("runs") / "t1", rows, controls=controls)
    build_report(folder)
    return folder


@pytest.fixture
def page(tmp_path):
    chromium_or_skip()
    with browser(tmp_path / "profile") as page:
        yield page


@pytest.mark.parametrize(("width", "height", "dark"), SIZES)
def test_the_report_opens_without_errors_requests_or_overflow(folder, page, width, height, dark):
    page.open(folder.report, width, height, dark)

    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") > 6
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert overflowing_plots(page) == 0
    assert page.errors == []
    assert page.requests == [folder.report.resolve().as_uri()]


@pytest.mark.parametrize(("width", "height", "dark"), SIZES)
@pytest.mark.parametrize("live", [False, True])
def test_axe_finds_no_serious_problem(folder, page, tmp_path, width, height, dark, live):
    if live:
        folder = make_run(tmp_path / "live", make_rows(12), status="running")
        build_report(folder)
    page.open(folder.report, width, height, dark)

    assert accessibility_problems(page) == []


def test_the_fronts_points_are_as_many_as_the_tables_pareto_rows(folder, page):
    page.open(folder.report)

    held, drawn = front_points(page)

    assert held == drawn == load_trials(folder.path)["is_pareto"].sum()


def test_hovering_over_a_point_shows_its_configuration(folder, page):
    page.open(folder.report)
    text = hover_over_front(page, 2)

    assert "per epoch, validation MSE" in text
    assert "prompt_prefix" in text


def test_the_table_sorts_by_a_click_and_by_keyboard(folder, page):
    page.open(folder.report)
    column = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[4].textContent)"
    head = "document.querySelectorAll('table.sortable thead th')[4]"

    page.evaluate(f"{head}.querySelector('button').click()")
    ascending = [float(text) for text in page.evaluate(column) if text != "–"]
    page.evaluate(f"{head}.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        page.send("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    descending = [float(text) for text in page.evaluate(column) if text != "–"]

    assert ascending == sorted(ascending)
    assert descending == sorted(descending, reverse=True)
    assert page.evaluate(column)[-1] == "–"
    assert page.evaluate(f"{head}.getAttribute('aria-sort')") == "descending"


def test_a_live_report_can_be_paused(page, tmp_path):
    folder = make_run(tmp_path / "live", make_rows(5), status="running")
    build_report(folder)
    page.open(folder.report)

    button = "document.getElementById('pause')"
    assert page.evaluate(f"{button}.hidden") is False
    page.evaluate(f"{button}.click()")

    assert page.evaluate(f"[{button}.textContent, {button}.getAttribute('aria-pressed')]") == ["Paused", "true"]
    assert page.errors == []


def test_printing_uses_the_light_theme(folder, page):
    page.open(folder.report, dark=True)

    answer = page.send("Page.printToPDF", printBackground=True)

    assert len(answer["data"]) > 50_000
    assert page.errors == []
