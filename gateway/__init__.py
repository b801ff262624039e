"""The gateway terminates WebSockets and HTTP, knows who each caller is, and delivers frames to its own viewers.

Which module does what, and which are pure, stands in docs/architecture.md. ``app`` wires them and decides nothing.
"""
