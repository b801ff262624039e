"""Several routers that share the streams: which process runs the router of which slot, and its records."""
