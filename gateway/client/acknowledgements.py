"""Acknowledges alerts for one client: asks the router who may, one after the other, and reports to its protocol."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from watchout.common.bus.messages import RefusedReply
from watchout.common.clock import now_ms
from watchout.common.errors import ErrorCode, RouterUnavailable
from watchout.gateway.client.commands import AcknowledgeAlert, Command
from watchout.gateway.client.protocol import ClientProtocol
from watchout.gateway.context import Context

#: Acknowledgements of one socket that wait for the router at most.
MAX_WAITING: Final = 100


class Acknowledgements:
    """The acknowledgements of one client; made by its `ClientHandler` at the first one.

    They are handled in their order, one at a time, without holding the client's other messages back. The permission is
    that of the alert: whoever may receive it may acknowledge it.

    Args:
        context: What the gateway's connections share.
        protocol: The client's protocol.
        run: Carries out the protocol's commands.
    """

    def __init__(self, context: Context, protocol: ClientProtocol, run: Callable[[list[Command]], None]) -> None:
        self._context = context
        self._protocol = protocol
        self._run = run
        self._waiting: deque[AcknowledgeAlert] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, command: AcknowledgeAlert) -> None:
        """Acknowledge an alert as soon as it is its turn; with `MAX_WAITING` that wait, the client gets an error."""
        if len(self._waiting) >= MAX_WAITING:
            text = f"{MAX_WAITING} acknowledgements of this socket wait, the limit: send it again after their answers"
            self._refuse(command, ErrorCode.RATE_LIMITED, text)
            return
        self._waiting.append(command)
        if self._task is None:
            self._task = self._context.tasks.start(self._work(), "acknowledgements")

    def cancel(self) -> None:
        """Forget what waits, because the socket is closing. What the router has already been asked may still happen."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._acknowledge(self._waiting.popleft())
        finally:
            self._task = None

    async def _acknowledge(self, command: AcknowledgeAlert) -> None:
        router, authorization = self._context.router, self._context.authorization
        try:
            rows = await router.queries.alert_frames(command.alert_id, command.stream)
            row = next((each for each in rows if each.stream == command.stream), None)
            owner = (await router.find(command.stream)).owner
            identity = self._protocol.identity
            if identity is None or not (
                authorization.may_receive_alerts(identity, owner, command.stream)
                if row is None
                else authorization.may_receive_stored_alert(identity, row.owner, owner, command.stream)
            ):
                self._refuse(command, ErrorCode.UNAUTHORIZED, f"you may not have the alerts of {command.stream}")
                return
            if not authorization.may_acknowledge(identity):
                self._refuse(command, ErrorCode.UNAUTHORIZED, "you may receive alerts, not acknowledge them")
                return
            if row is None:
                text = f"alert {command.alert_id} of stream {command.stream} is not known, or not kept any more"
                self._refuse(command, ErrorCode.INVALID_MESSAGE, text)
                return
            reply = await router.alert_requests.acknowledge(row, identity.user_id, command.note)
        except RouterUnavailable as unavailable:
            text = f"alert {command.alert_id} was not acknowledged, try again: {unavailable}"
            self._refuse(command, ErrorCode.ROUTING_ERROR, text)
            return
        if isinstance(reply, RefusedReply):
            self._refuse(command, ErrorCode.INVALID_MESSAGE, reply.message)
        else:
            self._run(self._protocol.on_acknowledged(command, reply.acknowledgement, now_ms()))

    def _refuse(self, command: AcknowledgeAlert, code: ErrorCode, message: str) -> None:
        now = asyncio.get_running_loop().time()
        self._run(self._protocol.on_acknowledge_refused(command, code, message, now, now_ms()))
