"""The listening port: TLS, request heads, and who serves a new connection."""
