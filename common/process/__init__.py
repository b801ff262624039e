"""The life of a process on its machine: its name, its starter, its restarts, its command line."""
