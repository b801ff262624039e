"""Shared streams: the tokens of shares, and who has signed in with one."""
