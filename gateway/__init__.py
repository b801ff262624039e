"""The gateway terminates WebSockets and HTTP, authenticates each caller, and delivers frames to its own viewers.

docs/modules.md lists its modules with their roles, and which of them are pure. ``app`` only wires them.
"""
