"""What NATS knows of a site, for `watchout-ctl cluster`: beats of routers, leases, buckets. It changes nothing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from watchout.common.bus.nats.dialing import Dialer, close_surely
from watchout.common.bus.nats.probe import BucketFacts, DeniedSubjects, ask, bucket_facts
from watchout.common.bus.nats.subjects import Subjects
from watchout.common.bus.slot_entries import MAX_SLOTS, Beat, SlotEntry, decode_beat, decode_entry, decode_shape
from watchout.common.settings import Settings

#: Router processes of which beats are kept, at most.
MAX_ROUTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """The entry of a slot in the key-value store; made by `look_at_site`.

    `entry` is None where the key is missing, or is not of watchout. `age_s` are the seconds since it was written, by
    the clock of the NATS servers; None: not known.
    """

    entry: SlotEntry | None
    revision: int = 0
    age_s: float | None = None


@dataclass(slots=True)
class SiteFacts:
    """What was found; made by `look_at_site`.

    `beats` has the last beat of each router process that was heard, by its id. `slots` is the number of slots that the
    routers agreed on, None: not known. `leases` has the entries that could be read, by slot. `fault` says why JetStream
    cannot be asked, None if it can. `denied` are sentences on permissions that the user lacks.
    """

    beats: dict[str, Beat] = field(default_factory=dict)
    slots: int | None = None
    leases: dict[int, LeaseFacts] = field(default_factory=dict)
    buckets: list[BucketFacts] = field(default_factory=list)
    fault: str | None = None
    denied: list[str] = field(default_factory=list)


async def look_at_site(settings: Settings, listen_s: float) -> SiteFacts:
    """Listen for beats, and read the leases meanwhile.

    Args:
        settings: ``WATCHOUT_BUS``, ``BUS_*``, ``CLUSTER_NAME``, ``CLUSTER_SLOTS``.
        listen_s: Seconds for which beats are listened for.

    Returns:
        The facts.

    Raises:
        DialError: No server can be used.
        StartError: A file of ``BUS_*`` cannot be used.

    """
    subjects, errors, facts = Subjects(settings.cluster_name), DeniedSubjects(), SiteFacts()
    client, _ = await Dialer.of(settings, subjects.inbox()).dial(errors.callbacks)

    async def heard(message: Msg) -> None:
        beat = decode_beat(message.data)
        if beat is not None and (beat.router in facts.beats or len(facts.beats) < MAX_ROUTERS):
            facts.beats[beat.router] = beat

    until = asyncio.get_running_loop().time() + listen_s
    try:
        try:
            await client.subscribe(f"{subjects.cluster}.slots", cb=heard)
            await _read(client, facts, settings)
        except (NatsError, OSError) as error:
            facts.fault = f"{type(error).__name__}: {error}".removesuffix(": ")
        await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
    finally:
        await close_surely(client)
    facts.denied = list(errors.denied)
    return facts


async def _read(client: Client, facts: SiteFacts, settings: Settings) -> None:
    """Read the buckets' state, then the number of slots, then their entries."""
    names = [f"{settings.cluster_name}-{end}" for end in ("slots", "records")]
    infos = await asyncio.gather(*(ask(client, f"$JS.API.STREAM.INFO.KV_{name}") for name in names))
    facts.buckets = [bucket_facts(name, *info) for name, info in zip(names, infos, strict=True)]
    if facts.buckets[0].fault is not None:
        facts.fault = facts.buckets[0].fault
        return
    told_at = _time((infos[0][0] or {}).get("ts"))
    _, _, shape = await _value(client, names[0], "cluster")
    found = decode_shape(shape)
    facts.slots = None if found is None else found.slots
    slots = range(min(facts.slots or settings.slots, MAX_SLOTS))
    values = await asyncio.gather(*(_value(client, names[0], f"slot.{slot}") for slot in slots))
    for slot, (revision, written_at, value) in zip(slots, values, strict=True):
        if revision is not None:
            age_s = None if told_at is None or written_at is None else max(0.0, told_at - written_at)
            facts.leases[slot] = LeaseFacts(decode_entry(value), revision, age_s)


async def _value(client: Client, bucket: str, key: str) -> tuple[int | None, float | None, bytes | None]:
    """Return (revision, when it was written, value) of a key; a revision of None: it could not be read."""
    body = json.dumps({"last_by_subj": f"$KV.{bucket}.{key}"}).encode()
    reply, _ = await ask(client, f"$JS.API.STREAM.MSG.GET.KV_{bucket}", body)
    if reply is None:
        return None, None, None
    message: Any = reply.get("message")
    if not isinstance(message, dict):
        return 0, None, None
    try:
        value = base64.b64decode(str(message.get("data", "")), validate=True)
    except binascii.Error:
        value = None
    return int(message.get("seq") or 0), _time(message.get("time")), value


def _time(text: object) -> float | None:
    """Return a server's time in seconds since the epoch; None for what is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
