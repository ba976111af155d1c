"""The training run: engine, schedule, validation, measurement and its result."""
