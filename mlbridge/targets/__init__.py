"""The clients of ML services: one interface, `Target`, and one module for each kind of service."""

from __future__ import annotations

from watchout.mlbridge.targets.registry import open_target
from watchout.mlbridge.targets.target import (
    OnAlerts,
    Target,
    TargetFailure,
    TargetTimeout,
    UnusableMessage,
    UnusableResult,
)

__all__ = [
    "OnAlerts", "Target", "TargetFailure", "TargetTimeout", "UnusableMessage", "UnusableResult", "open_target",
]  # fmt: skip
