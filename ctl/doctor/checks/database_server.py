"""Check of the PostgreSQL server: our role, replication, the trigger of ``REVOCATION_CHANNEL``, and its clock."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from watchout.common.settings import Settings
from watchout.common.settings.database_url import parse
from watchout.ctl.doctor.check import ASK_S, Check
from watchout.ctl.doctor.clocks import judge_clock
from watchout.ctl.doctor.findings import Finding, ok, warning
from watchout.identity.schema.catalogue import quoted
from watchout.identity.sources.connecting import PostgresConnector

#: How often the server's clock is read; the reading with the shortest round trip counts.
CLOCK_READINGS: Final = 3
#: Parameters: the session table, the channel ('' for none; the last column is then null).
_SERVER: Final = """
select (select rolsuper from pg_roles where rolname = current_user), pg_is_in_recovery(),
  current_setting('default_transaction_read_only') = 'on',
  case when $2 <> '' then exists (
    select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = to_regclass($1) and not t.tgisinternal and t.tgenabled <> 'D'
      and (position(quote_literal($2) in p.prosrc) > 0 or position($2 in encode(t.tgargs, 'escape')) > 0)) end
"""
_CLOCK: Final = "select extract(epoch from clock_timestamp())::float8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a PostgreSQL server reports about itself, its clock and the role that the gateway signs in with. Found by
    the doctor.

    Attributes:
        superuser: whether the role may do everything.
        replica: whether the server is a read replica.
        trigger: whether a trigger of the session table notifies `REVOCATION_CHANNEL`; None where it is not set.
        offset_s: seconds by which this machine's clock is ahead of the server's.
        uncertainty_s: error of that measurement, in seconds.
        read_only: whether it refuses writes of the role although it is no replica.
    """

    superuser: bool
    replica: bool
    trigger: bool | None
    offset_s: float
    uncertainty_s: float
    read_only: bool = False


async def check_database_server(settings: Settings) -> list[Finding]:
    """Return the findings on the PostgreSQL server; none where it does not answer, which `session_store` reports."""
    url = settings.database_url
    if url is None or url.startswith("sqlite:"):
        return [ok("clock", "The session store is a file: its sessions expire by this machine's clock.")]
    try:
        async with asyncio.timeout(ASK_S):
            connection = await PostgresConnector(parse(url), timeout_s=ASK_S).connect("watchout-doctor")
    except Exception:  # another kind of server makes the driver raise nearly anything
        return []
    try:
        async with asyncio.timeout(ASK_S):
            return list(judge_server(await _probe(connection, settings)))
    except Exception:
        return [warning("clock", "PostgreSQL accepts connections, but its clock could not be read.",
                        "See the lines about the store.")]  # fmt: skip
    finally:
        with contextlib.suppress(asyncpg.InterfaceError):
            connection.terminate()


CHECK: Final = Check("clock", check_database_server)


async def _probe(connection: Any, settings: Settings) -> ServerFacts:
    readings: list[tuple[float, float]] = []
    async with connection.transaction(readonly=True):
        names = [quoted(settings.session_table), settings.revocation_channel or ""]
        superuser, replica, read_only, trigger = await connection.fetchrow(_SERVER, *names)
        for _ in range(CLOCK_READINGS):
            before_s = time.time()
            theirs_s = await connection.fetchval(_CLOCK)
            after_s = time.time()
            readings.append(((after_s - before_s) / 2, (before_s + after_s) / 2 - theirs_s))
    uncertainty_s, offset_s = min(readings)
    return ServerFacts(
        superuser=bool(superuser),
        replica=replica,
        read_only=read_only,
        trigger=trigger,
        offset_s=offset_s,
        uncertainty_s=uncertainty_s,
    )


def judge_server(server: ServerFacts) -> Iterator[Finding]:
    """Yield the findings on a server that answers: role, replication, trigger and clock."""
    if server.superuser:
        yield warning(
            "store",
            "DATABASE_URL signs in as a superuser, who may do everything.",
            "Create a role that may only read the columns that are used (docs/better-auth.md).",
        )
    if server.replica:
        yield warning(
            "store",
            "DATABASE_URL is a read replica: sign-outs take effect only after its replication lag, and tickets cannot "
            "be redeemed.",
            "Set it to the primary.",
        )
    elif server.read_only:
        yield warning(
            "store",
            "PostgreSQL is read-only for this role (default_transaction_read_only): tickets (?ticket=) are "
            "AUTH_UNAVAILABLE. Providers set this when the disk is full.",
            "Free disk space at the provider, or ALTER ROLE … SET default_transaction_read_only = off.",
        )
    if server.trigger is False:
        yield warning(
            "store",
            "REVOCATION_CHANNEL is set, but no trigger of the session table notifies it: a sign-out takes effect at "
            "the next re-check.",
            "Create the trigger of docs/better-auth.md.",
        )
    elif server.trigger:
        yield ok("store", "The trigger of REVOCATION_CHANNEL exists.")
    yield judge_clock("PostgreSQL", server.offset_s, server.uncertainty_s)
