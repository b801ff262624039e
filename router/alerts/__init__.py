"""The way of an alert through the router: duplicates, recent alerts, delivery, and replay after a lost connection."""
