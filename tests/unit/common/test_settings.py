"""The table of settings: what is read, what is refused and in which words, and the page that is made of it."""

from __future__ import annotations

import base64
import dataclasses
import string
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchout.common import home_files
from watchout.common.errors import SettingsError
from watchout.common.home_files import SOCKET_NAME_BYTES
from watchout.common.settings import (
    GROUPS,
    SOCKET_PATH_BYTES,
    Settings,
    load,
    render_markdown,
    table,
)

ROOT = Path(__file__).parents[3]
NAMES = [spec.env for _, spec, _ in table()]


def faults(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.faults


def test_without_any_variable_the_defaults_hold() -> None:
    assert load({}) == dataclasses.replace(Settings(), home=Path(".watchout").absolute())


def test_a_default_is_a_value_that_its_own_check_takes() -> None:
    for _, spec, default in table():
        if default not in (None, "", ()):
            parsed = spec.parse(str(default))
            assert parsed == (default.absolute() if isinstance(default, Path) else default), spec.env


def test_the_home_is_absolute_so_that_a_change_of_directory_moves_nothing() -> None:
    assert load({"WATCHOUT_HOME": "somewhere"}).home == Path("somewhere").absolute()


def test_a_tilde_in_the_home_is_the_users_own() -> None:
    assert load({"WATCHOUT_HOME": "~/w"}).home == Path.home() / "w"


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_value_counts_as_not_set(empty: str) -> None:
    unset = load({})
    assert [name for name in NAMES if load({name: empty}) != unset] == []


def test_space_around_a_value_is_passed_over() -> None:
    assert load({"WATCHOUT_PORT": " 4000 "}).port == 4000


def test_values_are_read_into_their_types() -> None:
    got = load({
        "WATCHOUT_HOST": "::1", "DATABASE_URL": "postgres://u:p@h/db", "STORE_TIMEOUT_S": "0.5",
        "STREAM_ACCESS": "Authenticated", "ML_SERVICE_URL": "http://ml:8000/x/", "ML_GROUP": "night",
        "SERVICE_TOKEN": "s" * 16, "BYTE_RATE": "1e6", "LOG_FORMAT": "JSON",
    })  # fmt: skip
    assert (got.host, got.database_url, got.store_timeout_s) == ("::1", "postgres://u:p@h/db", 0.5)
    assert (got.stream_access, got.ml_group, got.service_token) == ("authenticated", "night", "s" * 16)
    assert got.ml_service_url == "http://ml:8000/x"
    assert (got.byte_rate, got.log_format) == (1e6, "json")


def test_port_is_taken_when_there_is_no_better_name_for_it() -> None:
    assert load({"PORT": "8080"}).port == 8080


def test_port_is_empty_when_it_is_empty() -> None:
    assert load({"PORT": " "}).port == 3000


def test_the_projects_own_name_for_the_port_counts_more() -> None:
    assert load({"PORT": "8080", "WATCHOUT_PORT": "4000"}).port == 4000


def test_under_honcho_port_is_not_ours() -> None:
    assert load({"PORT": "5100", "HONCHO_PROCESS_NAME": "gateway.1"}).port == 3000


def test_under_honcho_our_own_name_still_counts() -> None:
    assert load({"PORT": "5100", "WATCHOUT_PORT": "4000", "HONCHO_PROCESS_NAME": "gateway.1"}).port == 4000


def test_under_honcho_a_wrong_port_is_nobodys_fault() -> None:
    assert load({"PORT": "nonsense", "HONCHO_PROCESS_NAME": "gateway.1"}).port == 3000


def test_a_fault_is_named_as_the_variable_that_has_it() -> None:
    assert faults(PORT="x") == ("PORT is 'x', expected a whole number from 1 to 65535",)
    assert faults(WATCHOUT_PORT="0") == ("WATCHOUT_PORT is '0', expected a whole number from 1 to 65535",)


def test_every_fault_is_named_at_once() -> None:
    wrong = faults(
        WATCHOUT_PORT="70000", WATCHOUT_HOST="a/b", DATABASE_URL="mysql://x/y", STREAM_ACCESS="all",
        SERVICE_TOKEN="short", DRAIN_S="nan", ML_FPS="0", ML_SERVICE_URL="ftp://x",
    )  # fmt: skip
    assert [text.split(" is ")[0] for text in wrong] == [
        "WATCHOUT_PORT", "WATCHOUT_HOST", "DATABASE_URL", "STREAM_ACCESS",
        "SERVICE_TOKEN", "ML_SERVICE_URL", "ML_FPS", "DRAIN_S",
    ]  # fmt: skip
    assert all(", expected " in text for text in wrong)


def test_the_error_as_text_has_all_its_faults() -> None:
    with pytest.raises(SettingsError, match=r"WATCHOUT_PORT .*; WATCHOUT_LOOP .*"):
        load({"WATCHOUT_PORT": "x", "WATCHOUT_LOOP": "y"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://user:hunter2hunter2@host/name"),
        ("DATABASE_URL", "postgres://user:hunter2hunter2@host:port/name"),
        ("ML_SERVICE_URL", "ftp://user:hunter2hunter2@host"),
        ("ML_SERVICE_URL", "http://user:hunter2hunter2@host:99999"),
        ("SERVICE_TOKEN", "hunter2hunter2 with spaces"),
        ("STATS_TOKEN", "hunter2"),
        ("WATCHOUT_BUS", "nats://user:hunter2hunter2@host:port"),
    ],
)
def test_a_secret_is_never_shown(name: str, value: str) -> None:
    (text,) = faults(**{name: value})
    shown = "a URL with another port" if name == "WATCHOUT_BUS" else "a value that is not shown"
    assert text.startswith(f"{name} is {shown}, expected ")
    assert "hunter2" not in text


def test_what_is_shown_of_a_long_value_is_its_beginning() -> None:
    (text,) = faults(LOG_LEVEL="x" * 5000)
    assert len(text) < 200


def test_a_home_as_long_as_a_socket_path_allows_is_taken() -> None:
    home = "/" + "h" * (SOCKET_PATH_BYTES - SOCKET_NAME_BYTES - 1)
    assert str(load({"WATCHOUT_HOME": home}).home) == home


def test_a_home_that_is_too_long_for_its_sockets_is_refused_with_both_numbers() -> None:
    (text,) = faults(WATCHOUT_HOME="/" + "h" * (SOCKET_PATH_BYTES - SOCKET_NAME_BYTES))
    assert "at most 91 bytes" in text
    assert text.endswith("has 92")


def test_the_length_of_a_home_is_counted_in_bytes() -> None:
    (text,) = faults(WATCHOUT_HOME="/" + "ü" * 50)
    assert text.endswith("has 101")


def test_every_socket_of_the_bus_fits_below_the_longest_home() -> None:
    names = (home_files.CONTROL_SOCKET, home_files.FRAMES_IN_SOCKET, home_files.FRAMES_OUT_SOCKET)
    assert max(len(name) + 1 for name in names) <= SOCKET_NAME_BYTES


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", ":3000"])
def test_a_host_with_a_port_is_refused_and_the_setting_for_the_port_named(host: str) -> None:
    (text,) = faults(WATCHOUT_HOST=host)
    assert text == (
        f"WATCHOUT_HOST is {host!r}, expected a host name or an IP address alone: the port is WATCHOUT_PORT"
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "::", "2001:db8::7", "watchout.example.com"])
def test_a_host_name_and_addresses_of_both_families_are_taken(host: str) -> None:
    assert load({"WATCHOUT_HOST": host}).host == host


