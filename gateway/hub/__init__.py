"""The streams of one gateway: publishers, viewers, and what waits for each viewer. Pure."""
