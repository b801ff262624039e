"""By which addresses a phone reaches the console, and what is said when it cannot, or cannot use its camera."""

from __future__ import annotations

import io
from urllib.parse import unquote, urlsplit

import pytest
import segno

from tests.kit.ctl_command import Ctl
from watchout.ctl.commands.addresses import own_addresses
from watchout.ctl.reachable import Reachable, reachable, signing_in, socket_url

LAN = ("192.168.1.20", "2001:db8::20")


def found(host: str = "", own: tuple[str, ...] = LAN, names: tuple[str, ...] | None = None) -> Reachable:
    return reachable(host=host, port=3000, own=own, names=names)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "*"])
def test_a_gateway_on_every_address_is_reached_by_those_of_the_machine(host: str) -> None:
    where = found(host)
    assert where.here == "http://localhost:3000/"
    assert where.others == ("http://192.168.1.20:3000/", "http://[2001:db8::20]:3000/")
    assert where.best == "http://192.168.1.20:3000/"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_one_on_loopback_names_the_setting_that_opens_it(host: str) -> None:
    where = found(host)
    assert (where.others, where.best) == ((), "http://localhost:3000/")
    (hint,) = where.hints
    assert f"WATCHOUT_HOST={host}" in hint
    assert "unset it" in hint


def test_one_on_a_single_address_is_reached_by_it_alone() -> None:
    assert found("192.168.1.7").others == ("http://192.168.1.7:3000/",)
    assert found("192.168.1.7").here == "http://192.168.1.7:3000/"


def test_a_machine_without_a_network_says_so() -> None:
    where = found(own=("127.0.0.1",))
    assert where.others == ()
    assert "no address in a network" in where.hints[0]


def test_plain_http_names_what_the_camera_of_a_phone_needs() -> None:
    (hint,) = found().hints
    assert "TLS_CERT" in hint
    assert "TLS_KEY" in hint


def test_with_a_certificate_its_names_are_the_addresses() -> None:
    where = found(names=("watch.example.com", "192.168.1.20", "*.example.com", "localhost"))
    assert where.others == ("https://192.168.1.20:3000/", "https://watch.example.com:3000/")
    assert where.hints == ()


def test_a_certificate_without_a_usable_name_is_told() -> None:
    where = found(names=("localhost", "*.example.com"))
    assert where.others[0] == "https://192.168.1.20:3000/"
    assert "names no address" in where.hints[0]


def test_a_console_that_is_switched_off_is_told() -> None:
    where = reachable(host="", port=3000, own=LAN, names=("a.example",), console=False)
    assert "CONSOLE=false" in where.hints[0]


def test_a_token_stands_in_the_fragment_only() -> None:
    parts = urlsplit(signing_in("http://192.168.1.20:3000/", "a+b/c=d&e#f"))
    assert (parts.path, parts.query) == ("/", "")
    assert unquote(parts.fragment) == "token=a+b/c=d&e#f"
    assert parts.fragment.count("#") == 0
    assert socket_url("https://h:1/") == "wss://h:1/streams/…"


def test_the_addresses_of_this_machine_are_addresses() -> None:
    assert all(not each.startswith(("127.", "fe80")) for each in own_addresses())


async def test_the_command_prints_addresses_and_draws_only_when_asked_or_on_a_terminal(ctl: Ctl) -> None:
    plain = await ctl("addresses", WATCHOUT_HOST="192.0.2.7", WATCHOUT_PORT="3010")
    assert (plain.code, plain.err) == (0, "")
    assert "http://192.0.2.7:3010/" in plain.out
    assert "ws://192.0.2.7:3010/streams/" in plain.out
    assert "█" not in plain.out
    drawn = await ctl(
        "addresses", "--qr", "--sign-in", WATCHOUT_TOKEN="secret-1", WATCHOUT_HOST="192.0.2.7", WATCHOUT_PORT="3010"
    )
    code = io.StringIO()
    link = "http://192.0.2.7:3010/#token=secret-1"
    segno.make(link, error="l", micro=False).terminal(code, compact=True, border=2)
    assert code.getvalue() in drawn.out
    assert "secret-1" not in drawn.out, "the token is in the code only"
    assert "show it to nobody else" in drawn.out


async def test_on_loopback_there_is_no_code_to_scan(ctl: Ctl) -> None:
    ended = await ctl("addresses", "--qr", WATCHOUT_HOST="127.0.0.1")
    assert ended.code == 0
    assert "WATCHOUT_HOST=127.0.0.1" in ended.out
    assert "scan it" not in ended.out
