"""Which settings are tried next: the Optuna study, its samplers, and proposals on two levels."""
