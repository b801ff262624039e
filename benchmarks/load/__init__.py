"""The load: cameras and viewers of one run, in a process of its own (`python -m benchmarks.load`)."""
