"""The alert webhook: its queue and schedule, the addresses that it may use, and the HTTP sender."""
