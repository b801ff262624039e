"""sdk/schema/messages.json and the server agree: what it writes is valid, what is valid it reads, no more."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.playbook import read
from watchout.common.alerts.acknowledgement import Acknowledgement, acknowledged_json, acknowledged_message
from watchout.common.alerts.model import Alert
from watchout.common.errors import ClientError, ErrorCode
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.gateway import wire

SCHEMA: Final = json.loads((Path(__file__).parents[3] / "sdk/schema/messages.json").read_text())
DEFS: Final[dict[str, Any]] = SCHEMA["$defs"]
CLIENT: Final = [entry["$ref"].removeprefix("#/$defs/") for entry in DEFS["ClientMessage"]["oneOf"]]
SERVER: Final = [entry["$ref"].removeprefix("#/$defs/") for entry in DEFS["ServerMessage"]["oneOf"]]

#: Fields whose invalid values the server takes all the same, and why.
TOLERATED: Final = {
    ("auth", "token"): "an empty or overlong token is valid here and AUTH_FAILED in its place",
    ("video-frame", "data"): "checked where it has to be decoded: the fast path does not read it",
}
#: Values of which each property's schema refuses some.
ODD_VALUES: Final = [
    "", "bad id!", "x" * 129, "x" * 5000, "ü", -1, 0, 0.5, 4, 33, 61, 2**32, 2**53, 1e300, True, [], [1], ["x" * 65],
    ["x"] * 33, {}, {"a": 1}, "json!", {"pad": "x" * 5000},
]  # fmt: skip


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": DEFS})


def tag(name: str) -> str:
    kind: str = DEFS[name]["properties"]["type"]["const"]
    return kind


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return DEFS[schema["$ref"].removeprefix("#/$defs/")] if "$ref" in schema else schema


# ── what the schema permits ──────────────────────────────────────────────────────────────────────────────────────────

TEXT: Final = st.text(max_size=20)
SCALARS: Final = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
FREE: Final = st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=3), max_size=4)


def strategy(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema permits. Raises `KeyError` for a kind of schema that it does not know."""
    schema = resolved(schema)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "object" and "properties" in schema:
        return message(schema)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"), fullmatch=True)
    low, high = schema.get("minimum"), schema.get("maximum")
    kinds: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "string": lambda: st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 99), 99)),
        "integer": lambda: st.integers(low, high),
        "number": lambda: st.floats(low, high, allow_nan=False) | st.integers(-(-low // 1).__int__(), int(high)),
        "boolean": st.booleans,
        "array": lambda: st.lists(strategy(schema["items"]), max_size=min(schema.get("maxItems", 9), 9)),
        "object": lambda: FREE,
    }
    return kinds[schema["type"]]()


def message(schema: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Messages of a definition, with other fields beside those that it names."""
    required = {name: strategy(schema["properties"][name]) for name in schema["required"]}
    optional = {name: strategy(value) for name, value in schema["properties"].items() if name not in required}
    named = st.fixed_dictionaries(required, optional=optional)
    others = st.dictionaries(TEXT.map(lambda text: f"x-{text}"), SCALARS, max_size=2)
    return st.builds(lambda all_named, more: {**more, **all_named}, named, others)


def test_the_schema_is_a_schema_and_names_each_message_once() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    messages = {name for name in DEFS if name.endswith("Message")} - {"ClientMessage", "ServerMessage"}
    assert messages == {*CLIENT, *SERVER}
    assert len({tag(name) for name in CLIENT}) == len(CLIENT)
    assert len({tag(name) for name in SERVER}) == len(SERVER)


def test_the_schema_has_the_client_messages_and_error_codes_of_the_server() -> None:
    assert {tag(name) for name in CLIENT} == set(wire.KNOWN_TYPES)
    assert DEFS["ErrorCode"]["enum"] == [str(code) for code in ErrorCode]
    assert set(DEFS["SuccessEvent"]["enum"]) == set(wire.Event.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CLIENT)
def test_the_schema_names_every_field_that_the_server_reads(name: str) -> None:
    struct = next(each for each in wire.AnyClientMessage.__args__ if each.__struct_config__.tag == tag(name))
    if tag(name) == "alert":
        return  # docs/schemas/alert.json is generated from its fields
    read_by_server = set(struct.__struct_encode_fields__) - {"more"}
    missing = read_by_server - set(DEFS[name]["properties"])
    assert not missing, f"{name} lacks {missing}"


PERMITTED: Final = {name: message(DEFS[name]) for name in CLIENT}


@pytest.mark.parametrize("name", CLIENT)
@given(data=st.data())
def test_what_the_schema_permits_is_parsed(name: str, data: st.DataObject) -> None:
    value = data.draw(PERMITTED[name])
    validator(name).validate(value)
    assert type(wire.parse_text(json.dumps(value).encode())).__struct_config__.tag == tag(name)


# ── what it does not permit ──────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def smallest(name: str) -> dict[str, Any]:
    examples: dict[str, Any] = {
        "type": tag(name), "streamId": "cam", "alertId": "a", "frameId": 1, "data": "AAAA", "token": "t",
        "severity": "low", "message": "m",
    }  # fmt: skip
    return {field: examples[field] for field in DEFS[name]["required"]}


def is_refused(value: dict[str, Any]) -> bool:
    try:
        wire.parse_text(json.dumps(value).encode())
    except ClientError:
        return True
    return False


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CLIENT for field in DEFS[name]["properties"]])
def test_what_the_schema_does_not_permit_is_refused(name: str, field: str) -> None:
    rules = DEFS[name]["properties"][field]
    fits = jsonschema.Draft202012Validator({**rules, "$defs": DEFS}).is_valid
    odd = [value for value in ODD_VALUES if not fits(value)]
    assert odd, "no value tries this rule"
    taken = [value for value in odd if not is_refused({**smallest(name), field: value})]
    if (tag(name), field) in TOLERATED:
        return
    assert not taken, f"{tag(name)}.{field} takes {taken[0]!r:.40}"


@pytest.mark.parametrize("name", CLIENT)
def test_a_message_without_a_field_that_it_needs_is_refused(name: str) -> None:
    for field in DEFS[name]["required"]:
        if (tag(name), field) not in TOLERATED:
            assert is_refused({key: value for key, value in smallest(name).items() if key != field})


# ── what the server writes ───────────────────────────────────────────────────────────────────────────────────────────

STREAM: Final = strategy({"$ref": "#/$defs/StreamId"})
TIME: Final = st.integers(0, 2**53 - 1)
ANY_TEXT: Final = st.text(max_size=50)
SUBJECT: Final = st.builds(wire.Subject, st.none() | st.text(max_size=64), st.none() | STREAM)
ALERT: Final = st.builds(
    lambda metadata, frame_id, more, **fields: Alert(**fields, metadata=metadata, frame_id=frame_id, more=more),
    id=strategy({"$ref": "#/$defs/AlertId"}),
    stream_id=STREAM,
    severity=st.sampled_from(["low", "medium", "high", "critical"]),
    message=st.text(min_size=1, max_size=99),
    timestamp=TIME,
    metadata=st.none() | FREE,
    frame_id=st.none() | st.integers(0, 2**32 - 1),
    more=st.dictionaries(TEXT.map(lambda text: f"x-{text}"), SCALARS, max_size=2),
)
SEEN: Final = st.builds(Acknowledgement, user=ANY_TEXT, at=TIME, note=st.none() | st.text(min_size=1, max_size=99))

#: Everything that `gateway.wire` writes, by the function that writes it: a new one needs a line here.
WRITTEN: Final[dict[str, st.SearchStrategy[bytes]]] = {
    "success": st.builds(wire.success, ANY_TEXT, st.sampled_from(DEFS["SuccessEvent"]["enum"]), TIME, SUBJECT),
    "error": st.builds(wire.error, st.sampled_from(ErrorCode), ANY_TEXT, TIME, SUBJECT),
    "status": st.builds(
        wire.status,
        STREAM,
        st.sampled_from(["streaming", "online", "offline"]),
        TIME,
        st.sampled_from([None, "", "{}", '{"deviceName":"x","n":[1,null]}']),
    ),
    "demand": st.builds(wire.demand, STREAM, st.integers(0, 9999), st.floats(0, 1e6), TIME),
    "ping": st.builds(wire.ping, TIME),
    "ack": st.builds(wire.ack, STREAM, st.integers(0, 2**32 - 1), TIME, st.integers(0, 2**31)),
    "pong": st.builds(wire.pong, TIME, st.none() | st.text(max_size=64)),
    "frame_message": st.builds(
        lambda stream, number, at: wire.frame_message(
            Frame(stream, number, at, picture=b"\xff\xd8picture", codec=Codec.JPEG), "json"
        ),
        STREAM,
        st.integers(0, 2**32 - 1),
        TIME,
    ),
}
#: These make no message of their own.
PARTS: Final = {"frame_header", "text_message", "json_message"}


def test_every_encoder_is_held_against_the_schema() -> None:
    def is_encoder(function: Any) -> bool:
        return inspect.isfunction(function) and function.__module__ == wire.__name__ and (
            inspect.signature(function).return_annotation == "bytes"
        )  # fmt: skip

    encoders = {name for name, value in vars(wire).items() if not name.startswith("_") and is_encoder(value)}
    assert encoders - PARTS <= set(WRITTEN), "a message of the server without a check against the schema"


@pytest.mark.parametrize("name", WRITTEN)
@given(data=st.data())
def test_what_the_server_writes_is_permitted(name: str, data: st.DataObject) -> None:
    validator("ServerMessage").validate(read(data.draw(WRITTEN[name])))


@given(ALERT, SEEN)
def test_alerts_and_their_acknowledgements_are_permitted(alert: Alert, seen: Acknowledgement) -> None:
    check = validator("ServerMessage").validate
    check(json.loads(alert.to_json()))
    check(json.loads(acknowledged_json(alert.to_json(), seen)))
    check(json.loads(acknowledged_message(alert.stream_id, alert.id, seen)))


@pytest.mark.parametrize("name", SERVER)
def test_a_message_of_the_server_without_a_field_is_not_permitted(name: str) -> None:
    """The schema says which fields a client can rely on."""
    examples: dict[str, Any] = {
        "type": tag(name), "message": "m", "event": "subscribed", "timestamp": 1, "code": "UNAUTHORIZED",
        "streamId": "s", "status": "online", "frameId": 1, "data": "AAAA", "id": "a", "severity": "low", "viewers": 1,
        "fps": 1, "alertId": "a", "userId": "u",
    }  # fmt: skip
    whole = {field: examples[field] for field in DEFS[name]["required"]}
    assert validator("ServerMessage").is_valid(whole)
    for field in whole:
        assert not validator("ServerMessage").is_valid({key: value for key, value in whole.items() if key != field})
