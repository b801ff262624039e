"""The sender of a request: its address, its web origin, and its credential."""
