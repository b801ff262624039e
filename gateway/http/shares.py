"""The paths `/streams/{id}/shares…`: the owner of a stream shares it, sees what is shared, and ends a share."""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Any, Final

import msgspec
from aiohttp import web

from watchout.common.alerts.model import STREAM_ID
from watchout.common.bus.messages import RefusedReply
from watchout.common.bus.reply_records import ShareRow
from watchout.common.toolbox.json_words import fault_in_words
from watchout.common.toolbox.jsontext import JsonFault, read_json
from watchout.gateway.context import Context
from watchout.gateway.http.auth import UserAuth, no_such_stream
from watchout.gateway.http.bodies import BodyReader
from watchout.gateway.http.responses import HttpError, json_response
from watchout.gateway.quotas import AlertRates
from watchout.gateway.shares.requests import ShareRequests
from watchout.gateway.shares.tokens import ID_BYTES, ShareTokens, share_id_of
from watchout.identity import Identity

#: Shares that one user may make per second at one gateway, with a burst of two seconds' worth.
SHARES_PER_S: Final = 5.0
#: Largest body of a request, in bytes.
MAX_BODY_BYTES: Final = 4096


class ShareTerms(msgspec.Struct, frozen=True):
    """The body of `POST /streams/{id}/shares`: for how long, and whether the alerts are shared as well."""

    seconds: int
    alerts: bool = False


class SharePages:
    """Handlers of the shares of a stream, for its owner.

    They raise `HttpError`, `RouterUnavailable` or `StoreUnavailable`.

    Args:
        context: What the gateway's connections share.
        auth: Signs the users in.
        tokens: Makes the tokens.
    """

    def __init__(self, context: Context, auth: UserAuth, tokens: ShareTokens) -> None:
        self._context = context
        self._auth = auth
        self._tokens = tokens
        self._shares = ShareRequests(context.router)
        self._bodies = BodyReader()
        self._rates = AlertRates(SHARES_PER_S)

    async def create(self, request: web.Request) -> web.Response:
        """Share a stream; the response has the token, which is shown only here.

        Args:
            request: The request of the stream's owner.
        """
        stream = request.match_info["id"]
        owner = await self._owner(request, stream)
        terms = await self._terms(request)
        if not self._rates.take(owner.user_id, asyncio.get_running_loop().time()):
            wait_s = self._rates.wait_s()
            text = f"more than {SHARES_PER_S:g} shares per second, try again after {wait_s:.1f} s"
            raise HttpError(429, "RATE_LIMITED", text, {"Retry-After": str(math.ceil(wait_s))})
        share_id = share_id_of(secrets.token_bytes(ID_BYTES))
        made = await self._shares.create_share(
            share_id, stream, owner.user_id, seconds=terms.seconds, alerts=terms.alerts
        )
        if isinstance(made, RefusedReply):
            raise HttpError(409, made.code, made.message)
        body = {"token": self._tokens.token_of(made.id), **_shown(made)}
        return json_response(body, 201, {"Location": f"/streams/{stream}/shares/{made.id}"})

    async def list_shares(self, request: web.Request) -> web.Response:
        """Return what the owner shares of a stream, without the tokens.

        Args:
            request: The request of the stream's owner.
        """
        stream = request.match_info["id"]
        owner = await self._owner(request, stream)
        rows = await self._shares.shares_of(stream, owner.user_id)
        return json_response({"shares": [_shown(row) for row in rows]})

    async def end(self, request: web.Request) -> web.Response:
        """End a share; its sockets are closed within `RECHECK_S`.

        Args:
            request: The request of the stream's owner.
        """
        stream = request.match_info["id"]
        owner = await self._owner(request, stream)
        if not await self._shares.end_share(request.match_info["share"], stream, owner.user_id):
            raise HttpError(404, "NOT_FOUND", "there is no such share of this stream")
        return web.Response(status=204, headers={"Cache-Control": "no-store"})

    async def _owner(self, request: web.Request, stream: str) -> Identity:
        """Return the user of a request when the stream is theirs. Raises `HttpError` 401, 403 or 404."""
        user = await self._auth.sign_in(request, changes=request.method not in ("GET", "HEAD"))
        if not STREAM_ID.match(stream):
            raise HttpError(404, "NOT_FOUND", "streamId has 1 to 128 of A-Z a-z 0-9 _ . : -")
        owner = (await self._context.router.find(stream)).owner
        if owner is not None and owner.user_id == user.user_id and user.grants is None:
            return user
        self._auth.count_unauthorized()
        if owner is None or not self._context.authorization.may_know(user, owner, stream):
            raise no_such_stream()
        text = "only the owner of a stream may share it"
        if user.grants is not None:
            text = "this token permits just the rights that it names: only a session of the owner may share the stream"
        raise HttpError(403, "UNAUTHORIZED", text)

    async def _terms(self, request: web.Request) -> ShareTerms:
        """Return the body of a request. Raises `HttpError` 400, 403 or 413."""
        body = await self._bodies.read(request, verified=True)
        most = self._context.settings.share_max_s
        if most == 0:
            raise HttpError(403, "UNAUTHORIZED", "sharing is switched off here (SHARE_MAX_S)")
        if len(body) > MAX_BODY_BYTES:
            raise HttpError(413, "TOO_LARGE", f"the body has {len(body)} bytes, expected at most {MAX_BODY_BYTES}")
        try:
            value: Any = read_json(body)
            if isinstance(value, dict) and isinstance(seconds := value.get("seconds"), float) and seconds.is_integer():
                value["seconds"] = int(seconds)
            terms = msgspec.convert(value, ShareTerms)
        except (JsonFault, UnicodeError, msgspec.ValidationError) as fault:
            came = fault_in_words(str(fault), ShareTerms)
            text = f'expected {{"seconds":1 to {most},"alerts":true or false}}: {came}'
            raise HttpError(400, "INVALID_MESSAGE", text) from None
        if not 1 <= terms.seconds <= most:
            raise HttpError(400, "INVALID_MESSAGE", f"seconds is from 1 to {most}, got {terms.seconds}")
        return terms


def _shown(row: ShareRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "streamId": row.stream,
        "alerts": row.alerts,
        "createdAt": row.created_at,
        "endsAt": row.ends_at,
    }
