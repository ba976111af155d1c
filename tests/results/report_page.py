"""What browser tests ask an open report."""

import time
from pathlib import Path

from tests.results.chromium import Page

AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"

_PLOT = "document.querySelector('[data-figure=figure-pareto]')"
_TRACE = f"{_PLOT}.data.findIndex(trace => trace.name === 'Pareto front')"
_POINTS = f"{_PLOT}.querySelectorAll(`.trace${{{_PLOT}._fullData[{_TRACE}].uid}} .point`)"


def front_points(page: Page) -> tuple[int, int]:
    """Points of the front: those that the figure holds, and those that are drawn."""
    return page.evaluate(f"{_PLOT}.data[{_TRACE}].x.length"), page.evaluate(f"{_POINTS}.length")


def hover_over_front(page: Page, number: int) -> str:
    """What the plot shows when the mouse is over one of the front's points."""
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    x, y = page.evaluate(
        f"""(() => {{
          const point = [...{_POINTS}][{number}];
          window.scrollTo(0, point.getBoundingClientRect().top + window.scrollY - 300);
          const box = point.getBoundingClientRect();
          return [box.left + box.width / 2, box.top + box.height / 2];
        }})()"""
    )
    for offset in (3, 0):
        page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + offset, y=y)
    ends = time.monotonic() + 60
    while not (text := page.evaluate(f"{_PLOT}.querySelector('.hoverlayer').textContent")):
        assert time.monotonic() < ends, "Hovering shows nothing."
        time.sleep(0.1)
    return text


def accessibility_problems(page: Page) -> list[list]:
    """What axe-core finds, with everything that can be opened open: impact, rule, places."""
    page.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    page.evaluate(AXE.read_text() + "; 0")
    return page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html)]))")


def overflowing_plots(page: Page) -> int:
    """Plots wider than their box, those that scroll sideways left out."""
    wide = "[...document.querySelectorAll('.plot')].filter(p => !p.closest('.wide') && p.scrollWidth > p.clientWidth)"
    return page.evaluate(f"{wide}.length")
