"""Ray: the cluster, the Tune experiment, its trials and their worker processes."""
