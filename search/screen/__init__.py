"""What a person sees of a search: terminal, live report, interrupts, the end."""
