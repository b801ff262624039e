"""The verdict on the router."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.doctor_report import levels, one
from watchout.ctl.doctor.findings import Level
from watchout.ctl.doctor.router_state import RouterFacts, judge_router

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


@pytest.mark.parametrize(
    ("router", "gateway", "level", "words"),
    [
        (RouterFacts(), False, OK, "No router runs on /srv/w"),
        (RouterFacts(has_socket=True), False, WARNING, "it was killed, or hangs"),
        (RouterFacts(), True, WRONG, "No router replies on /srv/w"),
        (RouterFacts(has_socket=True), True, WRONG, "No router replies"),
        (RouterFacts(has_socket=True, site="w"), False, WRONG, "No router of the site w replies over NATS"),
        (
            RouterFacts(has_socket=True, replies=True, up_s=3700, gateways=[1, 2], bridges=1, streams=1),
            True,
            OK,
            "The router replies, up 1h01m: 2 gateways, 1 mlbridge, 1 stream.",
        ),
    ],
)
def test_every_router(router: RouterFacts, gateway: bool, level: Level, words: str) -> None:
    finding = one(judge_router(router, Path("/srv/w"), has_gateway=gateway, has_ml_service=False))
    assert finding.level is level
    assert words in finding.says


def test_slots_without_a_router_are_named() -> None:
    router = RouterFacts(has_socket=True, replies=True, missing_slots=[1, 3])
    found = list(judge_router(router, Path("/w"), has_gateway=True, has_ml_service=False))
    assert levels(iter(found)) == [OK, WARNING]
    assert "slots 1, 3" in found[1].says


def test_an_ml_service_without_a_bridge_is_a_warning() -> None:
    router = RouterFacts(has_socket=True, replies=True)
    assert levels(judge_router(router, Path("/w"), has_gateway=True, has_ml_service=True)) == [OK, WARNING]
