"""URLs of ML services: which are taken, where they lead, what is said of others."""

from __future__ import annotations

import pytest

from watchout.common.errors import SettingsError
from watchout.common.ml_targets.declaration import InvalidMlUrl, addresses, schemes
from watchout.common.ml_targets.sentinel import SentinelUrl
from watchout.common.ml_targets.sentinel import parse as sentinels_of
from watchout.common.settings import load
from watchout.common.settings.ml_url import check
from watchout.common.toolbox.default_ports import DEFAULT_PORTS


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h", ("h", 80)), ("https://h", ("h", 443)), ("ws://h/p", ("h", 80)), ("wss://h", ("h", 443)),
        ("redis://h", ("h", 6379)), ("rediss://u:p@h/3", ("h", 6379)), ("nats://h", ("h", 4222)),
        ("tls://h", ("h", 4222)), ("tcp://h:1", ("h", 1)), ("http://[::1]", ("::1", 80)),
        ("redis://[::1]", ("::1", 6379)),
        ("wss://[2001:db8::7]/p", ("2001:db8::7", 443)), ("nats://[::1]:5", ("::1", 5)),
        ("http://h:8500/x", ("h", 8500)),
        ("redis+sentinel://h/main", ("h", 26379)), ("rediss+sentinel://[::1]:7/main", ("::1", 7)),
    ],
)  # fmt: skip
def test_a_url_leads_to_its_own_port_or_that_of_its_scheme(url: str, address: tuple[str, int]) -> None:
    assert addresses(check(url)) == [address]


def test_every_scheme_has_a_port_but_tcp_where_it_must_be_given() -> None:
    assert set(schemes()) - set(DEFAULT_PORTS) == {"tcp"}
    with pytest.raises(InvalidMlUrl):
        check("tcp://h")


def test_sentinels_are_several_and_know_a_master_by_name() -> None:
    url = check("redis+sentinel://u:p%40w@a,b:5,[::1]/my-master/2?frames=x")
    assert addresses(url) == [("a", 26379), ("b", 5), ("::1", 26379)]
    assert sentinels_of(url) == SentinelUrl((("a", 26379), ("b", 5), ("::1", 26379)), "my-master", 2, "u", "p@w")


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://a", "redis+sentinel://a/", "redis+sentinel:///m", "redis+sentinel://a,/m",
     "redis+sentinel://a:0/m", "redis+sentinel://a:99999/m", "redis+sentinel://a/m/x", "redis+sentinel://a/m#f"],
)  # fmt: skip
def test_sentinels_without_a_host_or_a_name_are_refused(url: str) -> None:
    with pytest.raises(InvalidMlUrl):
        check(url)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("localhost:8500", "is localhost:8500, expected http:// (or another scheme) before it, which is missing: http"),
        ("ml:8000/v1", "is ml:8000/v1, expected http://"),
        ("10.0.0.5", "http://10.0.0.5"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("ml.example.com/analyze", "http://ml.example.com/analyze"),
        ("//ml:8500", "is //ml:8500, expected http://"),
        ("http:/ml:8500", "two slashes after http:"),
        ("http:ml.example.com", "two slashes after http:"),
        ("redis:/ml:8500", "two slashes after redis:"),
        ("ml", "its scheme is missing, such as http://"),
        ("unix:///run/redis.sock", "is a unix:// URL, expected redis://host:port"),
        ("redis+cluster://h", "ML_REDIS_MODE=pubsub"),
        ("valkey://h", "redis://host"),
        ("ftp://h", "is a ftp:// URL, expected http(s)://"),
        ("http://", "is a http:// URL with no host, expected http(s)://host"),
        ("http://:8500", "is a http:// URL with no host, expected"),
        ("http://h:abc", "expected a port from 1 to 65535"),
        ("http://h:70000", "expected a port from 1 to 65535"),
        ("http://h:0", "is a http:// URL with port 0"),
        ("http://[::1", "whose host or port cannot be read"),
        ("http://a b", "with space"),
    ],
)  # fmt: skip
def test_a_value_that_is_no_url_is_shown_with_what_is_missing(value: str, says: str) -> None:
    for name in ("ML_SERVICE_URL", "ML_FALLBACK_URL"):
        with pytest.raises(SettingsError) as raised:
            load({"ML_SERVICE_URL": "http://h", name: value})
        (fault,) = raised.value.faults
        assert fault.startswith(name)
        assert says in fault


@pytest.mark.parametrize(
    "value",
    ["user:hunter2@host:8500", "hunter2hunter2", "host:8500?token=hunter2", "hunter2://u:hunter2@h",
     "http://u:hunter2", "http://u:hunter2@h:bad", "http://u:hun ter2@h", "http://u:hunter2@",
     "http:/u:hunter2@h",
     "unix://hunter2@/x", "redis+sentinel://:hunter2@h"],
)  # fmt: skip
def test_what_may_be_a_secret_is_not_shown(value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load({"ML_SERVICE_URL": value})
    assert "hunter2" not in str(raised.value)


def test_a_scheme_may_be_in_capitals() -> None:
    assert load({"ML_SERVICE_URL": "HTTP://Host:1/P/"}).ml_service_url == "http://Host:1/P"
    assert check("Rediss://h") == "rediss://h"
