"""Periodic work that raises in a process is counted and goes on."""

from __future__ import annotations

from typing import Any

from tests.kit.clients import eventually, http
from tests.kit.processes import BIN

#: A gateway whose reports to the router raise three times.
GATEWAY = """
from watchout.gateway.router_client import RouterClient

send, left = RouterClient._send_reports, [3]

def send_reports(link):
    if left[0]:
        left[0] -= 1
        raise OSError("no report now")
    print("a report was sent", flush=True)
    return send(link)

RouterClient._send_reports = send_reports
from watchout.gateway.app import main
main()
"""


async def test_a_periodic_task_that_raises_is_counted_and_goes_on(watchout: Any) -> None:
    started = watchout(start=False, expected=("a task failed and goes on", "Traceback", "no report now"))
    started.start("router")
    gateway = started.run("gateway", [str(BIN / "python"), "-c", GATEWAY])
    await eventually(lambda: "a report was sent" in gateway.output, 30)
    await eventually(lambda: "a task failed and goes on" in gateway.output, 30)  # the log has a thread of its own
    page = (await http(f"{started.url}/metrics")).body.decode()
    (line,) = [each for each in page.splitlines() if "reports of streams" in each]
    assert line.startswith("watchout_task_failures_total{")
    assert float(line.rpartition(" ")[2]) == 3
