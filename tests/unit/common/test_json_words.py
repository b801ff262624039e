"""What is wrong with a value is said in the words of JSON, with what came and what was expected."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watchout.common.alerts.model import AlertFields
from watchout.common.errors import ClientError
from watchout.common.toolbox.json_words import fault_in_words, kind_of, kind_of_text
from watchout.gateway.wire import parse_text

SUBSCRIBE = {"type": "subscribe", "streamId": "a"}
ALERT = {"type": "alert", "severity": "low", "message": "m"}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (ALERT | {"severity": "HIGH"}, "Expected low, medium, high or critical, got 'HIGH' - at `$.severity`"),
        (ALERT | {"severity": None}, "Expected low, medium, high or critical, got `null` - at `$.severity`"),
        (ALERT | {"message": 5}, "Expected `string`, got `number` - at `$.message`"),
        (ALERT | {"metadata": []}, "Expected `object | null`, got `array` - at `$.metadata`"),
        (SUBSCRIBE | {"format": "x"}, "Expected json or binary, got 'x' - at `$.format`"),
        (SUBSCRIBE | {"format": {}}, "Expected json or binary, got object - at `$.format`"),
        (SUBSCRIBE | {"streamId": {}}, "Expected `string`, got `object` - at `$.streamId`"),
        (SUBSCRIBE | {"maxFps": 0}, "Expected `number` >= 1e-06, got 0 - at `$.maxFps`"),
        (SUBSCRIBE | {"maxFps": True}, "Expected `number | null`, got `boolean` - at `$.maxFps`"),
        (SUBSCRIBE | {"window": 1.5}, "Expected `whole number | null`, got 1.5 - at `$.window`"),
        (SUBSCRIBE | {"consumes": [5]}, "Expected `string`, got `number` - at `$.consumes[0]`"),
        (SUBSCRIBE | {"consumes": ["a"] * 33}, "Expected `array` of length <= 32, got 33 - at `$.consumes`"),
        ({"type": "subscribe"}, "Object missing required field `streamId`"),
        ({"type": "video-frame", "data": {}}, "Expected `string`, got `object` - at `$.data`"),
        ({"type": "video-frame", "data": "", "timestamp": "x"},
         "Expected `number | null`, got `string` - at `$.timestamp`"),
        ({"type": "auth", "token": 12345}, "Expected `string`, got `number` - at `$.token`"),
        ({"type": "register", "info": [1]}, "expected an object in `info`, got array"),
        ({"type": "ping", "requestId": {}}, "expected a string of at most 64 characters in `requestId`, got object"),
        ({"type": None}, "expected a string in `type`, got null"),
        ({}, "expected a string in `type`, got none"),
        (None, "expected a JSON object, got null"),
        ([], "expected a JSON object, got array"),
        (True, "expected a JSON object, got boolean"),
    ],
)  # fmt: skip
def test_a_client_is_told_what_came_and_what_was_expected(message: object, text: str) -> None:
    with pytest.raises(ClientError) as refused:
        parse_text(json.dumps(message).encode())
    assert refused.value.message == text


def test_a_stream_id_that_is_none_is_shown_up_to_a_bound() -> None:
    with pytest.raises(ClientError) as refused:
        parse_text(json.dumps(SUBSCRIBE | {"streamId": "\x00" + "b" * 1000}).encode())
    assert "got '\\x00" + "b" * 39 + "' - at `$.streamId`" in refused.value.message


@pytest.mark.parametrize(("value", "kind"), [
    (None, "null"), (True, "boolean"), (False, "boolean"), (1, "number"), (-1.5, "number"), ("", "string"),
    ([], "array"), ({}, "object"),
])  # fmt: skip
def test_kinds_are_those_of_json(value: Any, kind: str) -> None:
    assert kind_of(value) == kind_of_text(json.dumps(value).encode()) == kind


def test_without_the_value_the_choices_are_told_too() -> None:
    assert fault_in_words("Invalid enum value 'x' - at `$.severity`", AlertFields).endswith("got 'x' - at `$.severity`")
    assert fault_in_words("something else", AlertFields) == "something else"
