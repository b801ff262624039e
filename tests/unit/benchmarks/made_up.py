"""Raw results as a run would write them, with figures that a test can choose."""

from __future__ import annotations

import json
from typing import Any


def run(
    point: str = "json-1x50",
    system: str = "watchout",
    number: int = 0,
    *,
    cpu_us: float = 6.0,
    p99: float = 1.0,
    memory: int = 60 * 2**20,
    **load: Any,
) -> dict[str, Any]:
    """A run of 100 frames to 50 viewers with so many µs each."""
    saw: dict[str, Any] = {
        "sent": 100, "not_sent": 0, "expected": 5000, "delivered": 5000, "missing": 0, "corrupt": 0, "reordered": 0,
        "latency_ms": {"p50": p99 / 2, "p99": p99, "p999": p99 * 2, "max": p99 * 3},
        "lateness_ms": {"p50": 0.05, "p99": 0.2, "p999": 0.3, "max": 0.4},
        "load_cpu_s": 1.0, "measured_s": 2.0, "slow": None, "connect_s": 0.1, "idle": 0,
    }  # fmt: skip
    saw |= load
    return {
        "point": point, "system": system, "round": number, "pss_bytes": memory,
        "server_cpu_s": cpu_us * saw["delivered"] / 1e6, "cpu_us_per_delivered": cpu_us, "load": saw,
    }  # fmt: skip


def idle(system: str = "watchout", number: int = 0, *, held: int = 10_000, kb: float = 6.0) -> dict[str, Any]:
    """Idle connections: no frame was sent."""
    before = 50 * 2**20
    return {
        "point": "idle", "system": system, "round": number, "server_cpu_s": 0.5,
        "pss_before_bytes": before, "pss_bytes": before + round(held * kb * 1000),
        "load": {"connect_s": 3.0, "idle": held},
    }  # fmt: skip


def raw(*runs: dict[str, Any], quick: bool = False, missing: dict[str, str] | None = None) -> bytes:
    """A raw file."""
    return json.dumps(
        {
            "machine": {"cpu": "Made-up 9000", "cores": 2, "versions": {"uvloop": "0.22", "bun": None}},
            "command": "python -m benchmarks",
            "quick": quick,
            "began": "2026-01-02T03:04:05+00:00",
            "runs": runs,
            "missing": missing or {},
        }
    ).encode()
