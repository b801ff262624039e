"""Alerts: what they are, how they are checked, signed, and kept until they are delivered."""
