"""How fast the whole learner learns: `python -m benchmarks.learning`."""
