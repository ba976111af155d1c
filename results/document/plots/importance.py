"""Which knobs matter: the share of each objective's variation that a knob explains."""

from dataclasses import dataclass
from html import escape

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, layout, titled
from timellm.contract.columns import SECONDS_PER_EPOCH, VAL_MSE


@dataclass(frozen=True, kw_only=True, slots=True)
class KnobShares:
    """A knob's shares, from 0 to 1."""

    knob: str
    of_seconds: float
    of_mse: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportancePlot:
    """The knobs, the most important one first."""

    knobs: tuple[KnobShares, ...]


def importance_plot(evidence: Evidence) -> ImportancePlot:
    """What the plot shows."""
    return ImportancePlot(
        knobs=tuple(
            KnobShares(knob=str(row["knob"]), of_seconds=float(row[SECONDS_PER_EPOCH]), of_mse=float(row[VAL_MSE]))
            for row in evidence.importance.to_dict(orient="records")
        )
    )


def draw_importance(plot: ImportancePlot) -> Figure:
    """Two bars for each knob, the most important one at the top."""
    rows = plot.knobs[::-1]
    knobs = [escape(row.knob) for row in rows]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": knobs,
            "x": [100 * share for share in shares],
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x:.0f} % of " + name + "<extra></extra>",
        }
        for shares, name, colour in (
            ([row.of_mse for row in rows], "validation MSE", "var(--second)"),
            ([row.of_seconds for row in rows], "seconds per epoch", "var(--accent)"),
        )
    ]
    return {
        "data": traces,
        "layout": layout(
            110 + 40 * len(knobs),
            margin={"l": 8, "r": 16, "t": 12, "b": 48},
            xaxis={"title": titled("share of the variation, percent"), "rangemode": "tozero"},
            yaxis={"showgrid": False},
            barmode="group",
            bargap=0.35,
            legend={**layout(0)["legend"], "traceorder": "reversed"},
        ),
    }
