"""Leases over real NATS servers that fail: no slot is lost without need, and none has two routers that count."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgpack
import msgspec
import pytest
from nats.errors import Error as NatsError

from tests.kit.clients import eventually
from tests.kit.nats_servers import JETSTREAM, NatsServer, NatsSite, make_site
from tests.kit.nats_slots import COMES_S, SHARED_S, SlotHouse, Word, stream_of
from tests.kit.processes import Watchout
from watchout.common.bus import membership
from watchout.common.bus.messages import (
    Claim,
    CreateShare,
    EndShare,
    PublicationState,
    Query,
    QueryReply,
    RefusedReply,
    Rejoin,
    encode,
)
from watchout.common.bus.messages.fields import MAX_EPOCH
from watchout.common.bus.nats import connection, dialing
from watchout.common.bus.nats.kv import NatsClusterLink, NatsKeyValue
from watchout.common.bus.slots import slot_of
from watchout.common.errors import RouterUnavailable, StartError
from watchout.ctl.doctor.checks.ports import check_ports
from watchout.ctl.doctor.checks.processes import probe_processes
from watchout.router import handler
from watchout.router.slots import bucket_copies, bucket_leaders, cluster, keeper
from watchout.router.slots.cluster import ClusterRouter
from watchout.router.slots.keeper import SlotKeeper
from watchout.router.slots.kv_records import KvRecords
from watchout.router.slots.lease import RENEW_S, REQUEST_S, RETRY_S, STEP_DOWN_S

#: After a fault there is one truth again within this, on a machine that has more to do.
HEALED_S: Final = 60.0
#: A lease outlives the time in which the store takes no writes, if that is shorter: its last write may be as old as
#: `RENEW_S`, and of the next one it is known after `REQUEST_S` only that it failed.
OUTLIVES_S: Final = STEP_DOWN_S - RENEW_S - REQUEST_S - RETRY_S


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsSite]:
    made = make_site(3)
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def house(nats: NatsSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlotHouse]:
    """Two slots; the test adds routers. All servers run again after it.

    The servers are of this machine, and count as servers elsewhere: who has which slot does not depend on the leader.
    """
    monkeypatch.setattr(dialing, "_is_here", lambda _address: False)
    made = SlotHouse(nats, tmp_path)
    yield made
    await made.close()
    made.assert_epochs_never_fell()
    await asyncio.to_thread(nats.start)


async def shared(house: SlotHouse, routers: int = 2) -> None:
    """Start routers and the member, and wait until each router has its part of the slots."""
    await house.add_member()
    for _ in range(routers):
        await house.add_router()
    await house.whole()
    await eventually(
        lambda: sorted(len(house.keeper(each).held) for each in house.routers) == [1, 1], SHARED_S,
        "the slots are not shared",
    )  # fmt: skip

    def obeyed() -> bool:
        keepers = [house.keeper(each) for each in house.routers]
        epochs = [
            each._machine.slots[slot].epoch for slot in range(house.slots) for each in keepers if slot in each.held
        ]
        return house.member.missing == () and house.epochs() == epochs

    await eventually(obeyed, COMES_S, "the member obeys others than those who have the slots")


def told(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.2f} s")


async def renewed(house: SlotHouse, slots: range, within_s: float) -> None:
    """Wait until the lease of each slot was written anew from now on."""
    since = time.monotonic()

    def fresh() -> bool:
        ages = [
            house.keeper(each).renewed_ago_s(slot) for slot in slots for each in house.holders()[slot]
        ]  # fmt: skip
        return len(ages) == len(slots) and max(ages) < time.monotonic() - since

    await eventually(fresh, within_s, "a lease is not renewed")


class Writing:
    """Writes to the store all the time while the block lasts; `longest_s` is the longest time in which it took none.

    The servers elect a new leader within 4 to 9 s, and if that fails once again: leases outlive the first, not always
    the second.
    """

    def __init__(self, house: SlotHouse) -> None:
        self._house = house
        self.longest_s, self._written_at = 0.0, time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._ends = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._ends = True  # a reply that comes with the cancellation may swallow that
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_outlived(self) -> bool:
        """Whether leases outlive the longest time."""
        return self.longest_s < OUTLIVES_S

    async def again(self) -> None:
        """Wait until it takes writes."""
        since = time.monotonic()
        await eventually(lambda: self._written_at > since, COMES_S, "the store takes no writes")

    async def _write(self) -> None:
        while not self._ends:
            asked_at = time.monotonic()
            with contextlib.suppress(Exception):
                await self._house.jetstream().publish(f"$KV.{self._house.name}-slots.test", b"", timeout=0.5)
                self.longest_s = max(self.longest_s, time.monotonic() - self._written_at)
                self._written_at = asked_at
            await asyncio.sleep(0.1)


async def test_a_killed_leader_of_the_store_costs_no_lease(house: SlotHouse, nats: NatsSite) -> None:
    await shared(house)
    epochs = house.epochs()
    async with Writing(house) as store:
        await store.again()
        await asyncio.to_thread((await house.leader()).kill)
        killed = time.monotonic()
        told("claims after the store's leader was killed", await house.claims(HEALED_S))
        await store.again()
        told("the store takes writes after its leader was killed", time.monotonic() - killed)
        await renewed(house, range(house.slots), HEALED_S)
        told("leases are written again after the store's leader was killed", time.monotonic() - killed)
    if store.is_outlived:
        assert house.lost() == 0
        assert house.epochs() == epochs
    await asyncio.to_thread(nats.start)


def server_of(router: ClusterRouter) -> str:
    """The name of the NATS server that a router uses; empty: none."""
    assert isinstance(router._link, NatsClusterLink)
    client = router._link._connection.client
    return "" if client is None else client.server_name


async def test_the_slots_are_where_the_leader_of_the_store_is_not(
    house: SlotHouse, nats: NatsSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each router uses a server of its own, which counts as the one of its host; after its loss another one does."""
    monkeypatch.setattr(dialing, "_is_here", lambda _address: True)
    await house.add_member()
    for server in nats.servers:
        await house.add_router(WATCHOUT_BUS=server.url)
    await house.whole()

    async def are_elsewhere() -> bool:
        with contextlib.suppress(NatsError):  # there may be no leader now
            leader = (await house.leader()).name
            at_leader = [each for each in house.routers if server_of(each) == leader]
            holders = [each for each in house.routers if house.keeper(each).held]
            return len(holders) > 0 and not any(each in at_leader for each in holders) and house.member.missing == ()
        return False

    await eventually(are_elsewhere, SHARED_S, "a slot is where the leader of the store is")
    await asyncio.to_thread((await house.leader()).kill)
    await house.claims(HEALED_S)
    await asyncio.to_thread(nats.start)
    await eventually(are_elsewhere, SHARED_S, "a slot is where the leader of the store has moved to")


