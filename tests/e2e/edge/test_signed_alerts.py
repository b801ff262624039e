"""Alerts of services that sign their requests, as Standard Webhooks says."""

from __future__ import annotations

import asyncio
import base64
import gzip
import time

import pytest

from tests.e2e.edge.support import ALERT, SIGNED, push
from tests.kit.clients import Answer, eventually, http
from tests.kit.ports import free_port
from tests.kit.processes import SERVICE_TOKEN


def accepted(answer: Answer) -> list[tuple[str, bool]]:
    assert answer.status == 202, answer
    return [(each["id"], each["duplicate"]) for each in answer.json["accepted"]]


async def test_a_signed_alert_is_taken_once_however_often_it_comes(signed, clients):
    token = signed.token()
    camera, viewer = await clients.camera(signed.url, token), await clients.viewer(signed.url, token)
    stream = await camera.register()
    await viewer.subscribe(stream)
    alert = {**ALERT, "streamId": stream}
    assert accepted(await push(signed.url, "msg_one", alert)) == [("msg_one", False)]
    assert accepted(await push(signed.url, "msg_one", alert)) == [("msg_one", True)]
    assert accepted(await push(signed.url, "msg_two", [alert, {**alert, "id": "own"}, alert])) == [
        ("msg_two.0", False), ("own", False), ("msg_two.2", False),
    ]  # fmt: skip
    assert accepted(await push(signed.url, "msg_two", [alert])) == [
        ("msg_two.0", True), ("own", True), ("msg_two.2", True),
    ]  # fmt: skip
    heard = [(await viewer.find("alert"))["id"] for _ in range(4)]
    assert heard == ["msg_one", "msg_two.0", "own", "msg_two.2"]
    assert not [message for message in await viewer.rest() if message["type"] == "alert"]


async def test_the_service_token_still_opens_the_path(signed):
    answer = await http(f"{signed.url}/alerts", method="POST", token=SERVICE_TOKEN, body=ALERT)
    assert [duplicate for _, duplicate in accepted(answer)] == [False]


async def test_every_refusal_looks_the_same(signed, plain_watchout):
    now = int(time.time())
    answers = [
        await push(signed.url, "a", ALERT, secret=b"x" * 24),
        await push(signed.url, "a", ALERT, tamper=b" "),
        await push(signed.url, "a", ALERT, timestamp=now - 360),
        await push(signed.url, "a", ALERT, timestamp=now + 360),
        await push(signed.url, "a.b", ALERT),
        await push(signed.url, "a", ALERT, headers={"webhook-signature": "v2,AAAA"}),
        await push(signed.url, "a", ALERT, headers={"webhook-signature": "v1,AAAA " * 40}),
        await push(signed.url, "a", ALERT, headers={"Content-Encoding": "gzip"}),
        await push(plain_watchout.url, "a", ALERT),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT, token="wrong"),
        await http(f"{signed.url}/alerts", method="POST", body=ALERT, token=signed.token()),
    ]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert answers[0].error == "AUTH_FAILED"


async def test_an_old_secret_is_good_while_it_is_rotated(watchout):
    pair = f"{SIGNED['SERVICE_WEBHOOK_SECRETS']},whsec_{base64.b64encode(b'n' * 32).decode()}"
    started = watchout(environ={"SERVICE_WEBHOOK_SECRETS": pair, "SERVICE_TOKEN": ""})
    assert accepted(await push(started.url, "a", ALERT)) == [("a", False)]
    assert accepted(await push(started.url, "b", ALERT, secret=b"n" * 32)) == [("b", False)]


async def test_an_alert_that_does_not_fit_is_refused_and_its_correction_is_taken(signed):
    assert (await push(signed.url, "fix", {"severity": "huge"})).status == 400
    assert accepted(await push(signed.url, "fix", ALERT)) == [("fix", False)]


async def test_what_the_router_did_not_take_is_processed_when_it_comes_again(watchout):
    started = watchout(environ={**SIGNED, "ROUTER_TIMEOUT_S": "0.5"})
    started.one("router").kill()
    answer = await push(started.url, "late", ALERT)
    assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "ROUTING_ERROR", "1")
    started.start("router")
    await eventually(lambda: _healthy(started.url), 30)

    async def taken() -> Answer | None:
        """On a busy machine the router may take it and say so too late."""
        answer = await push(started.url, "late", ALERT)
        return answer if answer.status == 202 else None

    await eventually(taken)
    assert accepted(await eventually(taken)) == [("late", True)]
    kept = await http(f"{started.url}/alerts?streamId={ALERT['streamId']}", token=started.token())
    assert [alert["id"] for alert in kept.json["alerts"]] == ["late"]


async def test_a_retry_at_another_gateway_has_no_second_effect(watchout, clients):
    started = watchout(environ=SIGNED)
    port = free_port()
    other = started.start("gateway", {"WATCHOUT_PORT": str(port)})
    other.wait_for_output("gateway ready")
    second = f"http://127.0.0.1:{port}"
    await eventually(lambda: _healthy(second), 30)
    assert accepted(await push(started.url, "both", [ALERT, ALERT])) == [("both.0", False), ("both.1", False)]
    assert accepted(await push(second, "both", [ALERT, ALERT])) == [("both.0", True), ("both.1", True)]


@pytest.mark.parametrize("recent", ["0", "5"])
async def test_a_retry_at_another_gateway_has_no_second_effect_although_the_router_kept_other_alerts(watchout, recent):
    started = watchout(environ={**SIGNED, "RECENT_ALERTS": recent})
    port = free_port()
    other = started.start("gateway", {"WATCHOUT_PORT": str(port)})
    other.wait_for_output("gateway ready")
    second = f"http://127.0.0.1:{port}"
    await eventually(lambda: _healthy(second), 30)
    assert accepted(await push(started.url, "once", ALERT)) == [("once", False)]
    others = [ALERT] * 20
    assert all(not duplicate for _, duplicate in accepted(await push(started.url, "others", others)))
    assert accepted(await push(second, "once", ALERT)) == [("once", True)]


async def _healthy(url: str) -> bool:
    return (await http(f"{url}/health")).status == 200


@pytest.mark.parametrize("token", [SERVICE_TOKEN, "wrong"])
async def test_a_body_that_cannot_be_read_is_refused_and_leaves_no_traceback(signed, clients, token):
    lines = [f"Authorization: Bearer {token}", "Transfer-Encoding: chunked"]
    for path, late in (("/alerts", False), ("/alerts", True), ("/nowhere", True)):
        raw = await clients.raw(signed.url)
        head = raw.head(path, *lines, method="POST")
        await raw.send(head + (b"" if late else b"2\r\nab\r\nzz\r\n"))
        if late:
            await asyncio.sleep(0.1)
            await raw.send(b"zz\r\n")
        if not late or token != SERVICE_TOKEN:
            assert 400 <= (await raw.answer()).status < 500
        await raw.leave()
    bomb = gzip.compress(bytes(8 << 20))
    for headers in ({"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}):
        answer = await http(f"{signed.url}/alerts", method="POST", token=token, body=bomb, headers=headers)
        assert answer.status == (415 if token == SERVICE_TOKEN else 401)
    assert "Traceback" not in signed.output


async def test_a_body_over_the_bound_is_refused_before_it_is_sent(signed, clients):
    raw = await clients.raw(signed.url)
    lines = ["webhook-id: a", f"webhook-timestamp: {int(time.time())}", "webhook-signature: v1,AAAA"]
    await raw.send(raw.head("/alerts", *lines, f"Content-Length: {100 << 20}", method="POST"))
    assert (await raw.answer()).status == 413
