"""Each kind of incident, and each way in which a connection ends, has its sentence and its cause."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from watchout.common.errors import CloseCode
from watchout.common.why.incident import Incident, IncidentKind
from watchout.ctl.why import past
from watchout.ctl.why.alerts import TOLD_HERE
from watchout.ctl.why.past import incident_sentence
from watchout.gateway.hub.subscription import DropReason
from watchout.gateway.why.tally import By

AT = 1_700_000_000_000
K = IncidentKind


def incident(what: str, **fields: Any) -> Incident:
    given = {"what": what, "at": AT, "user": "ann", "streams": ("cam",), "connection": "gw/1.2"}
    return Incident(**{**given, **fields})


def said(what: str, **fields: Any) -> tuple[str, str]:
    found = incident_sentence(incident(what, **fields), "gw")
    assert found.at == AT
    return found.cause, found.text


@pytest.mark.parametrize(
    ("code", "reason", "by", "cause", "words"),
    [
        (1008, "AUTH_FAILED", "gateway", "refused_login", "closed 1008: its token was not valid"),
        (1008, "AUTH_TIMEOUT", "gateway", "refused_login", "it did not sign in within AUTH_TIMEOUT_S"),
        (1013, "AUTH_UNAVAILABLE", "gateway", "store_away", "the session store could not be asked"),
        (
            4500,
            "SESSION_ENDED",
            "gateway",
            "session_ended",
            "closed 4500: its session ended: expired, signed out, revoked",
        ),
        (4501, "STREAM_TAKEN_OVER", "gateway", "taken_over", "another camera of the same user registered its stream"),
        (4400, "SLOW_CONSUMER", "gateway", "too_many_alerts", "it did not read its alerts"),
        (1013, "TOO_MANY_CONNECTIONS", "gateway", "connection_limit", "there were too many connections"),
        (4408, "MESSAGE_TIMEOUT", "gateway", "stalled", "a message that it had begun stalled"),
        (1008, "repeated abuse", "gateway", "abuse", "more than ABUSE_LIMIT times"),
        (1008, "too many fragments", "gateway", "refused", "it broke a rule (too many fragments)"),
        (1012, "restart", "gateway", "restart", "the gateway was stopped or restarted"),
        (1002, "reserved bits", "gateway", "protocol_error", "it violated the WebSocket protocol (reserved bits)"),
        (1007, "text is not UTF-8", "gateway", "protocol_error", "its text was not UTF-8"),
        (1009, "", "gateway", "too_big", "a message was larger than MAX_MESSAGE_BYTES"),
        (1011, "", "gateway", "bug", "the request failed inside the gateway, whose log says why"),
        (
            1013,
            "too many unfinished bytes here, try again",
            "gateway",
            "try_later",
            "could not serve it then (too many",
        ),
        (
            1006,
            "nothing came from it for 120 s, not even a pong",
            "gateway",
            "closed_here",
            "ended: the gateway ended it",
        ),
        (1006, "…", "network", "lost", "ended: the connection was lost without a close frame: the network, the device"),
        (1000, "", "client", "left", "closed 1000: the client left by itself"),
        (1001, "going away", "client", "left", "the client left by itself ('going away')"),
        (0, "the reader left", "client", "left", "ended: the client left by itself"),
    ],
)
def test_each_way_to_end_has_its_sentence(code: int, reason: str, by: str, cause: str, words: str) -> None:
    found = said(K.CLOSED, code=code, reason=reason, by=by)
    assert (found[0], words in found[1]) == (cause, True), found


def test_every_close_code_of_ours_is_explained_and_who_ended_is_one_of_three() -> None:
    for code in CloseCode:
        if code is not CloseCode.GOING_AWAY:
            assert said(K.CLOSED, code=int(code), by="gateway")[0] != "closed_here", code
    assert set(get_args(By)) == {"client", "gateway", "network"}


def test_alerts_that_waited_are_said_with_their_number() -> None:
    numbers = {"seconds": 61.0, "messages_waiting": 5000.0, "bytes_waiting": 1_200_000.0}
    found = said(K.CLOSED, code=4400, reason="SLOW_CONSUMER", by="gateway", numbers=numbers, address="10.0.0.1")
    assert found == (
        "too_many_alerts",
        "gw/1.2 (ann, cam, 10.0.0.1) closed 4400: 5000 alerts (1.2 MB) waited for it; it lasted 61 s",
    )


def test_a_sum_of_earlier_ends_says_of_how_many_it_is() -> None:
    numbers = {"seconds": 7300.0, "frames_out": 4000.0, "dropped_slow": 7.0}
    found = said(
        K.CLOSED, code=4500, reason="SESSION_ENDED", by="gateway", numbers=numbers, address="10.0.0.1", connection="",
        count=412, until=1, summed=True,
    )  # fmt: skip
    assert found == (
        "session_ended",
        (
            "412 earlier connections (ann, cam, 10.0.0.1) at gw ended with 4500, for each: its session ended: "
            "expired, signed out, revoked or banned; together they lasted 2.0 h, 4000 frames out, frames not sent: 7 "
            "because its socket took no more"
        ),
    )
    text = said(K.CLOSED, code=4400, by="gateway", numbers={"messages_waiting": 40.0}, connection="", summed=True)[1]
    assert (
        text
        == "1 earlier connection (ann, cam) at gw ended with 4400, for each: 40 alerts (0 B) waited for all of them"
    )


def test_what_a_connection_had_is_said_at_its_end() -> None:
    numbers = {
        "seconds": 0.5, "frames_in": 1.0, "frames_out": 40.0, "alerts_out": 2.0, "alerts_in": 1.0, "limited": 3.0,
        "dropped_slow": 7.0, "dropped_rate": 2.0,
    }  # fmt: skip
    text = said(K.CLOSED, code=1000, by="client", numbers=numbers, streams=tuple("abcde"), user="")[1]
    assert text.startswith("gw/1.2 (nobody signed in, a, b, c, 2 more) closed 1000: ")
    assert text.endswith(
        "; it lasted 500 ms, 1 frame in, 40 frames out, 2 alerts out, 1 alert in, frames not sent: 7 because its "
        "socket took no more, 2 because it asked for fewer (maxFps), 3 messages over the rates"
    )


@pytest.mark.parametrize(
    ("what", "fields", "cause", "words"),
    [
        (K.REFUSED, {"code": 401, "address": "::1", "reason": "AUTH_FAILED: no"}, "refused_login",
         "a handshake from ::1 was refused with 401 by gw: AUTH_FAILED: no"),
        (K.REFUSED, {"code": 401, "address": "::1", "reason": "POST /alerts: AUTH_FAILED: no"}, "refused_login",
         "a request from ::1 was refused with 401 by gw: POST /alerts: AUTH_FAILED: no"),
        (K.REFUSED, {"code": 503, "count": 3, "until": AT + 2000}, "refused_handshake", "by gw, 3 times until "),
        (K.REFUSED, {"code": 0}, "refused_handshake", "a handshake from somebody was cut by gw"),
        (K.ERROR, {"reason": "INVALID_MESSAGE: not JSON", "count": 2}, "protocol_error",
         "gw/1.2 (ann, cam) was told twice: INVALID_MESSAGE: not JSON"),
        (K.ERROR, {"reason": "UNAUTHORIZED: not yours"}, "unauthorized", "was told: UNAUTHORIZED: not yours"),
        (K.ERROR, {"reason": "RATE_LIMITED: too fast"}, "rate_limit", "was told: RATE_LIMITED: too fast"),
        (K.DROPPED, {"numbers": {"slow": 7.0, "rate": 2.0}}, "slow_socket",
         "9 frames not sent to gw/1.2 (ann, cam): 7 because its socket took no more, 2 because it asked for fewer"),
        (K.DROPPED, {"numbers": {"rate": 2.0}, "until": AT + 60_000}, "asked_rate", "2 frames not sent to gw/1.2"),
        (K.DROPPED, {"numbers": {"new": 1.0}, "connection": ""}, "new", "1 frame not sent to a viewer (ann, cam): 1"),
        (K.DROPPED, {}, "dropped", "0 frames not sent"),
        (K.LIMITED, {"count": 9}, "rate_limit", "9 messages of gw/1.2 (ann, cam) were over the rates"),
        (K.UNSUBSCRIBED, {}, "hidden", "ended or changed its subscription, as a view that is hidden or paused does"),
        (K.ROUTER_LOST, {"reason": "slot 2"}, "router_away", "gw lost the router of slot 2: viewers of cameras at the"),
        (K.ROUTER_JOINED, {}, "router_back", "gw joined the router"),
        (K.DRAIN, {}, "restart", "gw was told to end, and asked its clients to reconnect (1012)"),
        (K.CLAIMED, {"reason": "gw-2"}, "claimed", "cam was registered by ann at gw-2"),
        (K.CLAIM_REFUSED, {"reason": "UNAUTHORIZED: this stream belongs to another user", "count": 4}, "claim_refused",
         "ann could not register cam 4 times: UNAUTHORIZED: this stream belongs to another user"),
        (K.TAKEN_OVER, {"reason": "gw-2"}, "taken_over", "cam was taken over: ann registered it again at gw-2, and"),
        (K.RELEASED, {"reason": "gw-2"}, "camera_gone", "the camera of cam left gw-2"),
        (K.MEMBER_LOST, {"reason": "gateway gw-2 (pid 5): silent"}, "gateway_lost",
         "gw lost gateway gw-2 (pid 5): silent: it was killed, hangs, or is cut off; what it knew of its clients is"),
        (K.MEMBER_LOST, {"reason": "mlbridge b (pid 5): silent"}, "bridge_lost", "were not analysed until another"),
        (K.ALERT_REFUSED, {"reason": "no severity"}, "alert_refused", "gw refused an alert of the ML service for cam:"),
        (K.ALERT_REFUSED, {"streams": ()}, "alert_refused", "gw refused an alert of the ML service: "),
        (K.ML_FAILED, {"reason": "status 500", "count": 12, "until": AT + 9000}, "ml_failed",
         "the ML service failed for cam at gw 12 times until "),
        (K.ML_AWAY, {"reason": "http://ml: refused"}, "ml_away", "failed for all streams of gw: http://ml: refused"),
        (K.ML_BACK, {"reason": "http://ml", "numbers": {"seconds": 9.0}}, "ml_back", "answered gw again after 9.0 s"),
        ("of a later release", {"reason": "why"}, "of_a_later_release", "gw remembers 'of a later release' of gw/1.2:"),
    ],
)  # fmt: skip
def test_each_kind_has_its_sentence(what: str, fields: dict[str, Any], cause: str, words: str) -> None:
    found = said(what, **fields)
    assert (found[0], words in found[1]) == (cause, True), found


def test_no_kind_and_no_reason_of_a_drop_is_without_words() -> None:
    assert set(past._MADE) | TOLD_HERE == set(IncidentKind), "the others are told in the life of their alert"
    assert not set(past._MADE) & TOLD_HERE
    assert set(past.DROPPED) == {str(reason) for reason in DropReason}
