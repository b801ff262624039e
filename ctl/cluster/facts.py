"""What was found out about a site, before anything is concluded. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from watchout.common.bus.reply_records import ClusterReply

if TYPE_CHECKING:  # nats-py need not be installed
    from watchout.common.bus.nats.probe import NatsServerFacts
    from watchout.common.bus.nats.site import SiteFacts


@dataclass(frozen=True, slots=True)
class SlotAnswer:
    """What the router of a slot said; made by `survey`.

    Attributes:
        reply: its reply; None: there is none.
        why: why there is none, as a sentence without its full stop; empty where there is one.
        joined: whether a router accepted this command as a member.
        apart_ms: the router's clock minus the one here, in ms; None: unknown.
    """

    reply: ClusterReply | None = None
    why: str = ""
    joined: bool = False
    apart_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that `survey` found.

    Attributes:
        host: the name of this machine.
        slots: `CLUSTER_SLOTS` here; 1 without NATS.
        cluster: `CLUSTER_NAME`; empty without NATS.
        answers: by slot.
        site: what NATS knows; None without NATS, or where no server can be used.
        site_fault: why that is, as a sentence; empty without NATS and where there is `site`.
        servers: the servers of `WATCHOUT_BUS`.
    """

    host: str
    slots: int = 1
    cluster: str = ""
    answers: Mapping[int, SlotAnswer] = field(default_factory=dict)
    site: SiteFacts | None = None
    site_fault: str = ""
    servers: Sequence[NatsServerFacts] = ()