async def test_one_server_leads_both_buckets(house: SlotHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LEADERS_EVERY_S", 0.5)
    for wait in ("AGAIN_S", "AGAIN_AFTER_FAULTS_S"):
        monkeypatch.setattr(bucket_leaders, wait, 1.0)
    moves: list[str] = []
    move = NatsKeyValue.move_leader

    async def counted(bucket: NatsKeyValue, server: str) -> None:
        await move(bucket, server)
        moves.append(server)

    monkeypatch.setattr(NatsKeyValue, "move_leader", counted)
    await shared(house)

    async def is_one() -> bool:
        with contextlib.suppress(NatsError, ValueError):  # there may be no leader now
            return await house.leader("slots") is await house.leader("records")
        return False

    await eventually(is_one, COMES_S, "two servers lead the buckets")
    for bucket in ("records", "slots"):
        before = len(moves)
        async with Writing(house) as store:
            await house.move_leader(bucket)
            await eventually(lambda before=before: len(moves) > before, COMES_S, "nothing is moved back")
            await eventually(is_one, COMES_S, "two servers lead the buckets")
        if store.is_outlived:
            assert house.lost() == 0


async def test_buckets_with_one_copy_get_all_of_them(house: SlotHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that were made while the other servers were away."""
    monkeypatch.setattr(cluster, "LEADERS_EVERY_S", 0.5)
    for wait in ("LOOK_EVERY_S", "AGAIN_S"):
        monkeypatch.setattr(bucket_copies, wait, 1.0)
    await shared(house)

    async def has_three(bucket: str) -> bool:
        with contextlib.suppress(NatsError, ValueError):  # there may be no leader now
            return (await house.jetstream().stream_info(f"KV_{house.name}-{bucket}")).config.num_replicas == 3
        return False

    for bucket in ("slots", "records"):
        async with Writing(house) as store:
            found = await house.jetstream().stream_info(f"KV_{house.name}-{bucket}")
            await house.jetstream().update_stream(found.config.evolve(num_replicas=1))
            await eventually(lambda bucket=bucket: has_three(bucket), COMES_S, "copies are lacking")
        if store.is_outlived:
            assert house.lost() == 0


async def ended(server: NatsServer) -> None:
    """Lame duck mode, until all clients have left, and the end."""
    server.signal(signal.SIGUSR2)
    await eventually(lambda: asyncio.to_thread(server.is_left), COMES_S, "clients stay")
    await asyncio.to_thread(server.stop)


async def test_a_router_whose_subject_is_denied_does_not_keep_its_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leases would go on, as it can write them; no member could reach it."""
    monkeypatch.setattr(connection, "FIRST_DENIED_S", 0.2)
    monkeypatch.setattr(keeper, "UNREACHED_S", 0.2)

    def users(first: str) -> str:
        rights = (f'publish: [">"], subscribe: [{each}]' for each in (first, '">"'))
        users = (f"{{ user: u{n}, password: p, permissions: {{ {each} }} }}" for n, each in enumerate(rights))
        return f"{JETSTREAM}\nauthorization {{ users: [ {', '.join(users)} ] }}\nno_auth_user: u1\n"

    nats = make_site(1, users('">"'), jetstream=False)
    house = SlotHouse(nats, tmp_path)
    try:
        nats.start()
        await house.add_member()
        first = await house.add_router(WATCHOUT_BUS=nats.url_of("u0", "p"))
        await house.whole()
        assert set(house.keeper(first).held) == {0, 1}
        second = await house.add_router()
        some = ", ".join(f'"{house.name}.{each}"' for each in ("inbox.>", "slots"))
        nats.servers[0].reload(users(some))
        await eventually(lambda: len(house.keeper(second).held) == 2, COMES_S, "the other one does not take over")
        await house.claims()
        nats.servers[0].reload(users('">"'))
        await house.keeper(second).leave()
        await eventually(lambda: len(house.keeper(first).held) == 2, HEALED_S, "it stays away")
        await house.claims()
    finally:
        await house.close()
        nats.remove()


async def test_a_rolling_restart_costs_no_lease(house: SlotHouse, nats: NatsSite) -> None:
    await shared(house)
    epochs = house.epochs()
    async with Writing(house) as store:
        for server in nats.servers:
            await ended(server)
            await asyncio.to_thread(nats.start)
            await renewed(house, range(house.slots), HEALED_S)
            await house.claims(HEALED_S)
    if store.is_outlived:
        assert house.lost() == 0
        assert house.epochs() == epochs


@pytest.mark.parametrize("how", ["delete_stream", "purge_stream"])
async def test_a_lost_store_is_written_anew_and_nobody_loses_a_slot(house: SlotHouse, how: str) -> None:
    await shared(house)
    epochs, entries = house.epochs(), [await house.entry(slot) for slot in range(house.slots)]
    await getattr(house.jetstream(), how)(f"KV_{house.name}-slots")
    began = time.monotonic()

    async def whole() -> bool:
        return [await house.entry(slot) for slot in range(house.slots)] == entries

    await eventually(whole, HEALED_S, "the entries are not written again")
    told(f"entries are written again after {how}", time.monotonic() - began)
    await renewed(house, range(house.slots), HEALED_S)

    async def shape() -> bool:
        with contextlib.suppress(Exception):
            return bool(
                await house.jetstream().get_last_msg(f"KV_{house.name}-slots", f"$KV.{house.name}-slots.cluster")
            )
        return False

    await eventually(shape, HEALED_S, "the number of slots is not written again")
    assert house.lost() == 0
    assert house.epochs() == epochs


async def test_a_store_that_is_lost_together_with_a_router_leads_to_a_later_epoch(house: SlotHouse) -> None:
    await shared(house)
    before = house.epochs()
    (victim,) = house.holders()[0]
    await house.jetstream().delete_stream(f"KV_{house.name}-slots")
    link, victim._link = victim._link, None
    assert link is not None
    house.routers.remove(victim)
    link.close()
    await victim.stop()
    told("claims after the store and a router were lost", await house.claims(HEALED_S))
    assert house.epochs()[0] > before[0]
    assert house.epochs()[1] == before[1]


async def test_a_slot_is_served_as_soon_as_all_have_reported(house: SlotHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for which its new router would wait otherwise is an hour here."""
    await shared(house)
    (victim,) = house.holders()[0]
    (other,) = house.holders()[1]
    loop = asyncio.get_running_loop()
    await eventually(lambda: any(each.reporters(loop.time()).is_certain for each in other._routers), COMES_S)
    monkeypatch.setattr(handler, "SYNC_GRACE_S", 3600.0)
    link, victim._link = victim._link, None
    assert link is not None
    house.routers.remove(victim)
    link.close()
    await victim.stop()
    told("claims after a router was lost", await house.claims())


async def test_lost_records_are_written_again(house: SlotHouse) -> None:
    await house.add_member()
    first = await house.add_router()
    await house.whole()
    stream = stream_of(0, house.slots)
    await house.claims()
    reply = await house.member.of(stream).request(
        lambda number: CreateShare(
            request=number, id="a" * 22, stream=stream, user="somebody", seconds=3600, alerts=True
        ), COMES_S,
    )  # fmt: skip
    assert isinstance(reply, QueryReply)
    await house.jetstream().delete_stream(f"KV_{house.name}-records")
    began = time.monotonic()

    async def there() -> bool:
        return "a" * 22 in await KvRecords(first._records, "shares", 0, 1, "shares").load()

    await eventually(there, COMES_S, "the share is not written again")
    told("records are written again after their bucket was deleted", time.monotonic() - began)


async def test_without_any_server_routers_step_down_and_are_back_with_the_servers(
    house: SlotHouse, nats: NatsSite
) -> None:
    await shared(house)
    before = house.epochs()
    killed = time.monotonic()
    for server in nats.servers:
        await asyncio.to_thread(server.kill)
    with pytest.raises(AssertionError, match="no claim of slot 0"):
        await house.claim(0, 1.0)
    await eventually(lambda: not any(house.holders().values()), COMES_S, "a router keeps its slot")
    told("routers have stepped down after all servers were lost", time.monotonic() - killed)
    assert time.monotonic() - killed > STEP_DOWN_S - 3
    since = len(house.words)
    await asyncio.to_thread(nats.start)
    told("claims after all servers are there again", await house.claims(HEALED_S))
    assert all(later > former for later, former in zip(house.epochs(), before, strict=True))
    old = [word for word in house.words[since:] if word.epoch <= before[word.slot]]
    assert not old, "a router that has stepped down said something"


async def test_without_jetstream_a_router_waits_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start_nats: Callable[..., NatsSite]
) -> None:
    site = start_nats(1, jetstream=False)
    house = SlotHouse(site, tmp_path)
    said = ""
    try:
        await house.add_member()
        await house.add_router()

        def says() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return "JetStream is not there: enable `jetstream` on the NATS servers" in said

        await eventually(says, 2 * COMES_S, "a reason that was said first is said again after a minute")
        assert "the key-value store of the cluster cannot be used" in said
        assert not any(house.holders().values())
        await asyncio.to_thread(site.servers[0].stop)
        site.servers[0].config = 'jetstream { store_dir: "$FOLDER/js" }'
        await asyncio.to_thread(site.start)
        told("claims after JetStream is there", await house.claims())
    finally:
        await house.close()


async def test_another_number_of_slots_is_refused(house: SlotHouse) -> None:
    await house.add_router()
    with pytest.raises(StartError, match="CLUSTER_SLOTS is 3 here, and the other routers of this site have 2"):
        await house.add_router(CLUSTER_SLOTS="3")


async def test_a_member_with_another_number_of_slots_is_told_and_gets_no_stream(
    house: SlotHouse, tmp_path: Path
) -> None:
    await house.add_router()
    await house.add_member()
    await house.whole()
    other = SlotHouse(house.nats, tmp_path / "other", slots=3, name=house.name)
    try:
        links = await other.add_member()
        await eventually(links.explain_slots, COMES_S, "nobody told it")
        assert "CLUSTER_SLOTS is 3 here, and the routers have 2" in links.explain_absence()
        with pytest.raises(RouterUnavailable):
            await links.of("cam").request(lambda n: Claim(request=n, stream="cam", user="mallory"), 0.5)
        assert links.missing == (0, 1, 2)
        settings = other.settings()
        found = [each.sentence for each in await check_ports(settings)]
        assert any(
            text.startswith("CLUSTER_SLOTS is 3 here, and the routers have 2: expected the same number")
            for text in found
        ), found
        told = {each.name: each.other_slots for each in await probe_processes(house.settings()) or ()}
        assert told["member"] == 3
    finally:
        await other.close()


async def test_shares_and_owners_are_found_after_the_number_of_slots_was_changed(
    house: SlotHouse, tmp_path: Path
) -> None:
    """As docs/settings.md says it: all processes end, the bucket of the leases is deleted, and all start again."""
    routers = [await house.add_router(), await house.add_router()]
    await house.add_member()
    await house.whole()
    stream = stream_of(1, 2)
    while slot_of(stream, 3) == 1:
        stream = stream_of(1, 2)
    share = CreateShare(request=1, id="a" * 22, stream=stream, user="ann", seconds=3600, alerts=True)
    await house.member.of(stream).request(lambda n: Claim(request=n, stream=stream, user="ann"), COMES_S)
    await house.member.of(stream).request(lambda n: msgspec.structs.replace(share, request=n), COMES_S)
    for router in routers:
        await router.drain()
        await router.stop()
    house.routers.clear()
    await house.jetstream().delete_stream(f"KV_{house.name}-slots")
    other = SlotHouse(house.nats, tmp_path / "other", slots=3, name=house.name)
    try:
        for _ in range(2):
            await other.add_router()
        await other.add_member()
        await other.whole()
        link = other.member.of(stream)

        async def found(kind: type[Any], make: Callable[[int], Any]) -> Any:
            replies: list[Any] = []

            async def comes() -> bool:
                with contextlib.suppress(RouterUnavailable):
                    replies.append(await link.request(make, COMES_S))
                return bool(replies) and isinstance(replies[-1], kind) and "try again" not in str(replies[-1])

            await eventually(comes, COMES_S, "the records are not loaded")
            return replies[-1]

        shares = await found(QueryReply, lambda n: Query(request=n, what="shares", stream=stream, user="ann"))
        assert [row[:3] for row in shares.body] == [["a" * 22, stream, "ann"]]
        refused = await found(RefusedReply, lambda n: Claim(request=n, stream=stream, user="mallory"))
        assert refused.code == "UNAUTHORIZED"
        ended = await found(QueryReply, lambda n: EndShare(request=n, id="a" * 22, stream=stream, user="ann"))
        assert ended.body == "a" * 22
        asked = await other.member.ask_all(lambda _, n: Query(request=n, what="shares", ids=("a" * 22,)), object)
        assert not any(asked.by_slot.values()), "no router has another copy"
    finally:
        await other.close()


async def test_numbers_that_no_router_can_have_stop_no_slot_for_good(
    house: SlotHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "FORGOTTEN_AFTER_S", 3.0)
    await house.add_member()
    await house.add_router()
    await house.whole()
    version, _, seq, rejoin = msgpack.unpackb(encode(1, 0, Rejoin()))
    for epoch in (MAX_EPOCH, 2**64 - 1):
        house.say(0, msgpack.packb([version, epoch, seq, rejoin]))
    link = house.member.at(0)
    await eventually(lambda: link.bad_messages >= 2, COMES_S)
    assert house.member.missing == ()
    house.say(0, msgpack.packb([version, MAX_EPOCH - 1, seq, rejoin]))
    await eventually(lambda: house.member.missing == (0,), COMES_S)
    await house.whole()
    state = PublicationState(
        stream=stream_of(0, house.slots), user="somebody", term=2**63 - 1, status="online", producing=True,
        wants_alerts=False, frame_id=1, total_frames=1, fps=1.0, started_at=1,
    )  # fmt: skip
    assert link.send(state)
    await house.claims()


async def test_a_released_slot_is_taken_with_a_later_epoch_whatever_the_clock_says(house: SlotHouse) -> None:
    """The former router had a clock that went ahead by an hour."""
    await house.add_member()
    first = await house.add_router()
    await house.whole()
    later = house.epochs()[0] + 3_600_000
    house.keeper(first).epoch_seen(0, later)
    await eventually(lambda: house.epochs()[0] > later, COMES_S, "it does not begin anew")
    former = house.epochs()[0]
    successor = house.keeper(await house.add_router())
    house.routers.remove(first)
    await first.drain()
    await first.stop()
    await eventually(lambda: house.epochs()[0] > former, COMES_S, "the successor is not obeyed")
    await house.claims()
    assert successor.counts.taken == house.slots, "no member had to tell it of a later epoch"


# ── processes ───────────────────────────────────────────────────────────────────────────────────────


async def server_elsewhere(house: SlotHouse, nats: NatsSite) -> NatsServer:
    """A server that does not lead the bucket of leases: a router process that uses it can have slots.

    To a process each server is one of its host, and on the host of the leader it would have no slot.
    """

    async def found() -> NatsServer | None:
        with contextlib.suppress(NatsError):  # there may be no leader now
            leader = await house.leader()
            return next(server for server in nats.servers if server is not leader)
        return None

    server = await eventually(found, COMES_S, "no server leads the bucket of leases")
    assert isinstance(server, NatsServer)
    return server


async def slot_of_process(house: SlotHouse, spare: SlotKeeper) -> int:
    """Wait until a router process and that of `spare` have one of the two slots each; the slot of the process."""

    async def found() -> list[int]:
        entries = [await house.entry(slot) for slot in range(house.slots)]
        return [
            slot for slot, entry in enumerate(entries)
            if entry is not None and entry.router not in ("", spare._machine.me) and len(spare.held) == 1
        ]  # fmt: skip

    (slot,) = await eventually(found, SHARED_S, "the slots are not shared")
    await house.whole()
    assert isinstance(slot, int)
    return slot


async def test_a_router_that_stood_still_says_nothing_that_counts(
    house: SlotHouse, nats: NatsSite, watchout: Any
) -> None:
    """For 5 s it has its lease still when it goes on, and a successor; for 12 s its lease has run out."""
    await house.add_member()
    spare = house.keeper(await house.add_router())
    await house.whole()
    server = await server_elsewhere(house, nats)
    started: Watchout = watchout(start=False, environ=house.environ([server.url]))
    still = started.start("router")
    for seconds in (5.0, 12.0):
        slot = await slot_of_process(house, spare)
        former = house.epochs()[slot]
        await asyncio.to_thread(still.pause)
        paused = time.monotonic()
        told(f"claims after a router stood still (for {seconds} s)", await house.claim(slot, HEALED_S))
        assert house.epochs()[slot] > former
        successor = house.epochs()[slot]
        await eventually(lambda paused=paused, s=seconds: time.monotonic() - paused >= s, COMES_S)
        resumed = time.monotonic()
        still.resume()
        await house.claim(slot, HEALED_S)

        def old_words(since: float = resumed, slot: int = slot, former: int = former) -> list[Word]:
            return [word for word in house.words if word.at > since and word.slot == slot and word.epoch <= former]

        # One that goes on speaking says something every half second.
        await eventually(
            lambda resumed=resumed, old=old_words: time.monotonic() - max([resumed, *(w.at for w in old())]) > 2.0,
            COMES_S, "it goes on speaking",
        )  # fmt: skip
        late = [word.at - resumed for word in old_words()]
        told(f"old words after {seconds} s of standing still, until", max(late, default=0.0))
        assert house.epochs()[slot] >= successor
        if seconds > STEP_DOWN_S:
            assert not late, "it spoke without its lease"


async def test_a_router_that_is_ended_has_released_its_slots(house: SlotHouse, nats: NatsSite, watchout: Any) -> None:
    await house.add_member()
    spare = house.keeper(await house.add_router())
    await house.whole()
    server = await server_elsewhere(house, nats)
    started: Watchout = watchout(start=False, environ=house.environ([server.url]))
    process = started.start("router")
    slot = await slot_of_process(house, spare)
    former = await house.entry(slot)
    assert former is not None
    ended_at = time.monotonic()
    assert await asyncio.to_thread(process.terminate) == 0
    entry = await house.entry(slot)
    assert entry is not None
    assert entry.router != former.router, "it ended and its slot is its own"
    await eventually(lambda: slot in spare.held, COMES_S)
    await house.claim(slot)
    told("claims after SIGTERM of a router", time.monotonic() - ended_at)
