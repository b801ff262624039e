"""Check of the bus over NATS: each server, the user's permissions, the way there and back, JetStream, and clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.clocks import judge_clock
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from watchout.common.bus.nats.probe import BucketFacts, BusFacts, NatsServerFacts

#: A round trip from which the bus is slow, in milliseconds: claims and alerts take several.
SLOW_MS: Final = 250.0
#: Servers from which one may be lost and JetStream still has a majority.
ENOUGH_SERVERS: Final = 3
#: Ends of the names of the site's buckets.
BUCKETS: Final = ("slots", "records")
_PERMISSIONS: Final = 'Give the user the permissions of docs/bus.md, "Permissions of the NATS user".'


async def check_nats_bus(settings: Settings) -> Sequence[Finding]:
    """Return the findings on the bus over NATS, none without `WATCHOUT_BUS`."""
    if not settings.bus:
        return []
    try:
        from watchout.common.bus.nats.dialing import DialError
        from watchout.common.bus.nats.probe import look_at_bus, look_at_servers

        servers = await look_at_servers(settings)
        found = list(judge_servers(servers))
        if any(server.fault is None for server in servers):
            try:
                names = [f"{settings.cluster_name}-{end}" for end in BUCKETS]
                facts = await look_at_bus(settings, names)
            except DialError as error:
                found.append(
                    wrong("bus", f"The second connection to NATS was refused: {error}.", "Look at its limits.")
                )
            else:
                found += judge_bus(facts, _size(servers))
    except StartError as error:
        return [wrong("bus", f"No process can use WATCHOUT_BUS: {error}.", "Correct the setting.")]
    return found


CHECK: Final = Check("bus", check_nats_bus)


def _size(servers: Sequence[NatsServerFacts]) -> int:
    """Return how many servers the cluster has, as far as is known."""
    return max((1 + server.others for server in servers if server.fault is None), default=0)


def judge_servers(servers: Sequence[NatsServerFacts]) -> Iterator[Finding]:
    """Yield a finding for each server of `WATCHOUT_BUS`, and whether one of them may be lost."""
    usable = [server for server in servers if server.fault is None]
    for server in servers:
        if server.fault is not None:
            make = warning if usable else wrong
            remedy = "Correct it, or remove the server from WATCHOUT_BUS."
            yield make(
                "bus", f"The NATS server {server.name} cannot be used: {server.fault}.", remedy, server=server.name
            )
            continue
        where = f" of the cluster {server.cluster}" if server.cluster else ""
        how = "encrypted" if server.encrypted else "not encrypted"
        yield ok(
            "bus",
            f"The NATS server {server.name}{where} replies within {server.round_trip_ms:.1f} ms, {how}; "
            f"nats-server {server.version}, max_payload {server.max_payload}.",
            server=server.name, version=server.version, cluster=server.cluster, encrypted=server.encrypted,
            maxPayload=server.max_payload, roundTripMs=round(server.round_trip_ms, 2),
        )  # fmt: skip
    if usable and _size(servers) < ENOUGH_SERVERS:
        yield warning(
            "bus",
            f"NATS has {_size(servers)} of {ENOUGH_SERVERS} servers: when one ends, no stream can be registered until "
            "it is back.",
            "Run a cluster of three NATS servers on three machines.",
            servers=_size(servers),
        )
    if len({server.cluster for server in usable if server.cluster}) > 1:
        names = ", ".join(sorted({server.cluster for server in usable}))
        yield wrong(
            "bus",
            f"The servers of WATCHOUT_BUS are of different clusters: {names}.",
            "Name the servers of one cluster.",
        )


def judge_bus(facts: BusFacts, servers: int) -> Iterator[Finding]:
    """Yield what works between two processes, and the state of JetStream.

    Args:
        facts: what was found.
        servers: how many servers the cluster has.
    """
    for sentence in facts.denied:
        yield wrong("bus", f"{sentence[0].upper()}{sentence[1:].partition(': allow')[0]}.", _PERMISSIONS)
    if facts.round_trip_ms is None:
        yield wrong("bus", "A message to another connection, and its reply, did not come over NATS.", _PERMISSIONS)
    elif facts.round_trip_ms > SLOW_MS:
        yield warning(
            "bus",
            f"A message over NATS and its reply took {facts.round_trip_ms:.0f} ms, expected at most {SLOW_MS:.0f} ms.",
            "Look at the network between the NATS servers, and at their load.",
            roundTripMs=round(facts.round_trip_ms, 1),
        )
    else:
        yield ok(
            "bus",
            f"A message over NATS and its reply took {facts.round_trip_ms:.1f} ms.",
            roundTripMs=round(facts.round_trip_ms, 1),
        )
    if facts.jetstream is not None:
        yield wrong(
            "bus",
            f"JetStream cannot be used: {facts.jetstream}.",
            _PERMISSIONS
            if any("$js.api" in sentence for sentence in facts.denied)
            else "Enable it on every NATS server (`jetstream { store_dir: … }`): it holds who serves which slot.",
        )
    else:
        for bucket in facts.buckets:
            yield judge_bucket(bucket, servers)
    if facts.clock is not None:
        yield judge_clock("the NATS server", *facts.clock)


def judge_bucket(bucket: BucketFacts, servers: int) -> Finding:
    """Return the state of one bucket, of a cluster of so many servers."""
    if bucket.fault is not None:
        if "not found" in bucket.fault:
            return ok("bus", f"JetStream is there; the bucket {bucket.name} is made when a router starts.")
        return wrong("bus", f"The bucket {bucket.name} cannot be read: {bucket.fault}.", _PERMISSIONS)
    wanted = min(ENOUGH_SERVERS, servers)
    led = f", led by {bucket.leader}" if bucket.leader else ""
    if bucket.replicas < wanted:
        return warning(
            "bus",
            f"The bucket {bucket.name} has {bucket.replicas} of {wanted} replicas: it is lost with their servers.",
            f"nats stream update KV_{bucket.name} --replicas {wanted}",
            replicas=bucket.replicas,
        )
    if bucket.lagging:
        names = ", ".join(copy.server for copy in bucket.lagging)
        return warning(
            "bus",
            f"The bucket {bucket.name} is not up to date at {names}.",
            "If it stays so for a minute: make room on the disk there, and restart that nats-server.",
            replicas=bucket.replicas,
        )
    return ok(
        "bus", f"The bucket {bucket.name} has replicas: {bucket.replicas}{led}.", replicas=bucket.replicas
    )  # fmt: skip
