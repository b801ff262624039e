"""The published schemas say what the code does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from watchout.common import schemas
from watchout.common.alerts.model import STREAM_ID, AlertFault, check_draft
from watchout.common.media.frames import Frame
from watchout.mlbridge.targets.bodies import json_body

FOLDER = Path(__file__).parents[3] / "docs/schemas"
ALERT = Draft202012Validator(schemas.alert_schema())
FRAME = Draft202012Validator(schemas.frame_schema())

stream_ids = st.from_regex(STREAM_ID, fullmatch=True) | st.text(max_size=4)
whole = st.integers(-2, 2**64)
#: Within the bounds of metadata that a schema cannot say: bytes, depth, 64 bits.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
#: Fields as they should be, and as they should not.
drafts = st.fixed_dictionaries(
    {},
    optional={
        "severity": st.sampled_from(["low", "medium", "high", "critical"]) | st.sampled_from(["HIGH", "", 3, None]),
        "message": st.text(max_size=30) | st.none() | st.just("x" * 4096) | st.just("é" * 4097),
        "type": st.sampled_from(["alert", "alarm", None]),
        "streamId": st.none() | stream_ids | whole,
        "timestamp": st.none() | whole | st.booleans() | st.just(1730000000000.5) | st.text(max_size=3),
        "frameId": st.none() | whole | st.booleans() | st.just(0.5),
        "id": st.none() | st.text(max_size=4) | st.just("a" * 128) | st.just("a" * 129) | st.just("a\n"),
        "metadata": st.none() | st.dictionaries(st.text(max_size=8), json_values, max_size=4) | json_values,
        "boxes": json_values,
    },
)
good = st.fixed_dictionaries(
    {"severity": st.sampled_from(["low", "medium", "high", "critical"]), "message": st.text(min_size=1, max_size=30)},
    optional={
        "type": st.just("alert"),
        "streamId": st.none() | st.from_regex(STREAM_ID, fullmatch=True),
        "timestamp": st.none() | st.integers(0, 2**53 - 1),
        "frameId": st.none() | st.integers(0, 2**32 - 1),
        "id": st.none() | st.from_regex(r"[\x21-\x7e]{1,128}", fullmatch=True),
        "metadata": st.none() | st.dictionaries(st.text(max_size=8), json_values, max_size=4),
    },
)


def accepted(draft: object) -> bool:
    try:
        check_draft(draft)
    except AlertFault:
        return False
    return True


@pytest.mark.parametrize("name", schemas.FILES)
def test_the_published_schema_is_current_and_is_a_schema(name: str) -> None:
    schema = schemas.FILES[name]()
    assert (FOLDER / name).read_text() == schemas.render(schema), "run python docs/build.py"
    Draft202012Validator.check_schema(schema)
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("timestamp", [0, -0.0, 0.5, 5.0, 1730000000000.5, 2**53 - 1, -0.5, 2.0**53, 2**53, 1e300, "5"])
def test_the_schema_and_the_check_agree_about_a_time(timestamp: object) -> None:
    draft = {"severity": "low", "message": "m", "timestamp": timestamp}
    expected = not isinstance(timestamp, str) and 0 <= timestamp < 2**53  # type: ignore[operator]
    assert ALERT.is_valid(draft) is accepted(draft) is expected


@given(drafts | good | json_values)
def test_the_schema_and_the_check_of_alerts_agree(draft: Any) -> None:
    assert ALERT.is_valid(draft) == accepted(draft)


@given(good)
def test_a_good_alert_is_accepted_by_both(draft: dict[str, Any]) -> None:
    assert ALERT.is_valid(draft)
    assert accepted(draft)


@pytest.mark.parametrize("text", ["cam\n", "", "a" * 129, "cam 1", "é"])
def test_a_stream_id_ends_where_it_ends(text: str) -> None:
    draft = {"severity": "low", "message": "m", "streamId": text}
    assert not ALERT.is_valid(draft)
    assert not accepted(draft)


@given(st.from_regex(STREAM_ID, fullmatch=True), st.binary(min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_what_a_service_is_sent_fits_the_schema_of_the_frame(stream: str, picture: bytes, frame_id: int) -> None:
    picture = b"\xff\xd8\xff" + picture
    body = json.loads(bytes(json_body(Frame(stream, frame_id, 1_700_000_000_000, picture=picture))))
    FRAME.validate(body)
    assert base64.b64decode(body["frame"]) == picture
