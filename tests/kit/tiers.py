"""Which tests `make test` leaves to `make test-long`.

`make test` is for every change: all rules, and each feature once through real processes and services.
`make test-long` has what takes long for the machine around watchout: hosts with networks of their own, resources that
run out, other programs in all their kinds, packages that are built and installed, the client libraries in their
runtimes; and the property tests with all their examples, of which `make test` draws a few. CI runs both.
"""

from __future__ import annotations

from typing import Final

import pytest

#: Folders and files, each with why it is long.
LONG: Final = {
    "tests/cluster": "hosts in network namespaces, with NATS servers that are killed and cut off",
    "tests/contract/rfc6455": "every order and size of WebSocket frames",
    "tests/e2e/deploy": "systemd, proxies, Prometheus, and processes of the former release",
    "tests/e2e/edge/test_floods.py": "strangers who send without end",
    "tests/e2e/test_bounds.py": "every bound is filled",
    "tests/e2e/test_ctl_cluster.py": "several machines",
    "tests/e2e/test_mjpeg_readers.py": "every reader of moving pictures",
    "tests/e2e/test_nats_bus.py": "several machines, with NATS servers that end",
    "tests/e2e/test_nats_slots.py": "several machines, with routers that end",
    "tests/e2e/test_no_cycles.py": "garbage of long runs",
    "tests/e2e/test_placement.py": "proxies that place streams",
    "tests/e2e/test_remote_bridges.py": "several machines",
    "tests/e2e/test_slow_alerts.py": "thousands of alerts that wait",
    "tests/e2e/test_slow_http_readers.py": "a hundred readers that read nothing",
    "tests/e2e/test_starting.py": "every way and every order to start",
    "tests/e2e/test_storm.py": "thousands of phones that come back at once",
    "tests/e2e/test_tls_mesh.py": "several machines",
    "tests/e2e/test_wheel.py": "packages that are built and installed",
    "tests/e2e/test_window_behind_nginx.py": "a proxy that buffers",
    "tests/faults/test_blocked_loop.py": "processes that stand still",
    "tests/faults/test_crowds.py": "crowds of connections",
    "tests/faults/test_few_descriptors.py": "descriptors that run out",
    "tests/faults/test_full_disk.py": "a disk that is full",
    "tests/faults/test_many_streams.py": "thousands of streams",
    "tests/faults/test_network.py": "packets that are lost",
    "tests/faults/test_out_of_memory.py": "memory that runs out",
    "tests/faults/test_overload.py": "more than a core can do",
    "tests/integration/benchmarks": "other systems, as the benchmarks start them",
    "tests/integration/ctl/test_rehearse.py": "whole rehearsals",
    "tests/integration/kit": "the tests' own tools",
    "tests/integration/mlbridge/test_poison.py": "ML services that fail for long",
    "tests/integration/router/slots/test_faults.py": "a schedule of faults of routers",
    "tests/sdk/test_bans.py": "client libraries that back off for long",
    "tests/sdk/test_camera.py": "the JavaScript client in browsers",
    "tests/sdk/test_example_apps.py": "applications that are built with npm",
    "tests/sdk/test_firefox.py": "the JavaScript client in browsers",
    "tests/sdk/test_first_picture.py": "the JavaScript client in browsers",
    "tests/sdk/test_js.py": "the packages' own tests with npm, Bun and Deno",
    "tests/sdk/test_native_camera.py": "the JavaScript client of phones",
    "tests/sdk/test_python_ml.py": "ML services of the Python library",
    "tests/sdk/test_react.py": "a hundred mounts in each version of React",
    "tests/sdk/test_viewer.py": "the JavaScript client in browsers",
    "tests/unit/router/slots/test_lease_explored.py": "all histories of leases",
}


def is_long(file: str) -> bool:
    """Whether `make test` leaves out a file, by its path below the root of the repository."""
    return file in LONG or any(file.startswith(f"{name}/") for name in LONG)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long ones, before pytest selects by marks."""
    for item in items:
        if is_long(item.nodeid.partition("::")[0]):
            item.add_marker(pytest.mark.long)
