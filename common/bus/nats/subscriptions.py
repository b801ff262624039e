"""The subscriptions of a process: renewed with each connection to NATS, and for a while in force at two servers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from watchout.common import supervisor
from watchout.common.bus.nats.overlap import Overlap
from watchout.common.toolbox.futures import in_background

#: Most received messages of one subscription that wait to be handled, by number and by bytes.
MAX_RECEIVED: Final = 50_000
MAX_RECEIVED_BYTES: Final = 64 << 20


class NatsSubscription:
    """One subscription, made by `NatsConnection.subscribe`, over all its connections.

    Args:
        owner: The subscriptions of the connection.
        subject: The subject, with wildcards.
        on_message: Called with each message.
        on_denied: Called when the server in use denies it.

    """

    def __init__(
        self,
        owner: Subscriptions,
        subject: str,
        on_message: Callable[[Msg], None],
        on_denied: Callable[[], None] | None,
    ) -> None:
        self._owner = owner
        self.subject = subject
        self._on_message = on_message
        self.on_denied = on_denied
        #: What nats-py made of it at each client; None: it is being made.
        self.at: dict[Client, Subscription | None] = {}

    async def handle(self, client: Client, message: Msg) -> None:
        """Handle what a client brings.

        Args:
            client: The client.
            message: The message.

        """
        self._owner.received(self, client, message)

    def pass_on(self, message: Msg) -> None:
        """Pass a message on; what its receiver raises is logged and counted.

        Args:
            message: The message.

        """
        if self._owner.has(self):
            with supervisor.current().guarding("a bus message"):
                self._on_message(message)

    def close(self) -> None:
        """Receive nothing more."""
        self._owner.remove(self)


class Subscriptions:
    """All subscriptions of one `NatsConnection`, which makes it.

    While there are two connections (`begin_overlap` to `end_overlap`) both bring each message, and it is handled once.
    """

    def __init__(self) -> None:
        self._all: dict[NatsSubscription, None] = {}
        self._clients: list[Client] = []
        self._used: Client | None = None
        self._newer: Client | None = None
        self._overlap: Overlap[_Received] | None = None

    def has(self, subscription: NatsSubscription) -> bool:
        """Return whether a subscription is not closed.

        Args:
            subscription: The subscription.

        """
        return subscription in self._all

    def add(
        self, subject: str, on_message: Callable[[Msg], None], on_denied: Callable[[], None] | None = None
    ) -> NatsSubscription:
        """Return a new subscription, in force soon.

        Args:
            subject: The subject, with wildcards.
            on_message: Called with each message.
            on_denied: Called when the server in use denies it.

        """
        made = NatsSubscription(self, subject, on_message, on_denied)
        self._all[made] = None
        for client in self._clients:
            in_background(self._subscribe(client, made))
        return made

    def remove(self, subscription: NatsSubscription) -> None:
        """End a subscription; one that has ended is ignored.

        Args:
            subscription: What `add` returned.

        """
        if self.has(subscription):
            del self._all[subscription]
            for each in subscription.at.values():
                if each is not None:
                    in_background(_unsubscribe(each))

    def of(self, subject: str) -> list[NatsSubscription]:
        """Return the subscriptions of a subject.

        Args:
            subject: The subject, as a server's error has it: in small letters.

        """
        return [each for each in self._all if each.subject.lower() == subject]

    def denied(self, subject: str) -> None:
        """Tell who subscribed that the server in use denies it.

        Args:
            subject: The subject, as for `of`.

        """
        for each in self.of(subject):
            if each.on_denied is not None:
                with supervisor.current().guarding("a denied subscription"):
                    each.on_denied()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def use(self, client: Client) -> None:
        """Handle what this client brings, and nothing of others.

        Args:
            client: The client.

        """
        self._used = client

    async def begin(self, client: Client) -> None:
        """Subscribe to everything at a client; what is added later follows. Raises what nats-py raises.

        Args:
            client: The client, connected.

        """
        if client not in self._clients:
            self._clients.append(client)
        await self.extend(client)

    async def extend(self, client: Client) -> None:
        """Subscribe at one more client to what is not yet subscribed there. Raises what nats-py raises.

        What is added later does not follow: of a subscription that is made at two clients at the same time, nobody
        knows which one brings the first message. So it is made at the used one, and later, by this, at the other.

        Args:
            client: The client, connected.

        """
        for subscription in list(self._all):
            await self._subscribe(client, subscription)

    def turn_to(self, client: Client) -> bool:
        """Subscribe at this client alone to what is added from now on, if all else is subscribed there.

        Args:
            client: The client, for which `extend` was called.

        Returns:
            Whether it is so.

        """
        if any(subscription.at.get(client) is None for subscription in self._all):
            return False
        self._clients = [client]
        return True

    def end(self, client: Client) -> None:
        """Forget a client that is over; one that is not known is ignored.

        Args:
            client: The client.

        """
        if client in self._clients:
            self._clients.remove(client)
        for subscription in self._all:
            subscription.at.pop(client, None)

    def begin_overlap(self, newer: Client) -> None:
        """Expect each message twice from now on: from the client that is used, and from another one.

        Args:
            newer: The other one, which is to be used later.

        """
        self._newer, self._overlap = newer, Overlap(_key, _size)

    @property
    def is_full(self) -> bool:
        """Whether too much came in the overlap: the newer client is of no use any more."""
        return self._overlap is not None and self._overlap.is_full

    async def drain(self, client: Client) -> None:
        """Receive nothing more from a client, and handle all that it has. Raises what nats-py raises.

        Args:
            client: The client.

        """
        found = [each for subscription in self._all if (each := subscription.at.get(client)) is not None]
        await asyncio.gather(*(_drain(each) for each in found))

    def change(self) -> None:
        """Use the newer client, and handle what only it has brought."""
        assert self._overlap is not None
        assert self._newer is not None
        self._used = self._newer
        for subscription, message in self._overlap.change():
            subscription.pass_on(message)

    def end_overlap(self) -> None:
        """Expect each message once; what only the newer client has brought is dropped where it is not used."""
        self._newer = self._overlap = None

    def received(self, subscription: NatsSubscription, client: Client, message: Msg) -> None:
        """Handle a message that a client brings.

        Args:
            subscription: The subscription that got it.
            client: The client.
            message: The message.

        """
        overlap = self._overlap
        if overlap is not None:
            one = (subscription, message)
            for each, passed in overlap.from_new(one) if client is self._newer else overlap.from_old(one):
                each.pass_on(passed)
        elif client is self._used:
            subscription.pass_on(message)

    async def _subscribe(self, client: Client, subscription: NatsSubscription) -> None:
        if client in subscription.at or not self.has(subscription):
            return
        subscription.at[client] = None
        made = subscription.at[client] = await client.subscribe(
            subscription.subject, cb=functools.partial(subscription.handle, client),
            pending_msgs_limit=MAX_RECEIVED, pending_bytes_limit=MAX_RECEIVED_BYTES,
        )  # fmt: skip
        if not self.has(subscription):
            await _unsubscribe(made)


#: A message with the subscription that got it.
_Received = tuple[NatsSubscription, Msg]


def _key(received: _Received) -> tuple[NatsSubscription, str, str, bytes]:
    subscription, message = received
    return subscription, message.subject, message.reply, message.data


def _size(received: _Received) -> int:
    return len(received[1].data)


async def _drain(subscription: Subscription) -> None:
    await subscription.drain()  # type: ignore[no-untyped-call]


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(NatsError, OSError):
        await subscription.unsubscribe()
