"""The plots of a report: for each what it shows, as plain values, and how that is drawn, as a figure for plotly.

`front_plot(evidence)` and its like say what is shown, without a colour or a pixel; `draw_front(plot)` and its like draw
it.
"""
