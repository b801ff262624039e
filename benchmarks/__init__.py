"""Measures watchout beside other relays: `python -m benchmarks`; the plan is in `plan`, the systems in `systems`."""
