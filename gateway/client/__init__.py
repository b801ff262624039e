"""One WebSocket client: socket, handshake, frame reader, protocol, and the handler of its commands."""
