"""The ways of verifying users: session databases, JWTs and introspection, one module each."""
