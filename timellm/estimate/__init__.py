"""Times without a training: measured steps, interleaved variants, the projection to an epoch and a run."""
