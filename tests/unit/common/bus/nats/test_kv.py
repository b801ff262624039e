"""Questions to a store that is silent for a while: asked again, and the first answer counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from nats.js.api import ClusterInfo, PeerInfo, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from watchout.common.bus.key_value import MIN_VALUE_BYTES, BucketCopies
from watchout.common.bus.nats import kv
from watchout.common.bus.nats.parts import MIN_PAYLOAD_BYTES


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "ASK_AGAIN_S", 0.01)


async def test_a_question_that_nobody_answers_is_asked_again() -> None:
    asked = 0

    async def question() -> str:
        nonlocal asked
        asked += 1
        if asked < 3:
            await asyncio.get_running_loop().create_future()
        return "there"

    assert await kv._ask(question) == "there"
    assert asked == 3


async def test_an_answer_that_raises_counts_and_what_was_asked_besides_ends() -> None:
    ended = 0

    async def question() -> str:
        nonlocal ended
        try:
            await asyncio.sleep(0.05)
            raise ValueError("an answer")
        except asyncio.CancelledError:
            ended += 1
            raise

    with pytest.raises(ValueError, match="an answer"):
        await kv._ask(question)
    await asyncio.sleep(0)
    assert ended > 0


async def test_without_an_answer_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "REQUEST_S", 0.1)

    async def question() -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    with pytest.raises(TimeoutError):
        await kv._ask(question)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ServiceUnavailableError(), "JetStream is not there: enable `jetstream` on the NATS servers"),
        (ServiceUnavailableError(code=503, err_code=10008, description="system temporarily unavailable"), "(10008)"),
        (TimeoutError(), "the bucket b has no leader now"),
        (TimeoutError(), "as after a full disk: then make room, and restart nats-server"),
        (NoStreamResponseError(), "as after a full disk"),
        (ServiceUnavailableError(), "as after a full disk"),
        (NoStreamResponseError(), "a new leader is being elected, it was deleted"),
        (APIError(code=400, err_code=10076, description="no"), "enable `jetstream` on the NATS servers"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(error: Exception, words: str) -> None:
    assert words in kv._sentence(error, "b")


@pytest.mark.parametrize(
    ("connected", "max_payload", "largest"),
    [
        (True, MIN_PAYLOAD_BYTES, MIN_VALUE_BYTES),
        (True, 1 << 20, kv.MAX_VALUE_BYTES),
        (True, 65536, 65536 - kv.OVERHEAD_BYTES),
        (True, 1024, 0),
        (False, 0, kv.MAX_VALUE_BYTES),  # nothing is left out of what is written when a server is there again
    ],
)
def test_the_largest_value_is_that_of_the_server(connected: bool, max_payload: int, largest: int) -> None:
    connection: Any = SimpleNamespace(connected=connected, max_payload=max_payload)
    assert kv.NatsKeyValue(connection, "things").max_value_bytes == largest


class Server:
    """What the servers of a site do with a bucket of so many copies, as nats-py says it. `refusal`: of more than
    `places` copies.
    """

    def __init__(self, copies: int, places: int, refusal: Exception) -> None:
        self.config = StreamConfig(name="KV_things", num_replicas=copies)
        self.places, self.refusal, self.asked = places, refusal, list[int]()
        self.cluster: ClusterInfo | None = None

    def jetstream(self, **_: Any) -> Any:
        return self

    async def stream_info(self, _name: str) -> Any:
        return SimpleNamespace(config=self.config, cluster=self.cluster)

    async def update_stream(self, config: StreamConfig) -> None:
        self.asked.append(config.num_replicas or 0)
        if (config.num_replicas or 0) > self.places:
            raise self.refusal
        self.config = config


FEW = APIError(code=400, err_code=10074, description="no suitable peers for placement")


@pytest.mark.parametrize(
    ("copies", "places", "cluster", "others", "refusal", "asked", "found"),
    [
        (1, 3, "c", 2, FEW, [3], BucketCopies(3, 3)),
        (3, 3, "c", 2, FEW, [], BucketCopies(3, 3)),
        (1, 2, "c", 2, FEW, [3, 2], BucketCopies(2, 3, "(10074)")),
        (2, 2, "c", 2, FEW, [3], BucketCopies(2, 3, "(10074)")),
        (1, 1, "c", 2, FEW, [3, 2], BucketCopies(1, 3, "(10074)")),
        (1, 2, "c", 1, FEW, [2], BucketCopies(2, 2)),
        (1, 3, "c", 0, FEW, [3], BucketCopies(3, 3)),  # the servers do not tell of each other
        (1, 3, "c", 6, FEW, [3], BucketCopies(3, 3)),
        (1, 1, "", 0, FEW, [], BucketCopies(1, 1)),  # one server alone
        (1, 1, "c", 2, TimeoutError(), [3], BucketCopies(1, 3, "may not publish to it")),
    ],
)
async def test_a_bucket_gets_as_many_copies_as_there_are_servers_for(
    copies: int, places: int, cluster: str, others: int, refusal: Exception, asked: list[int], found: BucketCopies
) -> None:
    server = Server(copies, places, refusal)
    client: Any = server
    client.greeting, client.discovered_servers = {"cluster": cluster}, [None] * others
    connection: Any = SimpleNamespace(client=client)
    bucket = kv.NatsKeyValue(connection, "things")
    bucket._is_made = True
    assert await bucket.copies() == BucketCopies(copies, found.wanted)
    now = await bucket.add_copies()
    assert server.asked == asked
    assert (now.count, now.wanted) == (found.count, found.wanted)
    assert (found.fault in now.fault) if found.fault else not now.fault


async def test_copies_that_are_not_up_to_date_are_those_of_servers_that_are_there() -> None:
    server = Server(3, 3, FEW)
    peers = [("n1", True, None), ("n2", False, None), ("n3", False, True), ("n4", False, False)]
    server.cluster = ClusterInfo(
        leader="n0", replicas=[PeerInfo(name=name, current=now, offline=away) for name, now, away in peers]
    )
    client: Any = server
    client.greeting, client.discovered_servers = {"cluster": "c"}, [None] * 4
    connection: Any = SimpleNamespace(client=client)
    bucket = kv.NatsKeyValue(connection, "things")
    bucket._is_made = True
    assert await bucket.copies() == BucketCopies(3, 3, behind=("n2", "n4"))
