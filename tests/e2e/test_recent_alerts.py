"""`GET /alerts` over real processes: of one stream or of all, by severity, in either order, and wrong questions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.clients import Answer, http, new_name
from tests.kit.processes import SERVICE_TOKEN

pytestmark = pytest.mark.e2e

SEVERITIES = ("low", "medium", "high", "critical")


async def push(url: str, stream: str, *severities: str) -> None:
    body = [{"streamId": stream, "severity": severity, "message": f"{stream} {severity}"} for severity in severities]
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
    assert answer.status == 202


async def ask(url: str, token: str, query: str) -> Answer:
    return await http(f"{url}/alerts{query}", token=token)


async def messages(url: str, token: str, query: str) -> list[str]:
    answer = await ask(url, token, query)
    assert answer.status == 200, answer
    return [alert["message"] for alert in answer.json["alerts"]]


async def test_the_severity_is_the_least_that_is_wanted_and_either_end_comes_first(plain_watchout, clients):
    url, token = plain_watchout.url, plain_watchout.token(new_name("ann"))
    stream = await (await clients.camera(url, token)).register(new_name())
    await push(url, stream, *SEVERITIES, "low")
    all_of_them = [f"{stream} {severity}" for severity in (*SEVERITIES, "low")]
    assert await messages(url, token, f"?streamId={stream}") == all_of_them
    assert await messages(url, token, f"?streamId={stream}&order=asc&severity=low") == all_of_them
    assert await messages(url, token, f"?streamId={stream}&order=desc") == all_of_them[::-1]
    for at, severity in enumerate(SEVERITIES[1:], 1):
        assert await messages(url, token, f"?streamId={stream}&severity={severity}") == all_of_them[at:4]
    # The limit counts what is wanted, from the newest on.
    assert await messages(url, token, f"?streamId={stream}&severity=high&limit=1") == all_of_them[3:4]
    assert await messages(url, token, f"?streamId={stream}&order=desc&limit=2") == [all_of_them[4], all_of_them[3]]


async def test_without_a_stream_come_those_of_all_that_the_caller_may_have(plain_watchout, clients):
    url = plain_watchout.url
    ann, bob = (plain_watchout.token(new_name(name)) for name in ("ann", "bob"))
    mine, other, his = [
        await (await clients.camera(url, token)).register(new_name(kind))
        for token, kind in ((ann, "mine"), (ann, "other"), (bob, "his"))
    ]
    for number in range(3):
        for stream in (mine, his, other):
            await push(url, stream, SEVERITIES[number])
    wanted = [f"{stream} {SEVERITIES[number]}" for number in range(3) for stream in (mine, other)]

    def of_cameras(found: list[str]) -> list[str]:
        return [message for message in found if message.split()[0] in (mine, other, his)]

    assert of_cameras(await messages(url, ann, "?limit=1000")) == wanted
    assert of_cameras(await messages(url, ann, "?limit=1000&order=desc")) == wanted[::-1]
    assert of_cameras(await messages(url, ann, "?limit=1000&severity=high")) == wanted[4:]
    assert of_cameras(await messages(url, bob, "")) == [f"{his} {severity}" for severity in SEVERITIES[:3]]
    # However many alerts strangers have: the limit counts one's own.
    assert of_cameras(await messages(url, ann, "?limit=6")) == wanted
    unauthenticated = await http(f"{url}/alerts")
    assert (unauthenticated.status, unauthenticated.error) == (401, "AUTH_REQUIRED")


async def test_what_everybody_may_have_is_had_by_everybody(watchout, clients):
    started = watchout(environ={"STREAM_ACCESS": "authenticated"})
    ann, bob = started.token("ann"), started.token("bob")
    stream = await (await clients.camera(started.url, ann)).register()
    await push(started.url, stream, "low")
    assert await messages(started.url, bob, "") == [f"{stream} low"]


@pytest.mark.parametrize(
    ("query", "came", "expected"),
    [
        ("severity=fatal", "fatal", "medium, high"), ("severity=LOW", "LOW", "low, medium, high, critical"),
        ("order=newest", "newest", "asc, desc"), ("limit=0", "0", "1 to 1000"), ("limit=1001", "1001", "1 to 1000"),
        ("limit=ten", "ten", "1 to 1000"), ("since=yesterday", "yesterday", "ms since"), ("since=-1", "-1", "from 0"),
        ("since=9007199254740993", "9007199254740993", "to 9007199254740991"),
        ("streamId=a%20b", "a b", "A-Z a-z 0-9"), ("streamId=", "''", "1 to 128"),
    ],
)  # fmt: skip
async def test_a_wrong_question_is_told_what_came_and_what_was_expected(plain_watchout, query, came, expected):
    answer: Any = await ask(plain_watchout.url, plain_watchout.token(new_name()), f"?{query}")
    assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
    message = answer.json["error"]["message"]
    assert came in message
    assert expected in message
