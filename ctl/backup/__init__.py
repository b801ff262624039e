"""Backups of ``WATCHOUT_HOME``: one file with a consistent copy of what nothing else can make again."""
