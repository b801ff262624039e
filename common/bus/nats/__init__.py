"""The bus over NATS: control messages between machines; frames cross the frame mesh, never NATS."""
