"""What a gateway adds to the latency ledger: sampled frames, written alerts, and the clocks of its cameras."""
