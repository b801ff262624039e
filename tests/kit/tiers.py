"""Which tests `make test` leaves to `make test-long`.

`make test` is for every change: all rules, and each feature once through real processes and services.
`make test-long` has what takes long for the machine around watchout: hosts with networks of their own, resources that
run out, other programs in all their kinds, packages that are built and installed, the client libraries in their
runtimes; what `make test` shows with uvloop and the newest Better Auth and PostgreSQL, again without uvloop and with
the oldest ones; and the property tests with all their examples, of which `make test` draws a few. CI runs both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest

#: Folders, files and single tests, each with why it is long.
LONG: Final = {
    "tests/cluster": "hosts in network namespaces, with NATS servers that are killed and cut off",
    "tests/contract/rfc6455": "every order and size of WebSocket frames",
    "tests/e2e/console/test_health.py::test_firefox_shows_pictures_under_the_same_policy": "a second browser",
    "tests/e2e/deploy": "systemd, proxies, Prometheus, and processes of the former release",
    "tests/e2e/edge/test_floods.py": "strangers who send without end",
    "tests/e2e/test_alert_costs.py::"
    "test_the_router_keeps_encoded_bytes_and_no_more_than_is_said": "thousands of alerts that are kept",
    "tests/e2e/test_alerts_once.py::"
    "test_every_accepted_alert_is_delivered_and_none_twice_however_router_and_bridge_are_killed": "processes that are "
    "killed again and again",
    "tests/e2e/test_bounds.py": "every bound is filled",
    "tests/e2e/test_bus.py::"
    "test_frames_of_16_mib_that_fill_the_bus_hold_up_neither_answers_nor_alerts": "a bus that is full of frames",
    "tests/e2e/test_client_libraries.py::test_a_ping_is_answered_whatever_else_the_client_sends": "silences of 20 s",
    "tests/e2e/test_ctl_cluster.py": "several machines",
    "tests/e2e/test_latency.py::"
    "test_the_ledger_says_how_late_a_camera_with_a_wrong_clock_is": "percentiles of half a minute",
    "tests/e2e/test_mjpeg_readers.py": "every reader of moving pictures",
    "tests/e2e/test_ml_freshness.py::"
    "test_fifty_streams_of_a_slow_service_have_even_shares_and_coverage_is_told_truly": "shares of half a minute",
    "tests/e2e/test_nats_bus.py": "several machines, with NATS servers that end",
    "tests/e2e/test_nats_slots.py": "several machines, with routers that end",
    "tests/e2e/test_no_cycles.py": "garbage of long runs",
    "tests/e2e/test_placement.py": "proxies that place streams",
    "tests/e2e/test_readme_client.py::test_the_client_of_readme_keeps_memory_flat": "memory of a browser",
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
    "tests/integration/ctl/test_ml_docs.py::"
    "test_the_page_plays_footage_and_writes_its_report": "footage from end to end",
    "tests/integration/ctl/test_ml_replay.py::"
    "test_footage_through_the_example_service_alerts_on_the_first_person": "footage from end to end",
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
    "tests/unit/common/test_misspelled.py::"
    "test_every_slip_of_one_character_in_every_setting_is_found": "all slips of all settings",
    "tests/unit/ctl/test_scene.py::"
    "test_a_background_subtraction_finds_every_walker_and_nothing_else": "a film that is drawn and searched",
    "tests/unit/gateway/test_hub_publishers.py::"
    "test_of_ten_thousand_streams_that_came_and_went_nothing_is_left_but_what_is_bounded": "ten thousand streams",
    "tests/unit/mlbridge/test_concurrency_limit.py::"
    "test_a_service_that_becomes_slower_is_learned_anew": "simulated minutes",
    "tests/unit/mlbridge/test_scheduler_histories.py::"
    "test_streams_of_other_rates_than_most_have_their_share_too": "simulated minutes",
    "tests/unit/router/slots/test_lease_explored.py": "all histories of leases",
}

#: Values of parameters with which a test shows once more what it shows with another one, each with what it stands for.
VARIANTS: Final = {
    "asyncio": "without uvloop",
    "served_by_asyncio": "without uvloop",
    "1.3": "the oldest Better Auth",
    "16": "the oldest PostgreSQL",
}


def is_long(test: str, parameters: Iterable[object] = ()) -> bool:
    """Whether `make test` leaves out a test, or all of a file.

    Args:
        test: its name as pytest writes it, without parameters; or the file's path below the root of the repository.
        parameters: the values of its parameters; a tuple counts as each of its values.
    """
    file = test.partition("::")[0]
    if test in LONG or file in LONG or any(file.startswith(f"{name}/") for name in LONG):
        return True
    values = [each for value in parameters for each in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(value, str) and value in VARIANTS for value in values)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long ones, before pytest selects by marks."""
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if is_long(item.nodeid.partition("[")[0], parameters):
            item.add_marker(pytest.mark.long)
