"""How fast and how good the training is: each benchmark is a command, `python -m benchmarks NAME`.

`runner` runs one and `record` keeps its rows as JSON, from which its Markdown file is rendered. Most need neither Ray
nor Optuna, so that `timellm` alone can be measured on another machine. `README.md` lists them.
"""

NAMES = (
    "step_time",
    "epoch_time",
    "scaling",
    "start_up",
    "profile_step",
    "launches",
    "gpu",
    "levers",
    "projection",
    "overhead",
    "order_effect",
    "forked",
    "search_efficiency",
    "quality",
    "intervals",
    "forecast_speed",
    "judgement",
    "report_size",
    "first_search",
    "robustness",
    "fidelity",
    "recipe",
    "same_numbers",
)
"""Every benchmark, each in the module of its name."""
