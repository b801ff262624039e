"""The bridge carries frames to one ML service and alerts back. It finds the router and nothing else.

Which module does what, and which are pure, stands in docs/architecture.md. ``app`` wires them and decides nothing.
"""
