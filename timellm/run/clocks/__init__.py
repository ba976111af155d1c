"""What a run does between its first step and its result where it measures only its time, or only its error.

A run that measures both at once is `timellm.run.training` itself.
"""
