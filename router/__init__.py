"""The router: who publishes and watches what, the way of frames between processes, and recent alerts.

Which module does what, and which are pure, stands in docs/architecture.md. ``app`` joins them to the bus and the clock.
"""
