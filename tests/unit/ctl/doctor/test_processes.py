"""What the doctor says of the processes that run: their own settings, without secrets, against those of the command."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from watchout.common.process import about
from watchout.common.settings import load, table
from watchout.ctl.doctor.checks.processes import RunningProcess, judge_processes, judge_without_router
from watchout.ctl.doctor.findings import Finding, Level

SECRET = "hunter2-hunter2-hunter2-hunter2-"


def said(
    *found: RunningProcess, ours: dict[str, str] | None = None, version: str = "1", host: str = ""
) -> list[Finding]:
    return list(judge_processes(found, ours or {}, version, host))


ROUTER = RunningProcess(name="router", kind="router", pid=1, version="1")
GATEWAY = RunningProcess(name="gateway", kind="gateway", pid=2, version="1")
BRIDGE = RunningProcess(name="mlbridge", kind="mlbridge", pid=3, version="1")


def warnings(found: list[Finding]) -> list[str]:
    return [finding.sentence for finding in found if finding.level is not Level.OK]


def test_what_runs_as_this_command_would_have_it_is_well() -> None:
    assert warnings(said(ROUTER, GATEWAY, BRIDGE)) == []
    same = {"WATCHOUT_PORT": "4000"}
    assert warnings(said(ROUTER, replace(GATEWAY, settings=same), BRIDGE, ours=same)) == []


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ({"WATCHOUT_PORT": "4000"}, {}, "WATCHOUT_PORT is 4000 there and not set here"),
        ({}, {"STREAM_ACCESS": "authenticated"}, "STREAM_ACCESS is not set there and authenticated here"),
        ({"DATABASE_URL": "set (postgres://a)"}, {"DATABASE_URL": "set (postgres://b)"}, "postgres://a) there and set"),
    ],
)
def test_settings_that_differ_are_told(theirs: dict[str, str], ours: dict[str, str], words: str) -> None:
    (text,) = warnings(said(ROUTER, replace(GATEWAY, settings=theirs), BRIDGE, ours=ours))
    assert "gateway (process 2) has other settings than this command" in text
    assert words in text


def test_few_file_descriptors_are_told() -> None:
    wide = replace(GATEWAY, descriptors=40, descriptors_limit=20_000, connections_limit=18_000)
    assert warnings(said(ROUTER, wide, BRIDGE)) == []
    (text,) = warnings(said(ROUTER, replace(wide, descriptors_limit=64, connections_limit=17_999), BRIDGE))
    assert text.startswith(
        "gateway (process 2) may have 64 files and sockets open, which is enough for 17999 connections, "
        "and MAX_CONNECTIONS is 20000."
    )
    lowered = replace(wide, connections_limit=500, settings={"MAX_CONNECTIONS": "500"})
    assert warnings(said(ROUTER, lowered, BRIDGE, ours={"MAX_CONNECTIONS": "500"})) == []
    (text,) = warnings(said(replace(ROUTER, descriptors=90, descriptors_limit=100), wide, BRIDGE))
    assert text.startswith("router (process 1) has 90 files and sockets open, and may have 100.")
    assert warnings(said(replace(ROUTER, descriptors=89, descriptors_limit=100), wide, BRIDGE)) == []


def test_settings_that_a_process_does_not_use_do_not_differ() -> None:
    assert warnings(said(ROUTER, GATEWAY, BRIDGE, ours={"ML_FPS": "3"})) != []
    text = " ".join(warnings(said(ROUTER, GATEWAY, BRIDGE, ours={"ML_FPS": "3"})))
    assert "mlbridge (process 3)" in text
    assert "gateway (process 2)" not in text
    far = replace(BRIDGE, remote=True, settings={"WATCHOUT_HOME": "/elsewhere"})
    assert warnings(said(ROUTER, GATEWAY, far)) == []


def test_other_versions_missing_processes_and_unlike_gateways_are_told() -> None:
    assert any(
        "runs version 0, installed is 1" in t for t in warnings(said(ROUTER, replace(GATEWAY, version="0"), BRIDGE))
    )
    assert any("does not report its version" in t for t in warnings(said(ROUTER, replace(GATEWAY, version=""), BRIDGE)))
    (text,) = warnings(said(ROUTER))
    assert "No gateway and no mlbridge runs. Start `watchout-gateway` and `watchout-mlbridge`" in text
    other = replace(GATEWAY, name="gateway-2", settings={"STREAM_ACCESS": "authenticated"})
    assert any(
        "gateway-2 (there) and gateway (here)" in text for text in warnings(said(ROUTER, GATEWAY, other, BRIDGE))
    )
    assert judge_without_router("/h", {}).level is Level.OK
    assert "the settings of gateway (process 7) are unknown" in judge_without_router("/h", {"gateway": 7}).sentence


def test_a_process_that_may_not_join_is_told_with_both_numbers_and_does_not_count_as_running() -> None:
    router = replace(ROUTER, settings={"CLUSTER_SLOTS": "8"})
    found = said(router, GATEWAY, replace(BRIDGE, other_slots=2), ours={"CLUSTER_SLOTS": "8"})
    (wrong,) = (each for each in found if each.level is Level.WRONG)
    assert wrong.sentence.startswith(
        "mlbridge (process 3) may not join: its CLUSTER_SLOTS is 2, and that of the routers 8."
    )
    assert any("No mlbridge runs" in text for text in warnings(found))
    (default,) = (
        each for each in said(ROUTER, GATEWAY, replace(GATEWAY, other_slots=2), BRIDGE) if each.level is Level.WRONG
    )
    assert "that of the routers 4" in default.sentence


def test_the_number_of_slots_is_compared_for_every_kind() -> None:
    for each in (ROUTER, GATEWAY, BRIDGE):
        others = [other for other in (ROUTER, GATEWAY, BRIDGE) if other is not each]
        (text,) = warnings(said(*others, replace(each, settings={"CLUSTER_SLOTS": "8"})))
        assert f"{each.kind} (process {each.pid})" in text
        assert "CLUSTER_SLOTS is 8 there and not set here" in text


def test_what_differs_from_machine_to_machine_is_compared_on_one_machine_only() -> None:
    def on(host: str, number: int, **settings: str) -> RunningProcess:
        place = {"MESH_LISTEN": f"tls://10.0.0.{number}:7400", "PUBLIC_URL": f"http://10.0.0.{number}:3000",
                 "WATCHOUT_HOST": f"10.0.0.{number}"}  # fmt: skip
        return replace(GATEWAY, name=f"gateway.{number}", host=host, settings={**place, **settings})

    ours = dict(on("a", 1).settings)
    assert warnings(said(ROUTER, on("a", 1), on("b", 2), on("c", 3), BRIDGE, ours=ours, host="a")) == []
    (text, again) = warnings(said(ROUTER, on("a", 1), on("a", 2), BRIDGE, ours=ours, host="a"))
    assert "PUBLIC_URL is http://10.0.0.2:3000 there" in text
    assert "gateway.2 (there) and gateway.1 (here)" in again
    found = warnings(said(ROUTER, on("a", 1), on("b", 2, STREAM_ACCESS="authenticated"), BRIDGE, ours=ours, host="a"))
    assert len(found) == 2
    assert all("STREAM_ACCESS" in text and "PUBLIC_URL" not in text for text in found)
    assert len(warnings(said(ROUTER, on("", 1), on("", 2), BRIDGE, ours=ours, host="a"))) == 2, "it is not known where"


def test_no_secret_is_told_whatever_form_it_has() -> None:
    urls = ("postgres://u:{0}@db:5432/app?password={0}", "postgres://u:a/{0}@db/app", "postgres://u:{0}@b@db/app",
            "postgres:///app?host=db&password={0}")  # fmt: skip
    for url in urls:
        told = about.reported_settings(replace(load({}), database_url=url.format(SECRET)))
        assert told["DATABASE_URL"].startswith("set")
        assert SECRET not in str(told)
    settings = load({
        "BETTER_AUTH_SECRET": SECRET, "SERVICE_TOKEN": SECRET, "STATS_TOKEN": SECRET,
        "ML_SERVICE_URL": f"https://user:{SECRET}@ml:8000/{SECRET}?key={SECRET}",
        "ML_HEADERS": json.dumps({"Authorization": SECRET}), "WATCHOUT_PORT": "4000",
    })  # fmt: skip
    told = about.reported_settings(settings)
    assert SECRET not in str(told)
    assert told["ML_SERVICE_URL"] == "set (https://ml:8000)"
    assert told["WATCHOUT_PORT"] == "4000"
    assert about.reported_settings(load({})) == {}


def test_every_setting_matters_to_some_process() -> None:
    for _, spec, _ in table():
        assert any(about.is_used_by(kind, spec.env) for kind in ("router", "gateway", "mlbridge")), spec.env
