from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.errors import SettingsError
from watchout.common.settings import database_url, load
from watchout.common.settings.database_url import OPTIONS, Host, InvalidDatabaseUrl, OptionVerdict, as_url, parse

DOCS = Path(__file__).parents[3] / "docs"


def fault(url: str) -> str:
    with pytest.raises(InvalidDatabaseUrl) as caught:
        parse(url)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "hosts", "user", "database"),
    [
        ("postgres://u:p@h/db", [("h", 5432)], "u", "db"),
        ("postgresql://u:p@h:6543/db", [("h", 6543)], "u", "db"),
        ("postgresql:///", [(None, 5432)], None, None),
        ("postgresql://localhost", [("localhost", 5432)], None, None),
        ("postgresql://localhost/mydb", [("localhost", 5432)], None, "mydb"),
        ("postgresql://user@localhost", [("localhost", 5432)], "user", None),
        ("postgresql://other@localhost/otherdb?connect_timeout=10", [("localhost", 5432)], "other", "otherdb"),
        ("postgresql://host1:123,host2:456/somedb", [("host1", 123), ("host2", 456)], None, "somedb"),
        ("postgresql://a,b:2,[::1]/d", [("a", 5432), ("b", 2), ("::1", 5432)], None, "d"),
        ("postgresql://[2001:db8::1234]:99/database", [("2001:db8::1234", 99)], None, "database"),
        ("postgresql://[fe80::1%25eth0]/d", [("fe80::1%eth0", 5432)], None, "d"),
        ("postgresql:///mydb?host=localhost&port=5433", [("localhost", 5433)], None, "mydb"),
        ("postgresql://%2Fvar%2Flib%2Fpostgresql/dbname", [("/var/lib/postgresql", 5432)], None, "dbname"),
        ("postgresql:///dbname?host=/var/lib/postgresql", [("/var/lib/postgresql", 5432)], None, "dbname"),
        ("postgres://u:p@localhost/db?host=/cloudsql/a:b:c", [("/cloudsql/a:b:c", 5432)], "u", "db"),
        ("postgres://u:p@/db?host=a,b&port=1,2", [("a", 1), ("b", 2)], "u", "db"),
        ("postgres://u:p@/db?host=a,b&port=7", [("a", 7), ("b", 7)], "u", "db"),
        ("postgres://postgres.projectref:p@aws-0-eu.pooler.supabase.com:5432/postgres",
         [("aws-0-eu.pooler.supabase.com", 5432)], "postgres.projectref", "postgres"),
        ("postgres://%C3%BC:p@h/d%62", [("h", 5432)], "ü", "db"),
        ("postgres://u:p@ss@h/db", [("h", 5432)], "u", "db"),
        ("postgres://h/db?user=a@b.example", [("h", 5432)], "a@b.example", "db"),
        ("postgres://h?dbname=x&dbname=y", [("h", 5432)], None, "y"),
        ("postgres://h?database=x", [("h", 5432)], None, "x"),
        ("postgresql+psycopg2://h/d", [("h", 5432)], None, "d"),
    ],
)  # fmt: skip
def test_hosts_user_and_database_of_every_form(
    url: str, hosts: list[tuple[str | None, int]], user: str | None, database: str | None
) -> None:
    got = parse(url)
    assert [(host.address, host.port) for host in got.hosts] == hosts
    assert (got.user, got.database) == (user, database)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://", "postgres://user:password@host"),
        ("postgres:", "postgres://user:password@host"),
        ("postgres:/h/d", "postgres://user:password@host"),
        ("mysql://h/d", "postgres://user:password@host"),
        ("socket:/var/run/postgresql/?db=d", "host=/var/run/postgresql"),
        ("jdbc:postgresql://h/d", "leave out `jdbc:`"),
        ("prisma://accelerate.example/?api_key=x", "Prisma Accelerate"),
        ("prisma+postgres://localhost:51213/?api_key=x", "Prisma Accelerate"),
        ("postgres://u:p a@h/d", "percent-encode"),
        ("postgres://u:a/b@h/d", "percent-encoded"),
        ("postgres://u:a?b@h/d", "percent-encoded"),
        ("postgres://u:a#b@h/d", "percent-encoded"),
        ("postgres://h:x/d", "port from 1 to 65535"),
        ("postgres://h:0/d", "port from 1 to 65535"),
        ("postgres://h:65536/d", "port from 1 to 65535"),
        ("postgres://[::1/d", "IPv6"),
        ("postgres://::1/d", "port from 1"),
        ("postgres://a,b/d?port=1,2,3", "as many as hosts"),
        ("postgres://a,b/d?hostaddr=1.1.1.1", "hostaddr"),
        ("postgres://h/d?sslmode=nonsense", "sslmode to be one of disable, allow, prefer"),
        ("postgres://h/d?ssl=maybe", "ssl to be one of"),
        ("postgres://h/d?sslmod=require", "is sslmode meant?"),
        ("postgres://h/d?SSLMODE=require", "is sslmode meant?"),
        ("postgres://h/d?sslwhatever=1", "sslwhatever"),
        ("postgres://h/d?chanel_binding=require", "is channel_binding meant?"),
        ("postgres://h/d?channel_binding=always", "channel_binding to be one of"),
        ("postgres://h/d?sslmode=disable&channel_binding=require", "channel_binding=require only with TLS"),
        ("postgres:///d?host=/run&channel_binding=require", "channel_binding=require only with TLS"),
        ("postgres://h/d?sslrootcert=system&sslmode=require", "verify-full"),
        ("postgres://h/d?sslcertmode=require", "sslcert"),
        ("postgres://h/d?sslnegotiation=direct", "sslmode=require"),
        ("postgres://h/d?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2", "no higher than"),
        ("postgres://h/d?ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version"),
        ("postgres://h/d?gssencmode=require", "gssencmode"),
        ("postgres://h/d?replication=database", "replication"),
        ("postgres://h/d?min_protocol_version=3.2", "min_protocol_version"),
        ("postgres://h/d?target_session_attrs=writable", "target_session_attrs to be one of"),
        ("postgres://h/d?connect_timeout=soon", "connect_timeout in seconds"),
        ("postgres://h/d?schema_search_path=,", "schema_search_path"),
        ("postgres://h/d?sslaccept=strict&sslmode=disable", "sslaccept=strict"),
        ("postgres://h/d?service=x&servicefile=/nowhere", "/nowhere"),
        ("postgres://h/d?application_name=%ff", "UTF-8"),
        ("postgres://h/d?application_name=%00", "NUL"),
        ("postgres://h/d?host=@abstract", "Unix socket"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_with_what_was_expected(url: str, says: str) -> None:
    assert says in fault(url)
    with pytest.raises(SettingsError, match="DATABASE_URL is a value that is not shown, expected "):
        load({"DATABASE_URL": url})


#: A value with which each option is taken.
VALUES = {
    "port": "1", "hostaddr": "127.0.0.1", "connect_timeout": "3", "channel_binding": "prefer", "sslmode": "require",
    "requiressl": "1", "sslcertmode": "disable", "sslnegotiation": "postgres", "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "TLSv1.3", "target_session_attrs": "any", "load_balance_hosts": "random",
    "gssencmode": "prefer", "replication": "false", "min_protocol_version": "3.0", "max_protocol_version": "latest",
    "ssl": "true", "sslaccept": "strict", "options": "-c search_path=x", "service": "", "servicefile": "",
}  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_of_the_table_is_what_the_table_says(option: database_url.Option) -> None:
    url = f"postgres://h/d?{option.name}={VALUES.get(option.name, 'x')}"
    if option.verdict is OptionVerdict.REFUSED:
        assert f"no option {option.name}: {option.what}" == fault(url)
        return
    got, plain = parse(url), parse("postgres://h/d")
    assert got.ignored == ((option.name,) if option.verdict is OptionVerdict.IGNORED else ())
    assert got.unknown == ()
    no_effect = {"service", "servicefile", "gssencmode", "replication", "min_protocol_version", "max_protocol_version",
                 "channel_binding", "sslnegotiation", "target_session_attrs"}  # fmt: skip
    if option.verdict is OptionVerdict.APPLIED and option.name not in no_effect:
        assert got != plain


def test_the_page_has_the_table_of_the_parser() -> None:
    page = (DOCS / "better-auth.md").read_text()
    begin, end = "<!-- options: generated, see docs/build.py -->", "<!-- end of options -->"
    assert page.partition(begin)[2].partition(end)[0].strip() == database_url.render_markdown().strip()


#: Section 34.1.2 of PostgreSQL 18's documentation.
LIBPQ = (
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout "
    "client_encoding options application_name fallback_application_name keepalives keepalives_idle "
    "keepalives_interval keepalives_count tcp_user_timeout replication gssencmode sslmode requiressl "
    "sslnegotiation sslcompression sslcert sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl "
    "sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version min_protocol_version "
    "max_protocol_version krbsrvname gsslib gssdelegation scram_client_key scram_server_key service "
    "servicefile target_session_attrs load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret "
    "oauth_scope "
)


def test_every_option_of_libpq_is_in_the_table_once() -> None:
    names = [option.name for option in OPTIONS]
    assert len(names) == len(set(names))
    assert set(LIBPQ.split()) <= set(names)


def test_schemas_are_taken_out_of_every_spelling() -> None:
    def path(query: str) -> tuple[str, ...]:
        return parse(f"postgres://h/d?{query}").search_path

    assert path("schema=Auth") == ("Auth",)
    assert path("search_path=Auth,public") == ("auth", "public")
    assert path("search_path=%22Auth%22%2C%20public") == ("Auth", "public")
    assert path("options=-c%20search_path%3Da%2Cb") == ("a", "b")
    assert path("options=-c%20search_path%3D%22%24user%22%2Cb") == ("$user", "b")
    assert path("options=-c+search_path%3Da") == ("a",)
    assert path("options=--search-path%3Da") == ("a",)
    assert path("") == ()


def test_of_options_the_server_is_told_what_it_has_to_know_and_no_more() -> None:
    def sent(options: str) -> str | None:
        return parse(f"postgres://h/d?options={options}").options

    assert sent("-c%20search_path%3Da") is None
    assert sent("-c%20statement_timeout%3D5s%20-cwork_mem%3D4MB%20--jit%3Doff") is None
    assert sent("endpoint%3Dep-x") == "endpoint=ep-x"
    assert sent("--cluster%3Dme-1") == "--cluster=me-1"
    assert sent("-c%20role%3Dr%20-c%20search_path%3Da") == "-c role=r"
    assert sent("-c%20role%3Da%5C%20b") == r"-c role=a\ b"


def test_nothing_shows_a_password() -> None:
    got = parse("postgres://u:hunter2@h/d?sslpassword=hunter2&sslcert=x")
    assert "hunter2" not in repr(got)
    assert "hunter2" not in fault("postgres://u:hunter2@h:port/d")
    assert "hunter2" not in fault("postgres://u:hunter2/@h/d")


def test_hostaddr_keeps_the_name_for_the_certificate() -> None:
    assert parse("postgres://name/d?hostaddr=10.0.0.1").hosts == (Host("10.0.0.1", 5432, "name"),)


def test_a_service_fills_what_the_url_leaves_open(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[app]\nhost=there\nport=7\nuser=u\ndbname=d\nschema=x\n[odd]\nsslmod=require\n")
    got = parse(f"postgres://?service=app&servicefile={file}&port=8")
    assert (got.hosts, got.user, got.database, got.search_path) == ((Host("there", 8, "there"),), "u", "d", ("x",))
    assert "is sslmode meant?" in fault(f"postgres://?service=odd&servicefile={file}")
    assert "section" in fault(f"postgres://?service=none&servicefile={file}")


def test_a_transaction_pooler_is_recognised() -> None:
    assert parse("postgres://h:6543/d").transaction_pooler
    assert parse("postgres://h/d?pgbouncer=true").transaction_pooler
    assert not parse("postgres://h/d").transaction_pooler


@given(st.text(), st.text(st.characters(codec="utf-8")))
def test_whatever_comes_is_read_or_refused_and_nothing_else(front: str, query: str) -> None:
    for url in (front, f"postgres://{front}", f"postgres://h/d?{query}", f"postgres://u:{front}@h/d?options={query}"):
        try:
            parse(url)
        except InvalidDatabaseUrl:
            continue


URL = "postgres://u:p@h:6000/db?sslmode=require"


@pytest.mark.parametrize(
    "copied",
    [
        URL,
        f" {URL}\n",
        f'"{URL}"',
        f"'{URL}'",
        f"`{URL}`",
        f"psql '{URL}'",
        f'psql "{URL}"',
        f"psql {URL}",
        f"psql -d {URL}",
        f"psql --dbname={URL}",
        f"DATABASE_URL={URL}",
        f'DATABASE_URL="{URL}"',
        f"export DATABASE_URL='{URL}'",
        f"""DATABASE_URL="psql '{URL}'\"""",
    ],
)
def test_a_url_is_found_in_what_was_copied(copied: str) -> None:
    assert as_url(copied) == URL
    assert load({"DATABASE_URL": copied}).database_url == URL


@pytest.mark.parametrize(
    "copied",
    [
        "host=h port=6000 dbname=db user=u password=p sslmode=require",
        "host = 'h' port='6000' dbname = db user=u password=p sslmode=require ",
        "psql \"host=h port=6000 dbname=db user=u password='p' sslmode=require\"",
    ],
)
def test_the_other_form_of_libpq_says_the_same(copied: str) -> None:
    assert parse(as_url(copied)) == parse(URL)


def test_a_value_of_that_form_may_hold_anything() -> None:
    assert parse(as_url(r"host=h user=u password='it\'s a \\ b&c=%41+d'")).password == r"it's a \ b&c=%41+d"


@given(st.text())
def test_what_is_no_such_text_is_refused_and_never_raises_otherwise(text: str) -> None:
    with contextlib.suppress(InvalidDatabaseUrl):
        parse(as_url(text))


@pytest.mark.parametrize("text", ["a b", "password='x", "foo=bar", "host", "= h", "host=h 'x", "mypassword"])
def test_what_is_neither_form_is_as_it_came(text: str) -> None:
    assert as_url(text) == text


@pytest.mark.parametrize("command", ["psql -h h -U u db", "PGPASSWORD=pw psql -h h -U u db"])
def test_a_command_without_a_url_is_named(command: str) -> None:
    assert "psql" in fault(as_url(command))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://postgres:[YOUR-PASSWORD]@db.ref.supabase.co:5432/postgres", "password"),
        ("postgresql://u:<password>@h/db", "password"),
        ("host=h user=u password={your_password}", "password"),
        ("postgresql://${DB_USER}:p@h/db", "user"),
        ("postgresql://u:p@$(HOST)/db", "host"),
    ],
)
def test_a_placeholder_is_no_value(url: str, name: str) -> None:
    assert f"the {name} itself" in fault(as_url(url))


@pytest.mark.parametrize(
    "option", ["targetServerType=primary", "unix_sock=/cloudsql/a:b:c/.s.PGSQL.5432", "cloudSqlInstance=a:b:c"]
)
def test_what_would_lead_to_another_server_is_refused_by_name(option: str) -> None:
    assert f"no option {option.partition('=')[0]}:" in fault(f"postgres://u:p@h/db?{option}")
