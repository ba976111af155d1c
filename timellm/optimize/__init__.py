"""How weights are updated: the engine (Accelerate or DeepSpeed), its configuration, the learning rate's schedule."""
