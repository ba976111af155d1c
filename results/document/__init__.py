"""The report and the recommendations, written out of the analysis."""
