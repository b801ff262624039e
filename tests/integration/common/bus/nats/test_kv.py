"""Buckets over a real NATS server: of several writers one succeeds, and a bucket that was lost is made again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable

import pytest

from tests.kit.clients import eventually
from tests.kit.nats_servers import NatsSite
from watchout.common.bus.key_value import BucketUnavailable, BucketValue, RevisionConflict
from watchout.common.bus.mesh import FrameMesh
from watchout.common.bus.messages import MEMBER_ID_BYTES
from watchout.common.bus.nats import kv, parts
from watchout.common.bus.nats.connection import NatsConnection, connection_of
from watchout.common.bus.nats.kv import NatsKeyValue
from watchout.common.bus.nats.router import NatsRouterTransport
from watchout.common.settings import Settings, load

COMES_S = 30


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has to wait for its turn is not one without a leader."""
    monkeypatch.setattr(kv, "REQUEST_S", float(COMES_S))


@pytest.fixture
def wanted(nats_bus: NatsSite) -> Settings:
    return load({"WATCHOUT_BUS": nats_bus.url, "CLUSTER_NAME": f"t{secrets.token_hex(4)}"})


@pytest.fixture
async def connection(wanted: Settings) -> AsyncIterator[NatsConnection]:
    made = connection_of(wanted, "router")
    await eventually(lambda: made.connected, COMES_S)
    yield made
    made.close()
    await made.ended()


async def test_of_several_writers_of_one_revision_one_succeeds(connection: NatsConnection) -> None:
    store = NatsKeyValue(connection, f"{connection.subjects.cluster}-slots")
    assert await store.read("slot.0") == BucketValue(0, None)
    for round_number in range(5):
        expected = (await store.read("slot.0")).revision
        done = await asyncio.gather(
            *(store.compare_and_set("slot.0", b"%d" % writer, expected) for writer in range(8)), return_exceptions=True
        )
        won = [writer for writer, each in enumerate(done) if isinstance(each, int)]
        assert len(won) == 1, f"round {round_number}: {done}"
        assert all(isinstance(each, int | RevisionConflict) for each in done)
        assert (await store.read("slot.0")).data == b"%d" % won[0]


async def test_a_bucket_that_was_deleted_is_made_again(connection: NatsConnection) -> None:
    store = NatsKeyValue(connection, f"{connection.subjects.cluster}-slots")
    await store.compare_and_set("slot.0", b"x", 0)
    assert await store.keys("slot") == ["slot.0"]
    assert connection.client is not None
    await connection.client.jetstream().delete_stream(f"KV_{store.bucket}")
    with pytest.raises(BucketUnavailable):
        await store.compare_and_set("slot.0", b"y", 1)
    assert await store.read("slot.0") == BucketValue(0, None)
    assert await store.keys("slot") == []


class _NoMesh:
    """A frame mesh that is not used."""

    address = "unix:f-aaaaaaaa"
    malformed = frames_sent = frames_dropped = 0

    def close(self) -> None:
        """Nothing is open."""


async def test_parts_without_an_end_are_bounded_whoever_sends_them(
    wanted: Settings, connection: NatsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MAX_UNFINISHED_BYTES", 1 << 20)
    heard: list[bytes] = []
    open_mesh: Callable[..., FrameMesh] = lambda **_: _NoMesh()  # type: ignore[assignment,return-value] # noqa: E731
    router = NatsRouterTransport(
        connection.share(), 0, open_mesh=open_mesh, on_control=lambda _, message: heard.append(message),
        on_frame=lambda _: None,
    )  # fmt: skip
    sender = connection_of(wanted, "member")
    await eventually(lambda: sender.connected, COMES_S)
    last = b"\x01" * MEMBER_ID_BYTES
    await eventually(lambda: sender.publish(sender.subjects.to_router(0, last), b"whole") and heard, COMES_S)
    for number in range(40):
        member = number.to_bytes(MEMBER_ID_BYTES, "big")
        first = next(parts.split(bytes(200_000), 100_000, number))
        assert sender.publish(sender.subjects.to_router(0, member), first)
    await eventually(lambda: sender.publish(sender.subjects.to_router(0, last), b"end") and b"end" in heard, COMES_S)
    assert router._joiner.bytes <= 1 << 20
    assert router.malformed >= 28
    router.close()
    sender.close()
    await sender.ended()
