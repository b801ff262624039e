"""Check of the ML service: whether a server of the right kind answers at ``ML_SERVICE_URL``."""

from __future__ import annotations

from typing import Final

from watchout.common.ml_targets.reach import reach
from watchout.common.settings import Settings
from watchout.ctl.doctor.check import ASK_S, Check
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.scrubbing import visible_address


async def check_ml_service(settings: Settings) -> list[Finding]:
    """Return whether `ML_SERVICE_URL` accepts connections and speaks the protocol of its scheme."""
    url = settings.ml_service_url
    if url is None:
        return [ok("ml", "ML_SERVICE_URL is not set: no frames are analysed.")]
    address = visible_address(url)
    where = f"ML_SERVICE_URL{f' at {address}' if address else ''}"
    reached = await reach(url, ASK_S)
    if not reached.fault:
        return [ok("ml", f"{where} accepts connections.")]
    if reached.connected:
        text = f"{where} does not fit the service: {reached.fault}. Viewers get frames, but no alerts are made."
        return [wrong("ml", text, "Correct ML_SERVICE_URL as described.")]
    text = f"{where} cannot be reached: {reached.fault}. Viewers get frames, but no alerts are made."
    return [warning("ml", text, "Start the ML service.")]


CHECK: Final = Check("ml", check_ml_service)
