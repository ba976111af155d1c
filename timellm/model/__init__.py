"""The Time-LLM network and the exact reuse of frozen keys and values."""
