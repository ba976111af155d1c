"""How the front grew: its hypervolume over wall clock."""

from dataclasses import dataclass
from html import escape

from results.analysis.evidence import Evidence
from results.document.plots.drawing import Figure, layout, numbers, titled

MANY = 200
"""Points beyond which their markers are small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthPoint:
    """The front after a trial."""

    trial_id: str
    trials: int
    """Trials so far."""
    minutes: float
    """Since the search began."""
    hypervolume: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthPlot:
    """The hypervolume after each trial."""

    points: tuple[GrowthPoint, ...]

    @property
    def steps(self) -> tuple[GrowthPoint, ...]:
        """The points at which it grew, the first one among them."""
        pairs = zip(self.points, self.points[1:], strict=False)
        return (*self.points[:1], *(point for before, point in pairs if point.hypervolume > before.hypervolume))


def growth_plot(evidence: Evidence) -> GrowthPlot:
    """What the plot shows."""
    return GrowthPlot(
        points=tuple(
            GrowthPoint(
                trial_id=str(row["trial_id"]),
                trials=int(row["trials"]),
                minutes=float(row["elapsed_seconds"]) / 60,
                hypervolume=float(row["hypervolume"]),
            )
            for row in evidence.growth.to_dict(orient="records")
        )
    )


def draw_growth(plot: GrowthPlot) -> Figure:
    """A line of steps."""
    points = plot.points
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": numbers(point.minutes for point in points),
                "y": numbers(point.hypervolume for point in points),
                "text": [escape(point.trial_id) for point in points],
                "customdata": [point.trials for point in points],
                "hovertemplate": "%{x:.1f} min, %{customdata} trials<br>hypervolume %{y:.3f}<br>%{text}<extra></extra>",
                "line": {"color": "var(--accent)", "width": 2, "shape": "hv"},
                "marker": {"color": "var(--accent)", "size": 5 if len(points) <= MANY else 1},
            }
        ],
        "layout": layout(
            320,
            xaxis={"title": titled("wall clock, minutes"), "rangemode": "tozero"},
            yaxis={"title": titled("hypervolume"), "rangemode": "tozero"},
            showlegend=False,
        ),
    }
