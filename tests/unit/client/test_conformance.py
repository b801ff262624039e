"""The dialogues of sdk/conformance, with the cores of the Python client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.client_core import online
from tests.kit.sdk_dialogue import Player, load
from watchout.client.commands import ConnectionPhase

TOLD = load()
#: Cookies are for browsers: a Python client always has a token.
DIALOGUES = [each for each in TOLD["dialogues"] if "cookie" not in each["client"]]


def test_the_file_is_of_a_known_format_and_only_cookies_are_left_out() -> None:
    assert TOLD["format"] == 1
    assert len(TOLD["dialogues"]) - len(DIALOGUES) <= 1
    assert len(DIALOGUES) > 40


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda each: each["name"])
def test_the_client_keeps_to_the_dialogue(dialogue: Any) -> None:
    Player(dialogue).play()


@pytest.mark.parametrize("row", TOLD["closeCodes"], ids=lambda row: f"{row['code']} {row.get('errorCode', '')}")
def test_a_close_code_makes_the_client_do_what_the_table_says(row: Any) -> None:
    run = online()
    if "errorCode" in row:
        run.say("error", code=row["errorCode"], message="why")
    run.close(None if row["code"] == 1006 else row["code"])
    if row["means"] == "renew":
        assert run.asked_tokens[-1] in ("rejected", "ended")
        assert run.error is None
    else:
        assert run.asked_tokens == ["connect"]
        expected = {"reconnect": ConnectionPhase.WAITING, "stop": ConnectionPhase.CLOSED}
        assert run.phase is expected[row["means"]]
