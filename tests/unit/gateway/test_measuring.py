"""What a gateway answers about a name: since when all of it is remembered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from watchout.common.settings import Settings
from watchout.common.why.answer import decode_answer
from watchout.common.why.incident import Incident, IncidentKind
from watchout.common.why.memory import MAX_PER_SUBJECT, IncidentMemory
from watchout.gateway.context import Context
from watchout.gateway.router_client import RouterLinks
from watchout.gateway.why.measuring import Measuring
from watchout.gateway.why.recorder import Recorder


async def test_what_gave_way_of_one_name_is_not_missing_of_another() -> None:
    memory = IncidentMemory(keep_s=1e12)
    recorder = Recorder(Settings(), memory, "gw")
    for at in range(1, MAX_PER_SUBJECT + 6):
        memory.add(Incident(what=IncidentKind.DRAIN, at=recorder.started_ms + at, user="ann"))
    nothing: Any = SimpleNamespace(
        recorder=recorder, sockets=[], moving_pictures=[], hub=SimpleNamespace(streams={}, publications={})
    )
    measuring = Measuring(cast("Context", nothing), cast("RouterLinks", SimpleNamespace(own_id="aa")))
    since = {name: decode_answer(await measuring.answer(name)).since for name in ("ann", "bob")}
    assert since == {"ann": recorder.started_ms + 5, "bob": recorder.started_ms}
