"""The sections of a report about errors measured apart: over training time, and as forecasts."""

from results.analysis.evidence import Evidence
from results.document.figures_errors import curve_rows, curves_figure, example_rows, examples_figure
from results.document.markup import Child, details, el, table
from results.document.page_parts import Section, plot


def curves_section(evidence: Evidence) -> Section:
    """Error over training time; nothing where no training has a curve."""
    rows = curve_rows(evidence)
    if not rows:
        return Section("learning", "Error over training time", [])
    words = (
        "Validation MSE on a part of the windows, over steps at each setting's own seconds per step after start-up and "
        "compilation. Controls are levels over all validation windows."
    )
    cells: list[list[Child]] = [
        [str(row["trial_id"]), str(row["source"]), f"{minutes:.2f} min", f"{error:.4f}"]
        for row, points in rows
        for minutes, error in points
    ]
    data = table("Error over training time", ["Trial", "Source", "After", "Validation MSE"], cells, numeric=(2, 3))
    label = f"Lines of {len(rows)} configurations: validation MSE over training time; the table of this plot lists it."
    children: list[Child] = [el("p", None, words), plot("learning", label), details("The points as a table", data)]
    return Section("learning", "Error over training time", children, {"learning": curves_figure(evidence)})


def examples_section(evidence: Evidence) -> Section:
    """Example windows of each pick; nothing where none were kept."""
    rows = example_rows(evidence)
    if not rows:
        return Section("examples", "Forecasts of the picks", [])
    naive = sorted(
        {str(example["naive_name"]) for _, examples in rows for example in examples if "naive_name" in example}
    )
    words = "Validation windows that no training saw, scaled units, at the fidelity of the trials."
    if naive:
        words += f" The naive forecast is the best of those that need no training: {', '.join(naive)}."
    label = f"Small plots of example windows of {len(rows)} settings: history, truth, forecast and naive forecast."
    box = el(
        "div",
        {"class": "wide", "tabindex": "0", "role": "region", "aria-label": "Example windows, scrolls sideways"},
        plot("examples", label),
    )
    figures = {"examples": examples_figure(evidence)}
    return Section("examples", "Forecasts of the picks", [el("p", None, words), box], figures)
