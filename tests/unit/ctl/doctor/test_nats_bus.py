"""What the doctor says of the bus over NATS, from facts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.doctor_report import levels, one
from watchout.common.bus.nats.probe import BucketFacts, BusFacts, LaggingCopy, NatsServerFacts
from watchout.ctl.doctor.checks.nats_bus import judge_bucket, judge_bus, judge_servers
from watchout.ctl.doctor.findings import Level
from watchout.ctl.doctor.scrubbing import scrubbed, secrets_of


def server(number: int = 1, **facts: Any) -> NatsServerFacts:
    known = {"version": "2.15.1", "cluster": "c", "others": 2, "max_payload": 1 << 20, "jetstream": True}
    return NatsServerFacts(name=f"nats://s{number}:4222", **{**known, **facts})


def test_three_servers_of_a_cluster_are_fine() -> None:
    found = list(judge_servers([server(1), server(2, encrypted=True), server(3)]))
    assert levels(found) == [Level.OK] * 3
    assert "nats://s2:4222 of the cluster c replies within 0.0 ms, encrypted; nats-server 2.15.1" in found[1].says


def test_a_server_that_is_down_is_a_weakness_while_another_one_serves_and_wrong_alone() -> None:
    down = server(2, fault="Connection refused")
    assert levels(judge_servers([server(1), down])) == [Level.OK, Level.WARNING]
    alone = one(judge_servers([down]))
    assert alone.level is Level.WRONG
    assert "Connection refused" in alone.says


@pytest.mark.parametrize("others", [0, 1])
def test_fewer_than_three_servers_are_a_weakness(others: int) -> None:
    found = list(judge_servers([server(others=others)]))
    assert levels(found) == [Level.OK, Level.WARNING]
    assert f"{others + 1} of 3 servers" in found[1].says


def test_servers_of_two_clusters_are_wrong() -> None:
    assert levels(judge_servers([server(1), server(2, cluster="d")]))[-1] is Level.WRONG


def test_what_is_denied_is_named_and_what_to_do() -> None:
    denied = ["the NATS server permits this user not to publish to a.b: allow the subjects of docs/bus.md"]
    found = list(judge_bus(BusFacts(denied=denied, jetstream="no reply"), 3))
    assert levels(found) == [Level.WRONG] * 3
    assert found[0].says == "The NATS server permits this user not to publish to a.b."
    assert all(each.remedy for each in found)
    assert "docs/bus.md" in found[0].remedy
    assert "jetstream {" in found[2].remedy
    denied = ["the NATS server permits this user not to publish to $js.api.info: allow …"]
    assert "docs/bus.md" in list(judge_bus(BusFacts(denied=denied, jetstream="no reply"), 3))[2].remedy


def test_the_way_there_and_back_and_the_clock() -> None:
    fine = list(judge_bus(BusFacts(round_trip_ms=1.5, clock=(0.01, 0.01)), 3))
    assert levels(fine) == [Level.OK, Level.OK]
    slow = list(judge_bus(BusFacts(round_trip_ms=400.0, clock=(600.0, 0.01)), 3))
    assert levels(slow) == [Level.WARNING, Level.WRONG]
    assert "600.0 s ahead of that of the NATS server" in slow[1].says


def test_a_bucket_has_as_many_replicas_as_there_are_servers_up_to_three() -> None:
    assert judge_bucket(BucketFacts(name="b", replicas=3, leader="n1"), 3).level is Level.OK
    assert judge_bucket(BucketFacts(name="b", replicas=1), 1).level is Level.OK
    few = judge_bucket(BucketFacts(name="b", replicas=1), 5)
    assert few.level is Level.WARNING
    assert few.remedy == "nats stream update KV_b --replicas 3"
    lagging = judge_bucket(BucketFacts(name="b", replicas=3, leader="n1", lagging=(LaggingCopy("n2"),)), 3)
    assert (lagging.level, lagging.says) == (Level.WARNING, "The bucket b is not up to date at n2.")
    assert "restart that nats-server" in lagging.remedy
    assert judge_bucket(BucketFacts(name="b", fault="stream not found"), 3).level is Level.OK
    assert judge_bucket(BucketFacts(name="b", fault="no reply"), 3).level is Level.WRONG


def test_the_servers_are_shown_and_their_credentials_are_not() -> None:
    environ = {"WATCHOUT_BUS": "nats://user:canary%2Fone@a:4222, canary-token@b"}
    text = "nats://a:4222 nats://b canary%2Fone canary/one canary-token"
    from watchout.ctl.doctor.findings import ok

    assert scrubbed(ok("bus", text), secrets_of(environ)).says == "nats://a:4222 nats://b … … …"
