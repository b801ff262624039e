"""Verifies the tokens of shares: by their signature here, then by the share that the router has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from watchout.common.bus.reply_records import ShareRow
from watchout.common.errors import RouterUnavailable, StoreUnavailable
from watchout.gateway.shares.requests import ShareRequests
from watchout.gateway.shares.tokens import ShareTokens
from watchout.identity import Grants, Identity

#: In front of a share's id: the user under whom the sockets of a share are counted.
USER_PREFIX: str = "share:"


class GatewayShares:
    """The source of identities for tokens of shares, a `ShareSource`.

    Made by `gateway.app`, and asked by `Authenticator` and `Revalidation`.

    Args:
        tokens: Reads the tokens.
        requests: Asked for the shares.
        enabled: Whether streams may be shared at all.
    """

    def __init__(self, tokens: ShareTokens, requests: ShareRequests, *, enabled: bool) -> None:
        self._tokens = tokens
        self._requests = requests
        self._enabled = enabled

    def recognizes(self, token: str) -> bool:
        """See `ShareSource`."""
        return self._tokens.share_of(token) is not None

    async def find(self, token: str) -> Identity | None:
        """See `ShareSource`."""
        share_id = self._tokens.share_of(token)
        if share_id is None or not self._enabled:
            return None
        try:
            row = await self._requests.share(share_id)
        except RouterUnavailable as unavailable:
            raise StoreUnavailable(str(unavailable)) from None
        return None if row is None else identity_of(row)

    async def ended(self, shares: Sequence[Identity]) -> tuple[list[str], int]:
        """Return the ids of the shares that have ended, and of how many it is not known.

        Args:
            shares: The identities of at most 1000 shares, as `find` returned them.

        Raises:
            StoreUnavailable: No router answers.
        """
        streams = {share.share: share.grants.view[0] for share in shares if share.share and share.grants}
        try:
            ended, unknown = await self._requests.ended(streams)
        except RouterUnavailable as unavailable:
            raise StoreUnavailable(str(unavailable)) from None
        return ended, len(unknown)


def identity_of(row: ShareRow) -> Identity:
    """Return the identity of whoever has a share's token: no user of the app, with the permission to view one stream.

    Args:
        row: The share.
    """
    streams = (row.stream,)
    grants = Grants(view=streams, alerts=streams if row.alerts else (), owner=row.owner, may_acknowledge=False)
    ends_at = row.ends_at / 1000
    return Identity(USER_PREFIX + row.id, expires_at=math.inf, ends_at=ends_at, grants=grants, share=row.id)
