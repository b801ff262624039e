"""The alerts that were sent last, beside a model that keeps their names."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.hub.sent_alerts import SentAlerts

#: Names whose joined forms are alike if nothing stands between them.
NAMES = st.sampled_from(["", "a", "aa", "b", "ab", "a b", "ä"])


@given(st.lists(st.tuples(NAMES, NAMES), max_size=40), st.integers(1, 5))
def test_an_alert_is_new_until_it_was_sent_and_again_when_it_is_forgotten(alerts, limit) -> None:
    sent, model = SentAlerts(limit), OrderedDict()
    for stream_id, key in alerts:
        assert sent.add(stream_id, key) is ((stream_id, key) not in model)
        model.setdefault((stream_id, key))
        if len(model) > limit:
            model.popitem(last=False)
        assert len(sent) == len(model)