def test_a_file_in_the_homes_place_is_a_fault() -> None:
    (text,) = faults(WATCHOUT_HOME="/dev/null")
    assert text == "WATCHOUT_HOME is '/dev/null', expected a directory; a file of this name exists"


def test_the_home_of_a_user_who_is_not_there_is_a_fault() -> None:
    assert faults(WATCHOUT_HOME="~nobody-of-this-name/x") == (
        "WATCHOUT_HOME is '~nobody-of-this-name/x', expected a directory that can be reached",
    )


def test_a_home_whose_bytes_are_no_text_is_taken_as_it_is() -> None:
    assert str(load({"WATCHOUT_HOME": "/tmp/\udcff"}).home) == "/tmp/\udcff"


@pytest.mark.parametrize(
    "url",
    ["postgres://h/db", "postgresql://u@h:5432/db", "postgresql:///db?host=/run/pg", "sqlite:/d/f.db", "sqlite:f"],
)
def test_a_database_is_postgresql_or_a_file(url: str) -> None:
    assert load({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url", ["x", "mysql://h/db", "postgres:", "sqlite:", "sqlite:///", "postgres://h:x/", "//[", "http://h"]
)
def test_other_databases_are_refused(url: str) -> None:
    assert len(faults(DATABASE_URL=url)) == 1


@pytest.mark.parametrize(
    "url",
    ["http://h", "https://h:1/p?q=1", "ws://h/ws", "wss://h", "redis://u:p@h:1/3", "rediss://h?frames=a&alerts=b.c",
     "nats://h", "tls://token@h:4222", "tcp://h:1", "tcp://[::1]:1?alerts=7"],
)  # fmt: skip
def test_an_ml_service_may_be_of_several_kinds(url: str) -> None:
    assert load({"ML_SERVICE_URL": url}).ml_service_url == url


@pytest.mark.parametrize(
    "url",
    ["ml", "http://", "http://:80", "https://h:0", "http://h:x", "http://[::1", "ftp://h", "redis://h/x",
     "redis://h?ssl_cert_reqs=none", "redis://h?frames=a b", "nats://h?frames=a.*", "nats://h?frames=.a", "nats://h/p",
     "tcp://h", "tcp://h:65535", "tcp://h:1/p", "tcp://u@h:1", "tcp://h:1?alerts=0", "tcp://h:1?alerts=70000"],
)  # fmt: skip
def test_other_ml_services_are_refused(url: str) -> None:
    assert len(faults(ML_SERVICE_URL=url)) == 1


def test_headers_for_the_ml_service_are_a_json_object() -> None:
    assert load({"ML_HEADERS": '{"Authorization":"Bearer x"}'}).ml_headers == (("Authorization", "Bearer x"),)


@pytest.mark.parametrize(
    "value",
    ["x", "[]", '{"a":1}', '{"a b":"x"}', '{"a":"x\\ny"}', '{"a":"ü"}', '{"Content-Length":"1"}', '{"HOST":"x"}',
     '{"X-Frame-Id":"1"}', '{"Sec-WebSocket-Key":"1"}'],
)  # fmt: skip
def test_headers_that_would_break_a_request_are_refused(value: str) -> None:
    (text,) = faults(ML_HEADERS=value)
    assert text.startswith("ML_HEADERS is a value that is not shown, expected ")


def test_a_key_for_the_ml_service_needs_its_certificate_and_a_batch_its_turns(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    assert faults(ML_TLS_KEY=str(tmp_path / "key")) == ("ML_TLS_KEY is set, expected ML_TLS_CERT with it",)
    assert faults(ML_BATCH="8", ML_IN_FLIGHT="4") == ("ML_BATCH is 8, expected at most ML_IN_FLIGHT, which is 4",)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e999", "0x10", "3.6", "three"])
def test_a_number_out_of_its_range_is_refused(value: str) -> None:
    assert faults(DRAIN_S=value) == (f"DRAIN_S is {value!r}, expected a number from 0 to 3.5",)


def test_unknown_variables_are_nobodys_business() -> None:
    assert load({"PATH": "/bin", "WATCHOUT_UNKNOWN": "x"}) == load({})


def test_every_setting_stands_in_a_group_of_the_page() -> None:
    assert {spec.group for _, spec, _ in table()} == set(GROUPS)
    assert len(set(NAMES)) == len(NAMES)


def test_the_page_is_what_the_table_says() -> None:
    """After a change of the table: `make docs`."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == render_markdown()


def test_the_page_names_every_variable_once_and_ends_its_last_line() -> None:
    page = render_markdown()
    assert [page.count(f"\n| `{name}` |") for name in NAMES] == [1] * len(NAMES)
    assert page.endswith("|\n")


SHAPES = st.one_of(
    st.text(max_size=30),
    st.text(string.digits + "-+._e", max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["postgres://", "sqlite:", "http://", "//[", "http://[", "~", "~x", "/", "/dev/null/x", "\x00", "\udcff"]
    ).flatmap(lambda start: st.text(max_size=120).map(lambda rest: start + rest)),
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*NAMES, "PORT", "HONCHO_PROCESS_NAME", "HOME"]), SHAPES, max_size=8))
def test_any_environment_gives_settings_or_faults_and_nothing_else(environ: dict[str, str]) -> None:
    try:
        got = load(environ)
    except SettingsError as error:
        named = {text.split(" is ")[0] for text in error.faults}
        assert named
        assert named <= set(environ)
    else:
        assert 1 <= got.port <= 65535
        assert got.home.is_absolute()


# ── identity ─────────────────────────────────────────────────────────────────────────────────────────────────────

PEM = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEA\\n-----END PUBLIC KEY-----"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize(
    ("env", "raw", "value"),
    [
        ("AUTH_METHODS", "jwt, session", ("jwt", "session")),
        ("REQUIRE_SIGNED_TOKENS", "no", False),
        ("SECURE_COOKIE_ONLY", "True", True),
        ("SESSION_TABLE", "auth.Session", "auth.Session"),
        ("NAIVE_TIMEZONE", "Asia/Tokyo", "Asia/Tokyo"),
        (
            "ALLOWED_ORIGINS",
            "https://App.example.com:443 , http://localhost:5173/,https://[::1]",
            ("https://app.example.com", "http://localhost:5173", "https://[::1]"),
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/8 ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ("JWT_PUBLIC_KEY", PEM, PEM.replace("\\n", "\n")),
        ("SERVICE_WEBHOOK_SECRETS", f"{WHSEC},{WHSEC[6:]}", (base64.b64decode(WHSEC[6:]),) * 2),
        (
            "ROLE_RIGHTS",
            "camera:publish, *:publish+view,acme:guard:none",
            (("camera", {"publish"}), ("*", {"publish", "view"}), ("acme:guard", set())),
        ),
    ],
)
def test_a_value_of_identity_is_read(env: str, raw: str, value: object) -> None:
    (attribute,) = [name for name, spec, _ in table() if spec.env == env]
    with_it = {"JWT_PUBLIC_KEY": PEM} if env == "AUTH_METHODS" else {}
    assert getattr(load({env: raw} | with_it), attribute) == value


@pytest.mark.parametrize(
    ("env", "raw"),
    [
        ("AUTH_METHODS", "session,session"),
        ("AUTH_METHODS", "cookie"),
        ("AUTH_METHODS", ","),
        ("REQUIRE_SIGNED_TOKENS", "maybe"),
        ("SESSION_TABLE", 'a"b'),
        ("SESSION_TABLE", "a.b.c"),
        ("NAIVE_TIMEZONE", "Tokyo time"),
        ("NAIVE_TIMEZONE", "../../etc/passwd"),
        ("ALLOWED_ORIGINS", "app.example.com"),
        ("ALLOWED_ORIGINS", "https://*.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com/path"),
        ("ALLOWED_ORIGINS", "https://user@app.example.com"),
        ("ALLOWED_ORIGINS", "null"),
        ("ALLOWED_ORIGINS", "https://app.example.com,localhost:3000"),
        ("ALLOWED_ORIGINS", "//app.example.com"),
        ("ALLOWED_ORIGINS", "https://app.example.com:99999"),
        ("ALLOWED_ORIGINS", "https://app.example.com?x"),
        ("ALLOWED_ORIGINS", "https://"),
        ("ALLOWED_ORIGINS", "file://"),
        ("ALLOWED_ORIGINS", "*"),
        ("TRUSTED_PROXIES", "proxy.local"),
        ("TLS_CERT", "/nowhere/cert.pem"),
        ("JWT_SECRET", "short"),
        ("JWT_PUBLIC_KEY", "/nowhere/key.pem"),
        ("JWT_PUBLIC_KEY", "-----BEGIN PRIVATE KEY-----"),
        ("JWT_JWKS_URL", "ftp://issuer/jwks"),
        ("SESSION_COOKIE", "a b"),
        ("REVOCATION_CHANNEL", "Upper"),
        ("INTROSPECTION_AUTH_HEADER_VALUE", "a\r\nb: c"),
        ("SERVICE_WEBHOOK_SECRETS", "whsec_short"),
        ("ROLE_RIGHTS", "camera"),
        ("ROLE_RIGHTS", "camera:fly"),
        ("ROLE_RIGHTS", "camera:publish,camera:view"),
        ("ROLE_RIGHTS", ":view"),
    ],
)
def test_a_wrong_value_of_identity_is_named(env: str, raw: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{env} is .*, expected "):
        load({env: raw})


def test_keys_of_jwts_may_stand_beside_each_other_and_alone() -> None:
    for environ in ({"JWT_SECRET": "s" * 32, "JWT_PUBLIC_KEY": PEM, "JWT_JWKS_URL": "https://issuer/jwks"},
                    {"JWT_JWKS_URL": "https://issuer/jwks"}):  # fmt: skip
        assert load(environ).jwt_jwks_url == "https://issuer/jwks"


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"AUTH_METHODS": "jwt"}, "AUTH_METHODS has jwt"),
        ({"AUTH_METHODS": "introspection"}, "AUTH_METHODS has introspection"),
        ({"REQUIRE_SIGNED_TOKENS": "true"}, "REQUIRE_SIGNED_TOKENS is true"),
        ({"JWT_REQUIRE_SESSION": "true"}, "JWT_REQUIRE_SESSION is true"),
        ({"JWT_SECRET": "s" * 32, "AUTH_METHODS": "session"}, "AUTH_METHODS has no jwt"),
        ({"INTROSPECTION_URL": "http://x/", "AUTH_METHODS": "session"}, "AUTH_METHODS has no introspection"),
        (
            {"JWT_REQUIRE_SESSION": "true", "JWT_SESSION_CLAIM": "none", "DATABASE_URL": "sqlite:/x.db"},
            "JWT_SESSION_CLAIM is none",
        ),
        ({"AUTH_COMBINE": "all", "JWT_SECRET": "s" * 32}, "AUTH_COMBINE is all"),
        ({"STREAM_ACCESS": "organization"}, "STREAM_ACCESS is organization"),
        ({"REVOCATION_CHANNEL": "c"}, "REVOCATION_CHANNEL is set"),
        ({"REVOCATION_CHANNEL": "c", "DATABASE_URL": "sqlite:/x.db"}, "REVOCATION_CHANNEL is set"),
        ({"TLS_KEY": __file__}, "TLS_KEY is set"),
        ({"ML_FALLBACK_URL": "http://second"}, "ML_FALLBACK_URL is set, expected ML_SERVICE_URL"),
    ],
)
def test_values_that_do_not_go_together_are_named(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        load(environ)


def test_no_secret_shows_in_the_settings_themselves() -> None:
    secrets = {
        spec.env: "canary-of-more-than-sixteen" for _, spec, _ in table() if spec.secret and "URL" not in spec.env
    }
    secrets |= {
        "SERVICE_WEBHOOK_SECRETS": WHSEC,
        "ALERT_WEBHOOK_SECRETS": WHSEC,
        "ALERT_WEBHOOK_URL": "https://canary.example/canary",
        "INTROSPECTION_URL": "http://canary/",
        "ML_SERVICE_URL": "http://canary",
        "ML_HEADERS": '{"X":"canary"}',
    }
    shown = repr(load(secrets | {"DATABASE_URL": "postgres://u:canary@h/d"}))
    assert "canary" not in shown
    assert "MfKQ" not in shown


def test_no_secret_of_identity_is_repeated_in_its_fault() -> None:
    for env in ("JWT_SECRET", "BETTER_AUTH_SECRET"):
        with pytest.raises(SettingsError) as caught:
            load({env: "canary"})
        assert "canary" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        load({"SERVICE_WEBHOOK_SECRETS": "whsec_canary", "INTROSPECTION_AUTH_HEADER_VALUE": "canary\n2"})
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["tcp://*:5550", "tcp://192.0.2.7:1", "tcp://[2001:db8::7]:5550", "tcp://ml.example:65535"]
)
def test_the_bus_over_tcp_has_an_address_and_a_port(url: str) -> None:
    assert load({"ROUTER_LISTEN": url}).router_listen == url


@pytest.mark.parametrize(
    "url",
    ["5550", "tcp://host", "tcp://:5550", "tcp://h:0", "tcp://h:65536", "tcp://h:1/x", "http://h:1", "tcp://a@h:1"],
)
def test_any_other_address_of_the_bus_is_refused(url: str) -> None:
    (text,) = faults(ROUTER_LISTEN=url)
    assert "tcp://host:port" in text


def test_a_router_of_another_machine_needs_its_key_and_the_bridges_own() -> None:
    (text,) = faults(ROUTER_ADDRESS="tcp://h:1")
    assert "ROUTER_PUBLIC_KEY and BRIDGE_KEY_FILE" in text


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("https://a.watchout.example", "https://a.watchout.example"),
        ("http://192.0.2.7:3000/", "http://192.0.2.7:3000"),
        ("https://[2001:db8::7]:8443/watchout/", "https://[2001:db8::7]:8443/watchout"),
    ],
)
def test_the_address_that_clients_use_has_no_slash_at_its_end(url: str, value: str) -> None:
    assert load({"PUBLIC_URL": url}).public_url == value


@pytest.mark.parametrize(
    "url", ["a.example", "ws://a.example", "https://", "https://u:p@a.example", "https://a/?x=1", "https://a/#x",
            "https://a/?", "https://a b", "https://a:0", "https://bücher.example"],
)  # fmt: skip
def test_any_other_address_for_clients_is_refused(url: str) -> None:
    (text,) = faults(PUBLIC_URL=url)
    assert "as clients use it" in text


def test_patterns_are_a_list() -> None:
    assert load({"ML_STREAMS": "cam-*, door-?"}).ml_streams == ("cam-*", "door-?")
    (text,) = faults(ML_STREAMS="cam/1")
    assert "'cam/1'" in text


def test_a_group_has_a_short_name() -> None:
    (text,) = faults(ML_GROUP="x" * 65)
    assert "at most 64" in text


@pytest.mark.parametrize(
    ("former", "env"),
    [
        ("ALERT_LANE_MESSAGES", "ALERT_QUEUE_MESSAGES"),
        ("ALERT_LANE_BYTES", "ALERT_QUEUE_BYTES"),
        ("MAX_STRANGERS_PER_ADDRESS", "MAX_UNAUTHENTICATED_PER_ADDRESS"),
    ],
)
def test_the_former_name_of_a_setting_is_read_and_the_present_one_wins(former: str, env: str) -> None:
    attribute = env.lower()
    assert getattr(load({former: "2048"}), attribute) == 2048
    assert getattr(load({former: "2048", env: "4096"}), attribute) == 4096
    assert faults(**{former: "many"})[0].startswith(f"{former} is 'many', expected ")
