"""The sections about errors measured apart: over training time, and as forecasts."""

from results.analysis.evidence import Evidence
from results.document.parts import PlotBox, Section, Table
from results.document.plots.curves import CurvesPlot, curves_plot, draw_curves
from results.document.plots.examples import draw_examples, examples_plot


def curves_section(evidence: Evidence) -> Section | None:
    """Error over training time; nothing where no training has a curve."""
    plot = curves_plot(evidence)
    if not plot.curves:
        return None
    words = (
        "Validation MSE on a part of the windows. Training time is start-up, compilation and the steps so far, each at "
        "the setting's own seconds per step. Controls are levels over all validation windows."
    )
    label = (
        f"Lines of {len(plot.curves)} configurations: validation MSE over training time; the table of this plot lists "
        "it."
    )
    return Section(
        anchor="learning",
        link="Learning",
        title="Error over training time",
        words=words,
        plot=PlotBox(name="learning", label=label, figure=draw_curves(plot)),
        table=_curves_table(plot),
    )


def _curves_table(plot: CurvesPlot) -> Table:
    return Table(
        caption="Error over training time",
        summary="The points as a table",
        heads=["Trial", "Source", "After", "Validation MSE"],
        rows=[
            [curve.trial_id, curve.source, f"{minutes:.2f} min", f"{error:.4f}"]
            for curve in plot.curves
            for minutes, error in curve.points
        ],
        numeric=(2, 3),
    )


def examples_section(evidence: Evidence) -> Section | None:
    """Example windows of each pick; nothing where none were kept."""
    plot = examples_plot(evidence)
    if not plot.rows:
        return None
    words = "Validation windows that no training saw, scaled units, at the fidelity of the trials."
    if plot.naive_names:
        words += f" The naive forecast is the best of those that need no training: {', '.join(plot.naive_names)}."
    label = f"Small plots of example windows of {len(plot.rows)} settings: history, truth, forecast and naive forecast."
    return Section(
        anchor="examples",
        link="Forecasts",
        title="Forecasts of the picks",
        words=words,
        plot=PlotBox(
            name="examples", label=label, figure=draw_examples(plot), wide="Example windows, scrolls sideways"
        ),
    )
