"""The router: owners of streams, routes of frames between processes, delivery of alerts, and recent alerts.

docs/architecture.md says which module does what. ``app`` creates the parts and joins them to the bus and the clock.
"""
