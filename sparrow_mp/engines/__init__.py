"""What drives a run: one file an engine."""
