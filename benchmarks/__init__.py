"""What the package costs, what it saves, and how others fare: `python -m benchmarks`."""
