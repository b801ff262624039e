"""WATCHOUT_BUS: every form of a NATS URL, what is refused and in which words, and no secret in any of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.errors import SettingsError
from watchout.common.process.about import reported_settings
from watchout.common.settings import load
from watchout.common.settings.bus_servers import BusServer, bus_servers
from watchout.common.settings.spec import InvalidValue


def faults(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.faults


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("nats://a:4223", BusServer("nats", "a", 4223)),
        ("nats://a", BusServer("nats", "a", 4222)),
        ("nats://a/", BusServer("nats", "a", 4222)),
        ("nats://a:", BusServer("nats", "a", 4222)),
        ("NATS://a", BusServer("nats", "a", 4222)),
        ("tls://a.example.com", BusServer("tls", "a.example.com", 4222)),
        ("ws://a", BusServer("ws", "a", 80)),
        ("wss://a/nats/ws", BusServer("wss", "a", 443, "/nats/ws")),
        ("a", BusServer("nats", "a", 4222)),
        ("nats-1.example.com", BusServer("nats", "nats-1.example.com", 4222)),
        ("10.0.0.7:4444", BusServer("nats", "10.0.0.7", 4444)),
        ("[2001:db8:0::7]:4444", BusServer("nats", "2001:db8::7", 4444)),
        ("nats://[::1]", BusServer("nats", "::1", 4222)),
        ("u:p@a", BusServer("nats", "a", 4222, user="u", password="p")),
        ("nats://u:p%40%2F%2C@a", BusServer("nats", "a", 4222, user="u", password="p@/,")),
        ("nats://u:p@q@a", BusServer("nats", "a", 4222, user="u", password="p@q")),
        ("nats://u:@a", BusServer("nats", "a", 4222, user="u", password="")),
        ("t0ken@a:1", BusServer("nats", "a", 1, token="t0ken")),
    ],
)
def test_each_form_of_a_server_is_read(text: str, server: BusServer) -> None:
    assert bus_servers(text) == (server,)


def test_a_list_keeps_its_order_and_names_each_server_once() -> None:
    assert list(map(str, bus_servers("nats://b, a:5\ttls://[::1], nats://b:4222,"))) == [
        "nats://b:4222", "nats://a:5", "tls://[::1]:4222",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "received", "expected"),
    [
        ("zeromq", "'zeromq'", "or nothing for the bus of one machine"),
        ("true", "'true'", "or nothing for the bus of one machine"),
        (",", "a list without a server", "nats://host:4222"),
        ("http://a", "a http:// URL", "nats://host:4222"),
        ("redis://a,nats://b", "a redis:// URL", "nats://host:4222"),
        ("é://a", "a URL with an invalid scheme", "nats://host:4222"),
        ("nats://", "a URL with no host", "percent-encoded"),
        ("nats://:4222", "a URL with no host", "percent-encoded"),
        ("nats://a?x=1", "a host that is no name", "percent-encoded"),
        ("nats://a:0", "a URL with another port", "from 1 to 65535"),
        ("nats://a:65536", "a URL with another port", "from 1 to 65535"),
        ("a:b", "a URL with another port", "from 1 to 65535"),
        ("nats://a/path", "a nats:// URL with a path", "no path"),
        ("nats://@a", "a URL with no user", "user:password@ or token@"),
        ("nats://:p@a", "a URL with no user", "user:password@ or token@"),
        ("::1", "without brackets", "in brackets"),
        ("[::1", "an address that is none", "in brackets"),
        ("[a]", "an address that is none", "in brackets"),
        ("nats://a,ws://b", "both plain NATS and WebSocket", "either nats:// and tls://"),
        (",".join(f"a{number}" for number in range(65)), "a list of 65", "at most 64"),
    ],
)
def test_what_is_no_server_is_refused_with_what_came_and_what_was_expected(
    text: str, received: str, expected: str
) -> None:
    (fault,) = faults(WATCHOUT_BUS=text)
    assert fault.startswith("WATCHOUT_BUS is ")
    what, _, remedy = fault.partition(", expected ")
    assert received.removeprefix("a URL with ") in what
    assert expected in remedy


@given(st.text(st.characters(codec="ascii", exclude_characters=", \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"), max_size=40))
def test_any_text_is_a_server_or_an_error(text: str) -> None:
    try:
        found = bus_servers(text)
    except InvalidValue:
        return
    for server in found:
        assert bus_servers(str(server))[0].host == server.host


SECRET = "s3cr3t-0f-the-bus"


@pytest.mark.parametrize("url", [f"nats://user:{SECRET}@", f"{SECRET}@", f"tls://{SECRET}:{SECRET}@"])
@pytest.mark.parametrize("rest", ["", ":1", "a:x", "a/b", "[", "::", "a?", " b", "a,ws://b", "a b"])
def test_no_credential_is_shown_anywhere(url: str, rest: str) -> None:
    shown = ""
    try:
        settings = load({"WATCHOUT_BUS": url + rest})
    except SettingsError as error:
        shown = str(error)
    else:
        names = [repr(server) for server in settings.bus if server.user != SECRET]
        shown = f"{settings!r} {reported_settings(settings)} {names} {' '.join(map(str, settings.bus))}"
    assert shown
    assert SECRET not in shown


def test_what_a_process_reports_of_the_servers_is_where_they_are() -> None:
    reported = reported_settings(load({"WATCHOUT_BUS": "u:p@a,tls://b:1"}))
    assert reported == {"WATCHOUT_BUS": "set (nats://a:4222, tls://b:1)"}


def test_files_and_ways_that_exclude_each_other_or_lack_another(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    some = str(file)
    assert faults(BUS_CA=some) == ("BUS_CA is set, expected WATCHOUT_BUS with it",)
    assert faults(WATCHOUT_BUS="a", BUS_KEY=some) == ("BUS_KEY is set, expected BUS_CERT with it",)
    (text,) = faults(WATCHOUT_BUS="u:p@a", BUS_CREDENTIALS=some)
    assert text == "BUS_CREDENTIALS is set and WATCHOUT_BUS has a user or a token, expected one of them"
    (text,) = faults(WATCHOUT_BUS="ws://a", BUS_CA=some)
    assert "expected wss:// or nats://" in text
    (text,) = faults(WATCHOUT_BUS="a", ROUTER_LISTEN="tcp://*:5550")
    assert text.startswith("ROUTER_LISTEN and WATCHOUT_BUS are set, expected one of them")
    assert load({"WATCHOUT_BUS": "a", "BUS_CA": some, "BUS_CERT": some, "BUS_CREDENTIALS": some}).bus_ca == file


@pytest.mark.parametrize("name", ["a.b", "a b", "", "x" * 33, "*", ">", "é"])
def test_the_name_of_a_site_is_one_part_of_a_subject(name: str) -> None:
    if not name:
        assert load({"CLUSTER_NAME": name}).cluster_name == "watchout"
        return
    (text,) = faults(CLUSTER_NAME=name)
    assert text == f"CLUSTER_NAME is {name[:80]!r}, expected 1 to 32 of A-Z a-z 0-9 _ -"
