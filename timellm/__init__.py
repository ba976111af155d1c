"""Time-LLM and everything one training run needs: data, prompts, backbones, training, measurement.

Knows nothing of Ray, Optuna or the search around it, so that it can be taken to a machine on its own.
"""
