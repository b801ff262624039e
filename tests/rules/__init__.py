"""Rehearsals of faults: all that an alert rule watches is broken on real processes, and a real Prometheus has to tell.

`breakage` runs them; `cluster`, `ml`, `alerts`, `processes` and `limits` are systems with what is broken in each.
`make test-rules` runs all of it, and writes the table of docs/monitoring.md.
"""
