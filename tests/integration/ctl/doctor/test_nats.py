"""The doctor and real NATS servers: a cluster, a server alone, a user who may too little, and one that is refused."""

from __future__ import annotations

from collections.abc import Callable

from tests.kit.doctor_report import Doctor, line, lines
from tests.kit.nats_servers import NatsServer, NatsSite


async def test_a_cluster_is_fine(doctor: Doctor, nats_cluster: NatsSite) -> None:
    ended = await doctor(WATCHOUT_BUS=nats_cluster.url)
    assert len([text for text in lines(ended, "bus", "ok") if "of the cluster test replies within" in text]) == 3
    assert line(ended, "bus", "ok", "A message over NATS and its reply took")
    assert line(ended, "bus", "ok", "the bucket watchout-slots is made when a router starts")
    assert lines(ended, "bus", "warning") == lines(ended, "bus", "wrong") == []


async def test_what_a_user_may_not_do_and_servers_that_are_not_there_are_named(
    doctor: Doctor, start_nats: Callable[..., NatsSite]
) -> None:
    narrow = '{ publish: "watchout.>", subscribe: "watchout.member.>" }'
    users = f'{{user: "a", password: "canary-word", permissions: {narrow}}}'
    site = start_nats(1, f"authorization {{ users: [ {users} ] }}")
    closed = NatsServer("none").port
    ended = await doctor(WATCHOUT_BUS=f"{site.url_of('a', 'canary-word')},127.0.0.1:{closed}")
    assert line(ended, "bus", "warning", f"nats://127.0.0.1:{closed} cannot be used: Connection refused.")
    assert line(ended, "bus", "warning", "NATS has 1 of 3 servers")
    assert line(ended, "bus", "wrong", "not to subscribe to watchout.router.doctor.*")
    assert line(ended, "bus", "wrong", "A message to another connection, and its reply, did not come")
    assert line(ended, "bus", "wrong", "JetStream cannot be used")
    refused = await doctor(WATCHOUT_BUS=site.url_of("a", "canary-other"))
    assert "refuses the user of this process" in line(refused, "bus", "wrong", site.url)
    assert "canary" not in ended.out + refused.out
