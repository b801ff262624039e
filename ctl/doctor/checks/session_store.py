"""Check of the session store: whether it answers, how fast, what its schema allows, and the options of its URL."""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import Settings
from watchout.common.settings.database_url import DatabaseUrl, parse
from watchout.common.toolbox.default_ports import DEFAULT_PORTS
from watchout.ctl.doctor.check import ASK_S, Check
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.scrubbing import visible_address
from watchout.identity import open_store
from watchout.identity.authenticator import auth_methods
from watchout.identity.schema.catalogue import SchemaRefusal
from watchout.identity.schema.plan import Plan
from watchout.identity.sources.session_store import DatabaseStore

#: Look-ups whose median latency is reported.
LOOKUPS: Final = 5
#: Latency of a look-up, in ms, from which clients notice each of them.
SLOW_LOOKUP_MS: Final = 200.0
_SLOW_REMEDY: Final = "Look at the load and the locks of the database, and at the network."
_CONNECTIONS_REMEDY: Final = "Raise max_connections of PostgreSQL, or lower STORE_CONNECTIONS."
#: Remedies by a text that the store's reason contains; the first that fits. Empty: the reason has the remedy.
_REMEDIES: Final = (
    ("row level security", ""),
    ("GRANT ", ""),
    ("ALTER TABLE ", ""),
    ("password authentication failed", "Set user and password in DATABASE_URL."),
    ("no pg_hba.conf entry", "Let PostgreSQL accept this user from here (pg_hba.conf), perhaps only over TLS."),
    ("too many", _CONNECTIONS_REMEDY),
    ("connection slots", _CONNECTIONS_REMEDY),
    ("does not exist", "Set user and database in DATABASE_URL."),
    ("sslmode=", "See the options of the URL in docs/better-auth.md."),
    ("cannot be reached", "Start PostgreSQL, or set host and port in DATABASE_URL."),
    ("no answer within", f"{_SLOW_REMEDY} The limit is STORE_TIMEOUT_S."),
    ("migrations have not run", "Run them (npx @better-auth/cli migrate), or name the tables."),
    ("No such file", "Set DATABASE_URL to Better Auth's file."),
    ("unable to open", "Let this user read and write the file and its directory."),
    ("locked", "Another process keeps it locked for writing: find that process."),
    ("not a database", "Set DATABASE_URL to Better Auth's file, or restore it."),
    ("malformed", "Restore the file."),
)


async def check_session_store(settings: Settings) -> list[Finding]:
    """Return the findings on the session store. Nothing is written to it, and no file is created."""
    url = settings.database_url
    if url is None and "session" not in auth_methods(settings):
        return [ok("store", "No session store is used: AUTH_METHODS has no session.")]
    if url is None:
        file = settings.home / SESSION_STORE_FILE
        if not await asyncio.to_thread(file.exists):
            text = f"The embedded session store {file} does not exist yet, `watchout-gateway` creates it."
            return [ok("store", text)]
        url = f"sqlite:{file}"  # opened as any other file: as the embedded store it would be created and repaired
    bounded = replace(settings, database_url=url, store_timeout_s=min(settings.store_timeout_s, ASK_S))
    is_file = url.startswith("sqlite:")
    address = url.removeprefix("sqlite:") if is_file else visible_address(url, DEFAULT_PORTS["postgresql"])
    where = f" at {address}" if address else ""
    on_url = [] if is_file else list(judge_url(parse(url), channel=settings.revocation_channel))
    store = open_store(bounded)
    assert isinstance(store, DatabaseStore), "open_store returns a DatabaseStore where there is a URL"
    try:
        plan, latency_ms = await _probe(store)
        return [*judge_store("SQLite" if is_file else "PostgreSQL", where, plan, latency_ms), *on_url]
    except StartError as exc:
        return [judge_failed_store(where, str(exc).removeprefix("the session store cannot be used: ")), *on_url]
    except StoreUnavailable as exc:
        return [judge_failed_store(where, str(exc)), *on_url]
    finally:
        await store.close()


