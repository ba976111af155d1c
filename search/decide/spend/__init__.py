"""What runs cost, what is left of the time, and the plan that follows from both."""
