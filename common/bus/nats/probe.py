"""Looks at the NATS servers of `WATCHOUT_BUS` for `watchout-ctl doctor`: each alone, then what their user may do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from watchout.common.bus.nats import sentences
from watchout.common.bus.nats.dialing import DialCallbacks, DialedClient, Dialer, DialError, close_surely
from watchout.common.bus.nats.subjects import Subjects
from watchout.common.settings import Settings
from watchout.common.settings.bus_servers import BusServer

#: A part of a subject that no slot has: what is sent there disturbs nobody.
NO_SLOT: Final = "doctor"
#: Longest wait for one reply of a server, in seconds.
REPLY_S: Final = 3.0
#: Bytes that are sent to the other connection and back.
ROUND_TRIP_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServerFacts:
    """What one server says of itself; made by `look_at_servers`.

    `name` is the server's URL without credentials. `fault` says why it cannot be used, None if it can; the rest is
    empty then. `server_name` is how JetStream
    calls it, `cluster` the name of its cluster, empty for a server alone. `others` are those that it told of.
    """

    name: str
    fault: str | None = None
    server_name: str = ""
    version: str = ""
    cluster: str = ""
    others: int = 0
    max_payload: int = 0
    encrypted: bool = False
    jetstream: bool = False
    round_trip_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class LaggingCopy:
    """A copy of a bucket that is not current, as the leader sees it; made by `bucket_facts`.

    `silent_s` are the seconds since the leader heard its server, or since it leads if it never did; 0: not known, as
    with NATS that does not tell `leader_since`. `writes` are at least those that it lacks.
    """

    server: str
    silent_s: float = 0.0
    writes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFacts:
    """What is known of one bucket of the site; made by `bucket_facts`. `fault`: it cannot be read, and why.

    `leader` is the server that decides, empty: there is none. `lagging` are the copies that are not current,
    `offline` the servers that are away.
    """

    name: str
    fault: str | None = None
    replicas: int = 0
    leader: str = ""
    lagging: tuple[LaggingCopy, ...] = ()
    offline: tuple[str, ...] = ()


def bucket_facts(name: str, reply: dict[str, Any] | None, fault: str | None) -> BucketFacts:
    """Return what JetStream's reply about a bucket says.

    Args:
        name: The bucket.
        reply: The reply; None: there is none.
        fault: Why there is none.

    """
    fault = fault or error_of(reply or {})
    if fault is not None or reply is None:
        return BucketFacts(name=name, fault=fault or "no reply")
    cluster = reply.get("cluster") or {}
    leads_s = _apart_s(cluster.get("leader_since"), reply.get("ts"))
    others = [each for each in cluster.get("replicas") or () if isinstance(each, dict)]
    return BucketFacts(
        name=name,
        replicas=int((reply.get("config") or {}).get("num_replicas", 1)),
        leader=str(cluster.get("leader", "")),
        lagging=tuple(
            LaggingCopy(str(each.get("name")), int(each.get("active") or 0) / 1e9 or leads_s, int(each.get("lag") or 0))
            for each in others
            if not each.get("current") and not each.get("offline")
        ),
        offline=tuple(str(each.get("name")) for each in others if each.get("offline")),
    )


def _apart_s(earlier: object, later: object) -> float:
    """Return the seconds from one time of a server to another one; 0 for what is none."""
    try:
        return (datetime.fromisoformat(str(later)) - datetime.fromisoformat(str(earlier))).total_seconds()
    except (ValueError, TypeError):  # not both have a time zone
        return 0.0


@dataclass(slots=True, kw_only=True)
class BusFacts:
    """What works between two connections to the bus; made by `look_at_bus`.

    `denied` are sentences on permissions that the user lacks. `round_trip_ms` is the way to the other connection and
    back, None when nothing came. `jetstream` says why JetStream cannot be used, None if it can. `clock` is the offset
    of this machine's clock against a server's and its uncertainty, in seconds, None when no server told its time.
    """

    denied: list[str] = field(default_factory=list)
    round_trip_ms: float | None = None
    jetstream: str | None = None
    buckets: list[BucketFacts] = field(default_factory=list)
    clock: tuple[float, float] | None = None


class DeniedSubjects:
    """Collects what a server denies a connection, in sentences. For one connection or several."""

    def __init__(self) -> None:
        self.denied: dict[str, None] = {}

    async def failed(self, error: Exception) -> None:
        """Note an error of a server, if it is about a permission."""
        found = sentences.of_permission(str(error))
        if found is not None:
            self.denied[sentences.permission(*found)] = None

    async def nothing(self) -> None:
        """Neither the end of the connection nor of the server matters here."""

    @property
    def callbacks(self) -> DialCallbacks:
        """What a `Dialer` calls."""
        return DialCallbacks(self.failed, self.nothing, self.nothing)


async def look_at_servers(settings: Settings) -> list[NatsServerFacts]:
    """Connect to each server of the settings, to all at once.

    Args:
        settings: ``WATCHOUT_BUS`` and ``BUS_*``.

    Returns:
        The facts, in the order of the settings.

    Raises:
        StartError: A file of ``BUS_*`` cannot be used.

    """
    return list(await asyncio.gather(*(_look_at(settings, server) for server in settings.bus)))


async def _look_at(settings: Settings, server: BusServer) -> NatsServerFacts:
    users = [each for each in settings.bus if each.has_credentials]
    alone = server if server.has_credentials or not users else _as(server, users[0])
    dialer = Dialer.of(replace(settings, bus=(alone,)), Subjects(settings.cluster_name).inbox())
    try:
        client, _ = await dialer.dial(DeniedSubjects().callbacks)
    except DialError:
        return NatsServerFacts(name=str(server), fault="; ".join(dialer.failures.values()) or "no address")
    try:
        return await _facts_of(client, str(server))
    except (NatsError, OSError, TimeoutError):
        return NatsServerFacts(name=str(server), fault=f"it does not answer a ping within {REPLY_S:g} s")
    finally:
        await close_surely(client)


def _as(server: BusServer, other: BusServer) -> BusServer:
    """Return the server with the credentials of another one, as a process uses them."""
    return replace(server, user=other.user, password=other.password, token=other.token)


async def _facts_of(client: DialedClient, name: str) -> NatsServerFacts:
    await client.flush(timeout=REPLY_S)  # type: ignore[arg-type]  # it waits for any number of seconds
    began = time.perf_counter()
    await client.flush(timeout=REPLY_S)  # type: ignore[arg-type]
    info = client.greeting
    return NatsServerFacts(
        name=name, server_name=str(info.get("server_name") or ""),
        version=str(info.get("version", "")), cluster=str(info.get("cluster") or ""),
        others=len(client.discovered_servers), max_payload=client.max_payload,
        encrypted=bool(info.get("tls_required")) or name.startswith("wss:"), jetstream=bool(info.get("jetstream")),
        round_trip_ms=(time.perf_counter() - began) * 1000,
    )  # fmt: skip


async def look_at_bus(settings: Settings, buckets: Sequence[str]) -> BusFacts:
    """Send a message as a member does and as a router does, and ask JetStream.

    Args:
        settings: ``WATCHOUT_BUS``, ``BUS_*``, ``CLUSTER_NAME``.
        buckets: Names of the site's KV buckets.

    Returns:
        The facts.

    Raises:
        DialError: No server can be used.
        StartError: A file of ``BUS_*`` cannot be used.

    """
    subjects = Subjects(settings.cluster_name)
    facts, errors = BusFacts(), DeniedSubjects()
    dialer = Dialer.of(settings, subjects.inbox())
    member, _ = await dialer.dial(errors.callbacks)
    try:
        router, _ = await dialer.dial(errors.callbacks)
        try:
            facts.round_trip_ms = await _round_trip(subjects, member, router)
            await _ask_jetstream(router, facts, buckets)
        finally:
            await close_surely(router)
    finally:
        await close_surely(member)
    facts.denied = list(errors.denied)
    return facts


async def _round_trip(subjects: Subjects, member: Client, router: Client) -> float | None:
    """Return the milliseconds of the way from a member to a router and back; None when nothing came in time."""
    name = secrets.token_hex(8)
    to_router, to_member = f"{subjects.cluster}.router.{NO_SLOT}.{name}", f"{subjects.cluster}.member.{name}.{NO_SLOT}"
    came = asyncio.Event()

    async def answer(message: Msg) -> None:
        await router.publish(to_member, message.data)

    async def arrived(_: Msg) -> None:
        came.set()

    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await router.subscribe(f"{subjects.cluster}.router.{NO_SLOT}.*", cb=answer)
        await member.subscribe(to_member, cb=arrived)
        await member.subscribe(f"{subjects.cluster}.members.{NO_SLOT}", cb=arrived)
        await router.publish(f"{subjects.cluster}.slots.{NO_SLOT}", b"")
        for client in (router, member):
            await client.flush(timeout=REPLY_S)  # type: ignore[arg-type]
        async with asyncio.timeout(REPLY_S):
            while not came.is_set():  # on a cluster the other server may learn of the subscription a moment later
                began = time.perf_counter()
                await member.publish(to_router, b"\0" * ROUND_TRIP_BYTES)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REPLY_S / 6):
                        await came.wait()
        return (time.perf_counter() - began) * 1000
    return None


async def _ask_jetstream(client: Client, facts: BusFacts, buckets: Sequence[str]) -> None:
    """Add whether JetStream can be used, its buckets, and the clock of the server that answers."""
    found, facts.jetstream = await ask(client, "$JS.API.INFO")
    if found is None:
        return
    if (error := error_of(found)) is not None:
        facts.jetstream = error
        return
    for name in buckets:
        before_s = time.time()
        found, fault = await ask(client, f"$JS.API.STREAM.INFO.KV_{name}")
        after_s = time.time()
        facts.buckets.append(bucket_facts(name, found, fault))
        if found is None or facts.buckets[-1].fault is not None:
            continue
        await _try_to_write(client, name)
        with contextlib.suppress(ValueError):
            at_s = datetime.fromisoformat(str(found.get("ts", ""))).timestamp()
            facts.clock = (before_s + after_s) / 2 - at_s, (after_s - before_s) / 2


async def _try_to_write(client: Client, bucket: str) -> None:
    """Let the server say whether the user may write to a bucket, read a key, and make the bucket; nothing is changed.

    The write expects a revision that no key has, and what would make the bucket has the name of another one.
    """
    write = {"Nats-Expected-Last-Subject-Sequence": str(2**40)}
    with contextlib.suppress(NatsError, TimeoutError):
        await client.request(f"$KV.{bucket}.{NO_SLOT}", b"", timeout=REPLY_S / 6, headers=write)
    for what in ("MSG.GET", "CREATE", "UPDATE"):
        with contextlib.suppress(NatsError, TimeoutError):
            await client.request(f"$JS.API.STREAM.{what}.KV_{bucket}", b'{"name":"-"}', timeout=REPLY_S / 6)


async def ask(client: Client, subject: str, body: bytes = b"") -> tuple[dict[str, Any] | None, str | None]:
    """Ask JetStream.

    Args:
        client: A connection.
        subject: What is asked, ``$JS.API.…``.
        body: The request.

    Returns:
        The reply, or None and why there is none.

    """
    try:
        reply = await client.request(subject, body, timeout=REPLY_S)
        found = json.loads(reply.data)
    except NoRespondersError:
        return None, sentences.no_jetstream()
    except (NatsError, TimeoutError):
        why = "the user may not ask it, or the cluster has no leader"
        return None, f"no reply within {REPLY_S:g} s: {why}, {sentences.FULL_DISK}"
    except ValueError:
        return None, "its reply cannot be read"
    return (found, None) if isinstance(found, dict) else (None, "its reply cannot be read")


def error_of(reply: dict[str, Any]) -> str | None:
    """Return the error that a reply of JetStream is, None for another reply.

    Args:
        reply: The reply.

    """
    error = reply.get("error")
    return str(error.get("description", "an error"))[:200] if isinstance(error, dict) else None
