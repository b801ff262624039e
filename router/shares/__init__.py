"""Shared streams: which shares there are, within their bounds, and their file."""
