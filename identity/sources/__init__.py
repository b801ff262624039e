"""The ways to verify a caller: session stores, JWTs, introspection. One file a way."""
