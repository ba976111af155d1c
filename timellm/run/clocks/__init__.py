"""What a run does between its first step and its result: it measures time and error together, or one of the two.

`timellm.run.training` sets a run up, hands it as `running` to one of these, and reports how it ended.
"""