CHECK: Final = Check("store", check_session_store)


async def _probe(store: DatabaseStore) -> tuple[Plan, float]:
    """Return the store's query plan and the median latency of a look-up in ms.

    Raises `StartError` or `StoreUnavailable` with the reason why it cannot be used.
    """
    await store.open()
    plan = store.plan
    if plan is None:
        await store.check()  # raises with the reason
        plan = store.plan
    assert plan is not None, "a store that answers has a plan"
    latencies_ms: list[float] = []
    for _ in range(LOOKUPS):
        began = time.perf_counter()
        await store.find([secrets.token_hex(16)])
        latencies_ms.append(1000 * (time.perf_counter() - began))
    return plan, statistics.median(latencies_ms)


def judge_failed_store(where: str, reason: str) -> Finding:
    """Return the finding on a store that gives no answers, with a remedy for its reason."""
    remedy = next((remedy for words, remedy in _REMEDIES if words in reason), "")
    has_sql = any(words in reason for words in ("GRANT ", "ALTER TABLE ", "ALTER ROLE "))
    end = "" if has_sql else "."  # SQL at the end is there to be copied
    return wrong("store", f"The session store{where} cannot be used, so nobody can sign in: {reason}{end}", remedy)


def judge_store(kind: str, where: str, plan: Plan, latency_ms: float) -> Iterator[Finding]:
    """Yield the findings on a store that answers: its latency, its schema, missing indexes, one-time tickets."""
    facts = plan.facts
    slow = latency_ms > SLOW_LOOKUP_MS
    yield (warning if slow else ok)(
        "store",
        f"{kind} {facts.get('version')}{where} answers; a look-up takes {latency_ms:.1f} ms (median of {LOOKUPS}).",
        _SLOW_REMEDY if slow else "",
        latencyMs=round(latency_ms, 2),
        version=facts.get("version"),
    )
    shared = f", members in {facts['organizations']}" if facts.get("organizations") else ""
    bans = "bans are honoured" if facts.get("bans") else "there are no bans"
    yield ok(
        "schema",
        f"Sessions are in {facts.get('session')}, users in {facts.get('user')}{shared}: {facts.get('spelling')}, dates "
        f"are {facts.get('dates')}, ids are {facts.get('ids')}, {bans}.",
        **facts,
    )
    for text in plan.warnings:
        name, _, _ = text.partition(" has no index")
        owner, _, column = name.rpartition(".")
        yield warning("schema", f"{text}.", f"CREATE INDEX ON {owner} ({column})" if owner else "")
    if isinstance(plan.redeem, SchemaRefusal):
        yield warning(
            "schema",
            "One-time tickets (?ticket=) cannot be redeemed (AUTH_UNAVAILABLE); that does no harm where no client uses "
            f"any: {plan.redeem.reason}",
        )
    else:
        yield ok("schema", f"One-time tickets (?ticket=) are redeemed from {facts.get('tickets')}.")


def judge_url(url: DatabaseUrl, *, channel: str | None) -> Iterator[Finding]:
    """Yield the findings on options of `DATABASE_URL` that have no effect; `channel` is `REVOCATION_CHANNEL`."""
    if url.unknown:
        yield warning(
            "store",
            f"DATABASE_URL has options that are not known here and not sent to the server: {', '.join(url.unknown)}.",
            "Leave them out; docs/better-auth.md lists the known ones.",
            options=list(url.unknown),
        )
    if url.ignored:
        text = f"Options of DATABASE_URL that have no effect here: {', '.join(url.ignored)}."
        yield ok("store", text, options=list(url.ignored))
    if channel is not None and url.transaction_pooler:
        yield warning(
            "store",
            "REVOCATION_CHANNEL is set, but DATABASE_URL leads through a transaction pooler (port 6543, "
            "pgbouncer=true), which loses notifications: a sign-out takes effect at the next re-check.",
            "Set DATABASE_URL to the direct address.",
        )
