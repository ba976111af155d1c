"""The search: Optuna suggests settings, Ray Tune runs each as a whole training run in its own process."""
