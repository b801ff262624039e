"""Acknowledgements: notes, and the JSON of acknowledged alerts."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.acknowledgement import (
    Acknowledgement,
    acknowledged_json,
    acknowledged_message,
    clean_note,
)
from watchout.common.alerts.model import Alert, check_draft

GIVEN = Acknowledgement(user="ann", at=5, note='"seen"')


def test_an_acknowledged_alert_has_the_acknowledgement_beside_all_its_other_fields() -> None:
    alert = Alert(id="a", stream_id="cam", severity="low", message="m", timestamp=1, more={"acknowledged": 1, "x": 2})
    assert acknowledged_json(alert.json, None) == alert.json
    found = json.loads(acknowledged_json(alert.json, GIVEN))
    assert found == {**alert.body(), "acknowledged": {"userId": "ann", "note": '"seen"', "timestamp": 5}}


def test_the_message_names_stream_alert_and_user() -> None:
    assert json.loads(acknowledged_message("cam", "a", msgspec.structs.replace(GIVEN, note=None))) == {
        "type": "alert-acknowledged", "streamId": "cam", "alertId": "a", "userId": "ann", "timestamp": 5,
    }  # fmt: skip


def test_a_sender_cannot_say_that_its_alert_is_acknowledged() -> None:
    draft = check_draft({"severity": "low", "message": "m", "acknowledged": {"userId": "x"}, "bbox": [1]})
    assert draft.more == {"bbox": [1]}


@pytest.mark.parametrize(("note", "clean"), [("", None), ("a\ud83d", "a\ufffd"), ("\ud83d\ude00", "😀"), ("é", "é")])
def test_a_note_without_lone_surrogates(note: str, clean: str | None) -> None:
    assert clean_note(note) == clean


@given(st.text(st.characters(codec=None), max_size=50))
def test_every_note_can_be_encoded_afterwards(note: str) -> None:
    clean = clean_note(note)
    assert clean is None or (clean.encode() and len(clean) <= len(note))
