"""The listening port: TLS, checks of request heads, and the choice between WebSocket and HTTP for a connection."""
