"""What ``watchout-ctl latency`` shows."""
