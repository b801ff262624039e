"""Bun's native `publish` of each message as it came, in `relay_bun_raw.js`; like Nchan, it knows no tokens and ids."""

from __future__ import annotations

from benchmarks.systems.bun import Bun

SYSTEM = Bun("bun-raw", "relay_bun_raw.js", "nchan")
