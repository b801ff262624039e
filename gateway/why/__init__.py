"""What a gateway remembers of its connections, logs at their end, and measures when `watchout-ctl why` asks."""
