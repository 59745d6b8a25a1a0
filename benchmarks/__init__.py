"""The benchmarks: ``python -m benchmarks`` (scripts/bench). Each figure is a ratio to a baseline of the same run."""
