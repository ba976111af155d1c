"""The sections about errors measured apart: over training time, and as forecasts."""

from results.analysis.evidence import Evidence
from results.document.figures_errors import curve_rows, curves_figure, example_rows, examples_figure
from results.document.parts import Plot, Section, Table


def curves_section(evidence: Evidence) -> Section | None:
    """Error over training time; nothing where no training has a curve."""
    rows = curve_rows(evidence)
    if not rows:
        return None
    words = (
        "Validation MSE on a part of the windows, over steps at each setting's own seconds per step after start-up and "
        "compilation. Controls are levels over all validation windows."
    )
    label = f"Lines of {len(rows)} configurations: validation MSE over training time; the table of this plot lists it."
    table = Table(
        caption="Error over training time",
        summary="The points as a table",
        heads=["Trial", "Source", "After", "Validation MSE"],
        rows=[
            [str(row["trial_id"]), str(row["source"]), f"{minutes:.2f} min", f"{error:.4f}"]
            for row, points in rows
            for minutes, error in points
        ],
        numeric=(2, 3),
    )
    return Section(
        anchor="learning",
        link="Learning",
        title="Error over training time",
        words=words,
        plot=Plot(name="learning", label=label, figure=curves_figure(evidence)),
        table=table,
    )


def examples_section(evidence: Evidence) -> Section | None:
    """Example windows of each pick; nothing where none were kept."""
    rows = example_rows(evidence)
    if not rows:
        return None
    naive = sorted(
        {str(example["naive_name"]) for _, examples in rows for example in examples if "naive_name" in example}
    )
    words = "Validation windows that no training saw, scaled units, at the fidelity of the trials."
    if naive:
        words += f" The naive forecast is the best of those that need no training: {', '.join(naive)}."
    label = f"Small plots of example windows of {len(rows)} settings: history, truth, forecast and naive forecast."
    wide = "Example windows, scrolls sideways"
    return Section(
        anchor="examples",
        link="Forecasts",
        title="Forecasts of the picks",
        words=words,
        plot=Plot(name="examples", label=label, figure=examples_figure(evidence), wide=wide),
    )
