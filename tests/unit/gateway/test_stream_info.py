"""What a camera says of itself: how it is read, and which status messages carry it."""

from __future__ import annotations

import json

import pytest

from tests.kit.client_dialogues import registered
from tests.kit.hub import FakePublisher, FakeViewer, HubHarness, ms, word
from tests.kit.playbook import Playbook, camera, error, says, success
from watchout.common.bus.messages import PublicationState, StatusUpdate
from watchout.common.errors import ClientError
from watchout.gateway import wire
from watchout.gateway.client.commands import ChangePublication, ClaimStream, PublicationOptions
from watchout.gateway.hub.streams import Publication
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner, StreamState
from watchout.identity import Identity

DOOR = '{"deviceName":"door"}'


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def info_of(text: str) -> str | None:
    message = wire.parse_text(b'{"type":"register","info":%b}' % text.encode())
    assert isinstance(message, wire.Register)
    return message.info


def test_it_is_an_object_and_kept_as_it_is() -> None:
    assert info_of('{ "deviceName" : "door", "n": [1, {"x": null}] }') == '{"deviceName":"door","n":[1,{"x":null}]}'
    assert info_of("{}") == "{}"
    assert info_of("null") is None
    assert json.loads(info_of('{"a":"\\ud83d"}') or "") == {"a": "\ud83d"}


@pytest.mark.parametrize("bad", ["[]", '"text"', "5", "true"])
def test_what_is_no_object_is_refused(bad: str) -> None:
    with pytest.raises(ClientError, match="expected an object in `info`"):
        info_of(bad)


def test_it_has_4_kib_at_most_as_json() -> None:
    fits = json.dumps({"a": "x" * (4096 - 8)}, separators=(",", ":"))
    assert len(fits) == 4096
    assert info_of(fits) == fits
    assert info_of(json.dumps({"a": "é" * 2000})) is not None, "bytes of JSON, not of escapes"
    for over in (fits.replace("x", "xx", 1), json.dumps({"a": "é" * 2048}), json.dumps({"a": "x" * 100_000})):
        with pytest.raises(ClientError, match=r"`info` has \d+ bytes.*, expected at most 4096"):
            info_of(over)
    talk = Playbook(camera()) >> says(type="register", streamId="door", info={"a": "x" * 5000}, requestId="r")
    assert talk << error("INVALID_MESSAGE", streamId="door", requestId="r")


@pytest.mark.parametrize("tail", ["", ',"s":"\\ud83d"'])
def test_what_later_readers_could_not_read_is_refused(tail: str) -> None:
    def nested(depth: int) -> str:
        return '{"a":' + "[" * (depth - 1) + "]" * (depth - 1) + tail + "}"

    assert info_of(nested(100)) == nested(100)
    for depth in (101, 950, 1500):
        with pytest.raises(ClientError, match=r"nested (more than 100 deep|too deeply)"):
            info_of(nested(depth))


def test_a_number_that_is_not_finite_never_leaves_as_one() -> None:
    assert info_of('{"a":1e400}') == '{"a":null}', "as JSON.stringify writes it"
    with pytest.raises(ClientError, match="not finite"):
        info_of('{"a":1e400,"s":"\\ud83d"}')


def test_it_goes_with_the_claim_and_each_registration_says_it_anew() -> None:
    talk = Playbook(camera()) >> says(type="register", streamId="door", info={"deviceName": "door"})
    assert talk << ClaimStream("door", Owner("ann"), producing=False, info=DOOR)
    talk = registered() >> says(type="register", info={"deviceName": "door"})
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    talk = talk << ChangePublication(PublicationOptions(info=DOOR))
    talk = talk >> says(type="register")
    talk = talk << success("Registration successful. Stream ID: door", streamId="door")
    assert talk << ChangePublication(PublicationOptions())


# ── status ────────────────────────────────────────────────────────────────────────────────────────────────────────


def publish(harness: HubHarness, info: str, term: int = 1) -> Publication:
    return harness.hub.publish(
        "door", Owner("ann"), FakePublisher(), term=term, first_frame_id=1, producing=True, wants_alerts=False,
        info=info, now=0.0, now_ms=ms(0.0),
    )  # fmt: skip


def said(viewer: FakeViewer) -> list[tuple[str, object]]:
    """Status and info of the messages so far; "-" where the message does not mention it."""
    return [(message["status"], message.get("info", "-")) for message in viewer.messages]


def change(harness: HubHarness, publication: Publication, info: str) -> None:
    harness.hub.change_publication(
        publication, producing=True, wants_alerts=False, wants_demand=False, wants_status=False, info=info,
        now=0.0, now_ms=ms(0.0),
    )  # fmt: skip


def test_the_first_status_of_a_viewer_carries_it_and_later_ones_only_when_it_changes(harness: HubHarness) -> None:
    publication = publish(harness, DOOR)
    viewer = FakeViewer(harness.hub)
    viewer.subscribe("door")
    info = {"deviceName": "door"}
    assert said(viewer) == [("streaming", info)]
    harness.hub.tick(10.0, ms(10.0))
    harness.frame(publication, 11.0)
    assert said(viewer)[1:] == [("online", "-"), ("streaming", "-")]
    change(harness, publication, DOOR)
    assert len(said(viewer)) == 3, "the same again is no news"
    change(harness, publication, '{"n":2}')
    change(harness, publication, "")
    assert said(viewer)[3:] == [("streaming", {"n": 2}), ("streaming", {})]


def test_a_viewer_that_waits_gets_it_with_the_camera_and_each_time_anew(harness: HubHarness) -> None:
    viewer = FakeViewer(harness.hub)
    viewer.subscribe("door")
    harness.hub.release(publish(harness, DOOR), ms(1.0))
    publish(harness, DOOR, term=2)
    publish(harness, '{"n":2}', term=3)
    info = {"deviceName": "door"}
    assert said(viewer) == [
        ("offline", "-"), ("streaming", info), ("offline", "-"), ("streaming", info), ("streaming", {"n": 2}),
    ]  # fmt: skip


def test_it_comes_from_other_gateways_and_ends_with_the_camera(harness: HubHarness) -> None:
    viewer = FakeViewer(harness.hub)
    harness.hub.subscribe(
        Subscription("door", Identity("ann"), video=True, alerts=False), viewer,
        StreamState("online", Owner("ann"), 5, DOOR), 0.0, ms(0.0),
    )  # fmt: skip
    updates: list[StatusUpdate] = [
        StatusUpdate(stream="door", status="online", timestamp=0, term=5, user="ann", info=DOOR),
        StatusUpdate(stream="door", status="streaming", timestamp=0, term=5, user="ann", info=DOOR),
        StatusUpdate(stream="door", status="streaming", timestamp=0, term=6, user="ann", info='{"n":2}'),
        word("offline", term=6),
    ]
    for update in updates:
        harness.hub.on_status(update, 1.0, ms(1.0))
    assert said(viewer) == [
        ("online", {"deviceName": "door"}), ("streaming", "-"), ("streaming", {"n": 2}), ("offline", "-"),
    ]  # fmt: skip


def test_the_router_is_told(harness: HubHarness) -> None:
    publication = publish(harness, DOOR)
    assert [each.info for each in harness.changes() if isinstance(each, PublicationState)] == [DOOR]
    change(harness, publication, "")
    assert [each.info for each in harness.changes() if isinstance(each, PublicationState)] == [""]
