"""Alerts as the router keeps them: ids, order, recent ones. Pure."""
