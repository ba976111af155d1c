"""The machine a run is on: processes and their environment, devices, memory, and other load."""
