"""What is tried next and what became of it. Knows nothing of Ray."""
