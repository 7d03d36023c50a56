"""Many clients at one server, some of which go away: `python -m benchmarks.load`."""
