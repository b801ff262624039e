"""The way back to the NATS server of the own host, with real servers: when it is gone, and that no message is lost."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest

from tests.kit.clients import eventually
from tests.kit.nats_servers import NatsServer, NatsSite, make_site
from watchout.common.bus.nats import dialing, homeward, return_plan
from watchout.common.bus.nats.connection import NatsConnection, connection_of
from watchout.common.bus.nats.line import Line
from watchout.common.settings import Settings, load

COMES_S: Final = 30
#: The addresses of the three hosts, all of loopback; the processes of this test are on the first one.
HOSTS: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture(scope="module")
def site() -> Iterator[NatsSite]:
    """Three servers on hosts of their own."""
    made = make_site(3, jetstream=False, hosts=HOSTS)
    made.start()
    yield made
    made.remove()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_is_here", lambda address: address == HOSTS[0])
    monkeypatch.setattr(return_plan, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(return_plan, "MOST_PAUSE_S", 0.4)
    monkeypatch.setattr(homeward, "CHECKS", 3)
    monkeypatch.setattr(homeward, "CHECK_EVERY_S", 0.1)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., NatsConnection]]:
    made: list[NatsConnection] = []

    def open_one(wanted: Settings, purpose: str = "member") -> NatsConnection:
        made.append(connection_of(wanted, purpose))
        return made[-1]

    yield open_one
    for each in made:
        each.close()
        await each.ended()


def settings(*servers: NatsServer) -> Settings:
    return load({"WATCHOUT_BUS": ",".join(each.url for each in servers), "CLUSTER_NAME": f"t{secrets.token_hex(4)}"})


def uses(each: NatsConnection, server: NatsServer) -> Any:
    return eventually(
        lambda: each.connected and each.server == server.url, COMES_S,
        f"{each.server or each.explain()} is used, expected {server.url}",
    )  # fmt: skip


async def away_from_home(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> tuple[NatsConnection, NatsConnection]:
    """Return a connection whose own server was killed, and one of another process to the second server."""
    own, second, third = site.servers
    wanted = settings(own, second, third)
    await asyncio.to_thread(own.kill)
    each = connect(wanted)
    await eventually(lambda: each.connected, COMES_S)
    other = connect(replace(wanted, bus=load({"WATCHOUT_BUS": second.url}).bus), "router")
    await eventually(lambda: other.connected, COMES_S)
    return each, other


async def test_the_way_back_loses_no_message_and_repeats_none(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    own, second, third = site.servers
    wanted = settings(own, second, third)
    each = connect(wanted)
    await uses(each, own)
    await asyncio.to_thread(own.kill)
    await eventually(lambda: each.connected and each.server != own.url, COMES_S, "it stays with a dead server")
    others = [
        connect(replace(wanted, bus=load({"WATCHOUT_BUS": url}).bus), "router") for url in (second.url, third.url)
    ]  # fmt: skip
    for other in others:
        await eventually(lambda other=other: other.connected, COMES_S)
    heard: list[list[bytes]] = [[], [], []]
    sent: list[list[bytes]] = [[], [], []]
    each.subscribe("to.it.*", lambda message: heard[int(message.subject[-1])].append(message.data))
    for other in others:
        other.subscribe("from.it", lambda message: heard[2].append(message.data))
    await asyncio.sleep(0.3)
    over = False

    async def talk(index: int, by: NatsConnection, subject: str) -> None:
        for number in itertools.count():
            if over:
                return
            if by.publish(subject, b"%d" % number):
                sent[index].append(b"%d" % number)
            await asyncio.sleep(0.001)

    talking = [
        asyncio.create_task(talk(0, others[0], "to.it.0")), asyncio.create_task(talk(1, others[1], "to.it.1")),
        asyncio.create_task(talk(2, each, "from.it")),
    ]  # fmt: skip
    await eventually(lambda: all(heard), COMES_S, "messages do not come")
    await asyncio.to_thread(site.start)
    await uses(each, own)
    await asyncio.sleep(homeward.LINGER_S + 0.3)
    over = True
    await asyncio.gather(*talking)
    for index in (0, 1):
        await eventually(lambda index=index: heard[index][-1:] == sent[index][-1:], COMES_S, "the last did not come")
        assert heard[index] == sent[index]
    await eventually(lambda: len(heard[2]) >= 2 * len(sent[2]), COMES_S)
    assert sorted(heard[2], key=int) == [number for number in sent[2] for _ in others]
    assert each.dropped == 0
    assert len(each._subscriptions._all) == 1
    assert all(len(subscription.at) == 1 for subscription in each._subscriptions._all), "the former one is forgotten"


async def test_what_is_subscribed_on_the_way_back_gets_each_message_once_and_in_order(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    """A router that takes a slot over subscribes at any moment: a request that comes twice is carried out twice."""
    own = site.servers[0]
    each, other = await away_from_home(site, connect)
    heard: list[list[int]] = []
    over = False

    async def talk() -> None:
        for number in itertools.count():
            if over:
                return
            other.publish("to.it", b"%d" % number)
            await asyncio.sleep(0.001)

    async def subscribe_again_and_again() -> None:
        for pause_s in itertools.cycle((0.01, 0.05, 0.2, 1.5)):
            if over:
                return
            heard.append([])
            each.subscribe("to.it", lambda message, mine=heard[-1]: mine.append(int(message.data)))
            await asyncio.sleep(pause_s)

    talking = [asyncio.create_task(talk()), asyncio.create_task(subscribe_again_and_again())]
    await asyncio.to_thread(site.start)
    await uses(each, own)
    await asyncio.sleep(homeward.LINGER_S + 0.3)
    over = True
    await asyncio.gather(*talking)
    await eventually(lambda: len({mine[-1] for mine in heard if mine}) == 1, COMES_S, "not all have the last one")
    assert len([mine for mine in heard if mine]) > 5
    for mine in heard:
        assert mine == list(range(mine[0], mine[-1] + 1) if mine else ())


async def test_an_own_server_that_denies_what_the_used_one_permits_is_not_gone_back_to(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    own = site.servers[0]
    each, _ = await away_from_home(site, connect)
    each.subscribe("to.it", lambda _: None)
    permissive, rights = own.config, '{ subscribe: { deny: "to.it" } }'
    own.config = f"authorization {{ users: [ {{ user: u, password: p, permissions: {rights} }} ] }}\nno_auth_user: u"
    try:
        await asyncio.to_thread(site.start)
        before = each._homeward.plan.failures
        await eventually(lambda: each._homeward.plan.failures >= before + 2, COMES_S, "it does not try")
        assert each.server != own.url
    finally:
        own.reload(permissive)
    await uses(each, own)


async def test_requests_under_way_are_answered_over_the_former_connection(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    own = site.servers[0]
    each, answering = await away_from_home(site, connect)
    answering.subscribe("ask", lambda message: answering.publish(message.reply, message.data))
    await asyncio.to_thread(site.start)
    answered = 0
    while each.server != own.url or answered < 50:
        assert each.client is not None
        reply = await each.client.request("ask", b"%d" % answered, timeout=COMES_S)
        assert reply.data == b"%d" % answered
        answered += 1


async def test_a_process_that_ends_at_the_moment_of_the_change_leaves_no_connection_open(
    site: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    """The former connection has no task of its own then."""
    each, _ = await away_from_home(site, connect)
    former = each._line
    assert former is not None

    def take(line: Line) -> None:
        each._take(line)
        each._keeping.cancel()

    each._homeward._take = take
    await asyncio.to_thread(site.start)
    await asyncio.wait({each._keeping}, timeout=COMES_S)
    assert each._keeping.cancelled()
    assert former.client._transport._io_writer.is_closing()


async def test_a_server_that_is_cut_off_from_the_others_is_not_gone_back_to(
    start_nats: Callable[..., NatsSite],
    site: NatsSite,
    connect: Callable[..., NatsConnection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers, and has no connection to the servers that the others use."""
    host = "127.0.0.4"
    monkeypatch.setattr(dialing, "_is_here", lambda address: address == host)
    alone = start_nats(1, jetstream=False, hosts=(host,))
    others = [connect(settings(alone.servers[0], *site.servers[1:]), purpose) for purpose in ("member", "router")]
    for each in others:
        await uses(each, alone.servers[0])
        each.leave_server()
        await eventually(lambda each=each: each.connected and each.server != alone.url, COMES_S)
    await eventually(
        lambda: all(each._homeward.plan.failures >= 2 for each in others), COMES_S, "it was not tried"
    )  # fmt: skip
    assert all(each.connected and each.server != alone.url for each in others)


async def test_a_server_that_ends_while_it_is_tried_changes_nothing(
    site: NatsSite, connect: Callable[..., NatsConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homeward, "CHECKS", 1000)
    own, *others = site.servers
    await asyncio.to_thread(own.kill)
    each = connect(settings(own, *others))
    await eventually(lambda: each.connected, COMES_S)
    line = each._line
    await asyncio.to_thread(site.start)
    await eventually(lambda: own.monitor("/varz")[1]["connections"] > 0, COMES_S, "it is not tried")
    failures = each._homeward.plan.failures
    await asyncio.to_thread(own.kill)
    await eventually(lambda: each._homeward.plan.failures > failures, COMES_S)
    assert each._line is line
    assert each.connected
    await asyncio.to_thread(site.start)
