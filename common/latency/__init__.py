"""The latency ledger: how long frames and alerts take on each part of their way (docs/latency.md)."""
