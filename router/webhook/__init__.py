"""The alert webhook: what waits for it, where it may lead, and who calls it."""
