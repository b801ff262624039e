"""One WebSocket client: its socket, upgrade, frame reader, protocol state, and the handler of the commands."""
