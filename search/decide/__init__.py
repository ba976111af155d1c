"""What is tried next, and the outcome. Knows nothing of Ray."""
