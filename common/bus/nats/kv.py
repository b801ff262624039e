"""A bucket of JetStream as a `KeyValue`: made when it is missing, and decided by compare-and-set writes alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import msgspec
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig, StreamInfo
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from watchout.common import log
from watchout.common.bus.key_value import BucketCopies, BucketUnavailable, BucketValue, RevisionConflict
from watchout.common.bus.nats.connection import NatsConnection
from watchout.common.bus.nats.sentences import FULL_DISK
from watchout.common.toolbox.futures import retrieve_exception

#: Deadline of one request, in seconds.
REQUEST_S: Final = 1.5
#: A question that is not answered after this time is asked again beside it, in seconds: a server that has no leader for
#: it says nothing, and the new leader answers those only that come later. The store is away for 4 to 9 s then, and a
#: lease lasts for 10.
ASK_AGAIN_S: Final = 0.4
#: Copies of a bucket, where there are so many servers.
REPLICAS: Final = 3
#: Bytes of a message that are not its value.
OVERHEAD_BYTES: Final = 4096
#: Largest value whatever the server takes, in bytes.
MAX_VALUE_BYTES: Final = 900_000
#: Codes of JetStream's errors: the last sequence is another one; no such stream; no such message.
WRONG_SEQUENCE: Final = frozenset({10071, 10164})
NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037

T = TypeVar("T")


class _ApiReply(msgspec.Struct):
    """The reply of JetStream to a request of its API, as far as it is read."""

    success: bool = False
    error: dict[str, Any] = {}


_log = log.get("common.bus.nats.kv")


class NatsKeyValue:
    """One bucket, a `KeyValue`. Every request has a deadline; a bucket that is missing is made by the next request.

    Args:
        connection: The connection of this process; the caller closes it.
        bucket: The name of the bucket.

    """

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        self._connection = connection
        self.bucket = bucket
        self._stream = f"KV_{bucket}"
        self._is_made = False
        self._making = asyncio.Lock()

    @property
    def max_value_bytes(self) -> int:
        """Largest value that the present server takes, in bytes; without a connection, that any takes."""
        if not self._connection.connected:
            return MAX_VALUE_BYTES
        return min(MAX_VALUE_BYTES, max(self._connection.max_payload - OVERHEAD_BYTES, 0))

    async def read(self, key: str) -> BucketValue:
        """Return what the leader of the bucket has under a key. See `KeyValue.read`."""
        js = await self._context()
        try:
            found = await _ask(lambda: js.get_last_msg(self._stream, self._subject(key)))
        except NotFoundError as error:
            if error.err_code == NO_MESSAGE:
                return BucketValue(0, None)
            raise self._unavailable(error) from None
        except (NatsError, TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(error) from None
        is_deleted = bool((found.headers or {}).get("KV-Operation"))
        return BucketValue(found.seq or 0, None if is_deleted else found.data or b"")

    async def compare_and_set(self, key: str, value: bytes, expected: int) -> int:
        """Write a value if the key has this revision. See `KeyValue.compare_and_set`."""
        js = await self._context()
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            done = await js.publish(self._subject(key), value, timeout=REQUEST_S, headers=headers)
        except APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                raise RevisionConflict(key) from None
            raise self._unavailable(error) from None
        except (NatsError, TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(error) from None
        return done.seq

    async def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with a prefix and a dot. See `KeyValue.keys`."""
        js = await self._context()
        try:
            info = await _ask(lambda: js.stream_info(self._stream, subjects_filter=self._subject(f"{prefix}.>")))
        except (NatsError, TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(error) from None
        start = len(self._subject(""))
        return [subject[start:] for subject in info.state.subjects or {}]

    async def is_led_here(self) -> bool:
        """Return whether the NATS server of this machine, in use here, leads the bucket. See `KeyValue.is_led_here`."""
        servers = await self.servers()
        client = self._connection.client
        return bool(servers) and client is not None and client.is_here and client.server_name == servers[0]

    async def servers(self) -> list[str]:
        """Return the names of the servers that have the bucket, its leader first. See `KeyValue.servers`."""
        info = await self._info(await self._context())
        if info.cluster is None or not info.cluster.leader:
            return []
        return [info.cluster.leader, *(peer.name for peer in info.cluster.replicas or () if peer.name)]

    async def copies(self) -> BucketCopies:
        """Return how many servers have a copy. See `KeyValue.copies`."""
        info = await self._info(await self._context())
        others = () if info.cluster is None else info.cluster.replicas or ()
        behind = tuple(each.name for each in others if each.name and not each.current and not each.offline)
        return BucketCopies(info.config.num_replicas or 1, self._wanted(), behind=behind)

    async def add_copies(self) -> BucketCopies:
        """Give the bucket the copies that it lacks. See `KeyValue.add_copies`."""
        js = await self._context()
        config = (await self._info(js)).config
        return await self._add_copies(js, config, self._wanted())

    async def move_leader(self, server: str) -> None:
        """Let another server lead the bucket. See `KeyValue.move_leader`."""
        client = self._connection.client
        if client is None:
            raise BucketUnavailable(self._connection.explain() or "there is no connection to NATS")
        subject = f"$JS.API.STREAM.LEADER.STEPDOWN.{self._stream}"
        wanted = msgspec.json.encode({"placement": {"preferred": server}})
        try:
            reply = msgspec.json.decode((await client.request(subject, wanted, timeout=REQUEST_S)).data, type=_ApiReply)
        except (NatsError, TimeoutError, OSError, ValueError):
            raise BucketUnavailable(_unanswered(subject)) from None
        if not reply.success:
            raise BucketUnavailable(f"{subject}: {reply.error}")

    # ── the bucket ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _info(self, js: JetStreamContext) -> StreamInfo:
        """Return what the servers say of the bucket. Raises `BucketUnavailable`."""
        try:
            return await _ask(lambda: js.stream_info(self._stream))
        except (NatsError, TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(error) from None

    def _subject(self, key: str) -> str:
        return f"$KV.{self.bucket}.{key}"

    async def _context(self) -> JetStreamContext:
        """Return JetStream with the bucket made. Raises `BucketUnavailable`."""
        client = self._connection.client
        if client is None:
            raise BucketUnavailable(self._connection.explain() or "there is no connection to NATS")
        js = client.jetstream(timeout=REQUEST_S)
        if not self._is_made:
            async with self._making:
                if not self._is_made:
                    await self._make(js)
        return js

    async def _make(self, js: JetStreamContext) -> None:
        """Make the bucket if it is missing, with as many copies as the servers allow. Raises `BucketUnavailable`."""
        try:
            found = await _ask(lambda: js.stream_info(self._stream))
        except NotFoundError:
            await self._create(js)
        except (NatsError, TimeoutError, OSError, ValueError) as error:
            raise self._unavailable(error) from None
        else:
            await self._add_copies(js, found.config, self._wanted())
        self._is_made = True

    async def _create(self, js: JetStreamContext) -> None:
        fault: Exception | None = None
        for replicas in range(REPLICAS, 0, -1):
            try:
                await js.add_stream(self._config(replicas))
            except (NatsError, TimeoutError, OSError, ValueError) as error:
                fault = error
                if not isinstance(error, APIError):
                    break
            else:
                few = "" if replicas == REPLICAS else ": with three servers it would outlive each of them"
                _log.info(f"bucket made, with {_copies(replicas)}{few}", bucket=self.bucket, replicas=replicas)
                return
        assert fault is not None
        raise self._unavailable(fault)

    def _wanted(self) -> int:
        """Return how many copies there are to be: `REPLICAS`, or as many as there are servers.

        A server that tells of no others, and is of a cluster, may have been told not to.
        """
        client = self._connection.client
        if client is None or not client.greeting.get("cluster"):
            return 1
        return min(REPLICAS, 1 + len(client.discovered_servers)) if client.discovered_servers else REPLICAS

    async def _add_copies(self, js: JetStreamContext, config: StreamConfig, wanted: int) -> BucketCopies:
        """Give a bucket that was made with fewer servers its copies: all, or as many as there are servers for now."""
        count, fault = config.num_replicas or 1, ""
        for replicas in range(wanted, count, -1):
            try:
                await js.update_stream(config.evolve(num_replicas=replicas))
            except APIError as error:  # too few servers
                fault = fault or _sentence(error, self.bucket)
            except TimeoutError:
                fault = _unanswered(f"$JS.API.STREAM.UPDATE.{self._stream}")
                break
            except (NatsError, OSError, ValueError) as error:
                fault = _sentence(error, self.bucket)
                break
            else:
                _log.info(f"bucket has {_copies(replicas)} now", bucket=self.bucket, replicas=replicas)
                return BucketCopies(replicas, wanted, fault)
        return BucketCopies(count, wanted, fault)

    def _config(self, replicas: int) -> StreamConfig:
        return StreamConfig(
            name=self._stream,
            description="watchout: who runs the router of which slot, and its records",
            subjects=[self._subject(">")],
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=False,
            discard=DiscardPolicy.NEW,
            num_replicas=replicas,
        )

    def _unavailable(self, error: Exception) -> BucketUnavailable:
        """Return the error for the caller. A bucket that is gone is made by the next request."""
        is_gone = isinstance(error, NoStreamResponseError) or getattr(error, "err_code", None) == NO_STREAM
        if is_gone:
            self._is_made = False
        return BucketUnavailable(_sentence(error, self.bucket))


def _unanswered(subject: str) -> str:
    return f"no reply to {subject} within {REQUEST_S} s: if there never is one, the user may not publish to it"


def _copies(count: int) -> str:
    return "one copy" if count == 1 else f"{count} copies"


def _sentence(error: Any, bucket: str) -> str:
    """Return what went wrong with a request to a bucket, for the log."""
    if isinstance(error, TimeoutError):
        return f"no reply within {REQUEST_S} s: the bucket {bucket} has no leader now; it may stay so, {FULL_DISK}"
    if isinstance(error, NoStreamResponseError):
        return (
            f"no server has the bucket {bucket}: a new leader is being elected, it was deleted, or JetStream is not "
            f"enabled on the servers, or off, {FULL_DISK}"
        )
    if isinstance(error, ServiceUnavailableError) and not error.err_code:  # nobody answers for JetStream
        return (
            "JetStream is not there: enable `jetstream` on the NATS servers, and for the account of this user; or it "
            f"is off, {FULL_DISK}"
        )
    if isinstance(error, APIError):
        text = error.description or type(error).__name__
        hint = ": enable `jetstream` on the NATS servers" if error.err_code in (10039, 10076) else ""
        return f"JetStream says of the bucket {bucket}: {text} ({error.err_code}){hint}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


async def _ask(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask a question until it is answered, for `REQUEST_S`: the first answer counts, also one that raises.

    Args:
        make: Makes the question, whose own deadline is `REQUEST_S`.

    """
    until = asyncio.get_running_loop().time() + REQUEST_S
    asked: set[asyncio.Task[T]] = set()
    try:
        while (left := until - asyncio.get_running_loop().time()) > 0:
            question = asyncio.ensure_future(make())
            question.add_done_callback(retrieve_exception)
            asked.add(question)
            done, asked = await asyncio.wait(asked, timeout=min(ASK_AGAIN_S, left), return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
        raise TimeoutError
    finally:
        for each in asked:
            each.cancel()


class NatsBroadcast:
    """Messages on one subject, a `Broadcast`. Made by `NatsClusterLink`.

    Args:
        connection: The connection of this process; the caller closes it.
        name: Last part of the subject.
        on_message: Called with each message of another process.

    """

    def __init__(self, connection: NatsConnection, name: str, on_message: Callable[[bytes], None]) -> None:
        self._connection = connection
        self._subject = f"{connection.subjects.cluster}.{name}"
        self._subscription = connection.subscribe(self._subject, lambda message: on_message(message.data))

    def send(self, message: bytes) -> None:
        """Send a message to all others. See `Broadcast.send`."""
        self._connection.publish(self._subject, message)

    def close(self) -> None:
        """Receive nothing more."""
        self._subscription.close()


class NatsClusterLink:
    """What router processes share over NATS, a `ClusterLink`. Made by `common.bus.transport_choice`.

    Args:
        connection: The connection of this process, closed with the link.

    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection

    def bucket(self, name: str) -> NatsKeyValue:
        """Return a bucket of the cluster. See `ClusterLink.bucket`."""
        return NatsKeyValue(self._connection, f"{self._connection.subjects.cluster}-{name}")

    def broadcast(self, name: str, on_message: Callable[[bytes], None]) -> NatsBroadcast:
        """Return a channel to all other processes that open it. See `ClusterLink.broadcast`."""
        return NatsBroadcast(self._connection, name, on_message)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
