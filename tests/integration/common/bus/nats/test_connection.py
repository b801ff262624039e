"""The connection to NATS with real servers: whom it lets in, what it says when it cannot, and how it comes back."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.certificates import PrivateKey, make_certificate, make_key, pem
from tests.kit.clients import eventually
from tests.kit.nats_servers import NatsServer, NatsSite, make_site, operator_mode, tls_files
from watchout.common import supervisor
from watchout.common.bus.nats import connection as connection_module
from watchout.common.bus.nats import subscriptions as subscriptions_module
from watchout.common.bus.nats.connection import NatsConnection, connection_of
from watchout.common.bus.nats.member import NatsMemberTransport
from watchout.common.errors import StartError
from watchout.common.settings import Settings, load

#: What comes on a busy machine comes within this time.
COMES_S = 30


def settings(bus: str, **environ: str) -> Settings:
    return load({"WATCHOUT_BUS": bus, "CLUSTER_NAME": f"t{secrets.token_hex(4)}", **environ})


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., NatsConnection]]:
    """Open a connection of the purpose ``member``, or another one; all are closed at the end."""
    made: list[NatsConnection] = []

    def open_one(wanted: Settings, purpose: str = "member") -> NatsConnection:
        made.append(connection_of(wanted, purpose))
        return made[-1]

    yield open_one
    for each in made:
        if not each.is_closed:
            each.close()
        if each.is_closed:
            await each.ended()


def connected(each: NatsConnection) -> Any:
    return eventually(lambda: each.connected, COMES_S, f"no connection: {each.explain()}")


async def connected_again(each: NatsConnection) -> None:
    """Have the connection made anew."""
    calls: list[int] = []
    each.on_connected(lambda: calls.append(1))
    each.leave_server()
    await eventually(lambda: calls, COMES_S, f"no connection: {each.explain()}")


def explains(each: NatsConnection, *words: str) -> Any:
    return eventually(
        lambda: all(word in each.explain() for word in words), COMES_S, f"another sentence: {each.explain()!r}"
    )


# ── who is let in ────────────────────────────────────────────────────────────────────────────────────────────────────


USERS = 'authorization { users: [ {user: "a", password: "p@ss/w,1"}, {user: "b", password: "q"} ] }'


async def test_a_user_of_the_url_is_let_in_and_a_wrong_one_is_told(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    site = start_nats(1, USERS, jetstream=False)
    await connected(connect(settings(site.url_of("a", "p%40ss%2Fw%2C1"))))
    for url in (site.url, site.url_of("a", "wrong"), site.url_of("token", "")):
        wrong = connect(settings(url))
        await explains(wrong, "refuses the user of this process", "authorization violation", "BUS_CREDENTIALS")
        assert "wrong" not in wrong.explain()
        assert not wrong.publish("x", b"x")


async def test_a_token_is_let_in(start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]) -> None:
    site = start_nats(1, 'authorization { token: "t%ken" }', jetstream=False)
    await connected(connect(settings(site.url.replace("://", "://t%25ken@"))))


async def test_a_credentials_file_is_let_in_and_a_wrong_one_is_a_fault_of_the_start(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], tmp_path: Path
) -> None:
    config, credentials = operator_mode(tmp_path)
    site = start_nats(1, config, jetstream=False)
    each = connect(settings(site.url, BUS_CREDENTIALS=str(credentials)))
    await connected(each)
    credentials.rename(tmp_path / "moved.creds")  # as in the middle of a copy
    await connected_again(each)
    (tmp_path / "moved.creds").rename(credentials)
    await explains(connect(settings(site.url)), "refuses the user of this process")
    text = credentials.read_text()
    for wrong, reason in (
        ("nothing", "no part 'BEGIN NATS USER JWT'"),
        (text.partition("-----BEGIN USER NKEY")[0], "no part 'BEGIN USER NKEY SEED'"),
        (text.replace("\nSU", "\nSA"), "no seed of a user"),
        (text.replace("\nSU", "\nSUU"), "no seed of a user"),
    ):
        other = tmp_path / "other.creds"
        other.write_text(wrong)
        with pytest.raises(StartError, match=reason) as caught:
            connect(settings(site.url, BUS_CREDENTIALS=str(other)))
        assert text.split("SEED-----\n")[1][:20] not in str(caught.value)


async def test_tls_is_checked_both_ways_and_never_left_out(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], tmp_path: Path
) -> None:
    cert, key = tls_files(tmp_path)
    files = f'cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}"'
    site = start_nats(1, f"tls {{ {files}, verify: true }}", jetstream=False)
    mutual = {"BUS_CA": str(cert), "BUS_CERT": str(cert), "BUS_KEY": str(key)}
    await connected(connect(settings(site.url, **mutual)))
    await connected(connect(settings(site.url.replace("nats://", "tls://"), **mutual)))
    await explains(connect(settings(site.url, BUS_CA=str(cert))), "BUS_CERT and BUS_KEY")
    await explains(
        connect(settings(site.url.replace("nats://", "tls://"))), "CERTIFICATE_VERIFY_FAILED", "not of BUS_CA"
    )
    await explains(connect(settings(site.url.replace("127.0.0.1", "localhost"), **mutual)), "TLS failed")
    other = tmp_path / "none.pem"
    other.write_text("nothing")
    for wrong in ({"BUS_CA": str(other)}, {"BUS_CA": str(cert), "BUS_CERT": str(cert), "BUS_KEY": str(other)}):
        with pytest.raises(StartError, match=r"none\.pem"):
            connect(settings(site.url, **wrong))


class Host:
    """The files of one end of TLS; `renew` writes them of an authority, which the other end is trusted by as well."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.cert, self.key = folder / "ca.crt", folder / "end.crt", folder / "end.key"
        folder.mkdir()

    def renew(self, authority: tuple[PrivateKey, bytes], days: float = 1.0) -> None:
        key = make_key()
        self.ca.write_bytes(authority[1])
        self.cert.write_bytes(make_certificate(key, authority=authority, days=days))
        self.key.write_bytes(pem(key))


async def test_renewed_certificates_are_used_at_the_next_connection_and_ended_ones_are_named(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], tmp_path: Path
) -> None:
    first, second = [(key, make_certificate(key)) for key in (make_key(), make_key())]
    of_server, own = Host(tmp_path / "server"), Host(tmp_path / "own")
    of_server.renew(first)
    own.renew(first)
    tls = f'cert_file: "{of_server.cert}", key_file: "{of_server.key}", ca_file: "{of_server.ca}"'
    (server,) = start_nats(1, f"tls {{ {tls}, verify: true }}", jetstream=False).servers
    each = connect(settings(server.url, BUS_CA=str(own.ca), BUS_CERT=str(own.cert), BUS_KEY=str(own.key)))

    await connected(each)
    own.key.write_bytes(pem(make_key()))  # as in the middle of a copy
    await connected_again(each)
    of_server.renew(second)
    server.signal(signal.SIGHUP)
    await eventually(lambda: server.log.count("Reloaded: tls") == 1, COMES_S)
    each.leave_server()
    await explains(each, "not of BUS_CA")
    own.renew(second)
    await connected(each)
    own.renew(second, days=-0.01)
    each.leave_server()
    await explains(each, "BUS_CERT", "ended", "the next attempt uses the new files")
    own.renew(second)
    await connected(each)
    of_server.renew(second, days=-0.01)
    server.signal(signal.SIGHUP)
    await eventually(lambda: server.log.count("Reloaded: tls") == 2, COMES_S)
    each.leave_server()
    await explains(each, "the server's certificate", "has ended", "nats-server --signal reload")


async def test_a_server_without_tls_gets_nothing_where_tls_is_demanded(
    nats_bus: NatsSite, connect: Callable[..., NatsConnection], tmp_path: Path
) -> None:
    cert, _ = tls_files(tmp_path)
    for wanted in (
        settings(nats_bus.url_of("user", "secret").replace("nats://", "tls://")),
        settings(nats_bus.url_of("user", "secret"), BUS_CA=str(cert)),
    ):
        await explains(connect(wanted), "does not offer TLS", "nothing was sent")


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type:DeprecationWarning")  # nats-py gives it to aiohttp
async def test_nats_over_websocket(start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]) -> None:
    port = NatsServer("port").port
    start_nats(1, f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}', jetstream=False)
    member = connect(settings(f"ws://127.0.0.1:{port}"))
    await connected(member)
    router = connect(settings(f"ws://127.0.0.1:{port}"), "router")
    await connected(router)
    got: list[bytes] = []
    member.subscribe("a.b", lambda message: got.append(message.data))
    await eventually(lambda: router.publish("a.b", b"x") and got, COMES_S)


async def test_names_without_an_address_and_ports_without_a_server_are_told(
    connect: Callable[..., NatsConnection],
) -> None:
    closed = NatsServer("none").port

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 no\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    each = connect(settings(f"nats://nobody.invalid,nats://127.0.0.1:{closed},nats://127.0.0.1:{port}"))
    await explains(
        each, "nobody.invalid:4222: its name", f"127.0.0.1:{closed}: Connection refused",
        f"127.0.0.1:{port}: what answers there is no NATS server",
    )  # fmt: skip
    other.close()


async def test_a_payload_limit_that_is_too_small_is_told(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    site = start_nats(1, "max_payload: 65535", jetstream=False)
    await explains(connect(settings(site.url)), "max_payload is 65535 bytes, expected at least 65536")


async def test_a_permission_that_is_missing_is_told_with_its_subject(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    narrow = '{ publish: "x.>", subscribe: "y.>" }'
    site = start_nats(1, f'authorization {{ users: [ {{user: "a", password: "p", permissions: {narrow}}} ] }}')
    each = connect(settings(site.url_of("a", "p")))
    await connected(each)
    each.publish("other.subject", b"")
    await explains(each, "not to publish to other.subject", "Permissions of the NATS user")
    subscriber = connect(settings(site.url_of("a", "p")))
    await connected(subscriber)
    subscriber.subscribe("z.1", lambda _: None)
    await explains(subscriber, "not to subscribe to z.1")
    assert each.connected
    assert subscriber.connected


def user_of(subscribe: str) -> str:
    """The configuration of one user, without a password, who may publish anything and subscribe to this."""
    return (
        f'authorization {{ users: [ {{ user: u, password: p, permissions: {{ publish: ">", subscribe: [{subscribe}] }} '
        "} ] }\nno_auth_user: u"
    )


async def test_a_subscription_that_was_denied_for_a_while_is_made_again(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that reads its configuration drops what is not permitted any more, and does not take it up again."""
    monkeypatch.setattr(connection_module, "FIRST_DENIED_S", 0.2)
    monkeypatch.setattr(connection_module, "LAST_DENIED_S", 0.4)
    (server,) = start_nats(1, user_of('">"'), jetstream=False).servers
    each, sender = connect(settings(server.url)), connect(settings(server.url), "router")
    got: list[str] = []
    denied: list[int] = []
    calls: list[int] = []
    each.subscribe("Some.1", lambda message: got.append(message.subject), lambda: denied.append(1))
    unwanted = each.subscribe("other.1", lambda _: None, lambda: (denied.append(2), unwanted.close()))
    each.on_connected(lambda: calls.append(1))
    await connected(each)
    await connected(sender)
    server.reload(user_of('"other.*"'))
    await eventually(lambda: len(denied) > 3, COMES_S, "it is not tried again, or nobody is told")
    assert len(calls) > 2, "over a new connection"
    await explains(each, "not to subscribe to some.1")
    server.reload(user_of('">"'))
    await eventually(lambda: sender.publish("Some.1", b"") and got, COMES_S, "nothing comes")
    before, line = len(calls), each._line
    assert line is not None
    server.reload(user_of('"Some.*"'))
    await eventually(lambda: 2 in denied, COMES_S)
    await eventually(lambda: not line.is_denied.is_set(), COMES_S, "what nobody wants is not forgotten")
    assert len(calls) == before, "nobody wants it any more: the connection stays"


# ── one connection, its bounds and its end ───────────────────────────────────────────────────────────────────────────


async def test_a_process_has_one_connection_for_each_purpose_until_its_last_user_closes_it(
    nats_bus: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    wanted = settings(nats_bus.url)
    first, second, other = connect(wanted), connect(wanted), connect(wanted, "router")
    assert first is second
    assert other is not first
    await connected(first)
    first.close()
    assert first.connected
    second.close()
    await second.ended()
    assert not second.connected
    third = connect(wanted)
    assert third is not first
    await connected(third)


async def test_what_waits_at_the_end_is_sent(nats_bus: NatsSite, connect: Callable[..., NatsConnection]) -> None:
    wanted = settings(nats_bus.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    got: list[bytes] = []
    receiver.subscribe("last.words", lambda message: got.append(message.data))
    await connected(sender)
    await connected(receiver)
    await eventually(lambda: sender.publish("last.words", b"first") and got, COMES_S)
    got.clear()
    for number in range(100):
        assert sender.publish("last.words", b"%d" % number)
    sender.close()
    await eventually(lambda: len([one for one in got if one != b"first"]) == 100, COMES_S)


async def test_what_waits_to_be_sent_is_bounded_and_is_never_sent_late(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_WAITING", 100)
    monkeypatch.setattr(connection_module, "MAX_WAITING_BYTES", 10_000)
    site = start_nats(1, jetstream=False)
    each = connect(settings(site.url))
    assert not each.publish("early", b"x"), "there is no connection yet"
    await connected(each)
    assert [each.publish("many", b"") for _ in range(101)] == [True] * 100 + [False]
    await eventually(lambda: not each._waiting, COMES_S)
    assert [each.publish("large", b"x" * 5_000) for _ in range(3)] == [True, True, False]
    await eventually(lambda: not each._waiting, COMES_S)
    listener = connect(settings(site.url), "router")
    got: list[bytes] = []
    listener.subscribe("late", lambda message: got.append(message.data))
    await connected(listener)
    site.servers[0].signal(signal.SIGSTOP)
    each.leave_server()
    await eventually(lambda: not each.connected, COMES_S)
    assert not each.publish("late", b"stale")
    site.servers[0].signal(signal.SIGCONT)
    await connected(each)
    await eventually(lambda: each.publish("late", b"fresh") and got, COMES_S)
    assert got[0] == b"fresh"


async def test_a_handler_that_raises_stops_nothing(nats_bus: NatsSite, connect: Callable[..., NatsConnection]) -> None:
    wanted = settings(nats_bus.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    got: list[bytes] = []

    def handle(message: Any) -> None:
        got.append(message.data)
        raise ValueError("the test's own")

    receiver.subscribe("a.*", handle)
    await connected(sender)
    await connected(receiver)
    await eventually(lambda: sender.publish("a.1", b"x") and len(got) > 2, COMES_S)
    assert supervisor.current().failures.pop("a bus message") >= 2
    assert receiver.connected


async def test_a_closed_subscription_gets_nothing_more(
    nats_bus: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    wanted = settings(nats_bus.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    ended: list[bytes] = []
    other: list[bytes] = []
    subscription = receiver.subscribe("a", lambda message: ended.append(message.data))
    receiver.subscribe("b", lambda message: other.append(message.data))
    await connected(sender)
    await connected(receiver)
    await eventually(lambda: sender.publish("a", b"x") and ended, COMES_S)
    subscription.close()
    subscription.close()
    before = len(ended)
    sender.publish("a", b"y")
    await eventually(lambda: sender.publish("b", b"z") and other, COMES_S)
    assert b"y" not in ended[before:]


# ── servers that go and come ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_connection_comes_back_with_its_subscriptions_and_says_once_that_it_was_gone(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    site = start_nats(1, jetstream=False)
    wanted = settings(site.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    got: list[bytes] = []
    calls: list[int] = []
    receiver.subscribe("a", lambda message: got.append(message.data))
    receiver.on_connected(lambda: calls.append(1))
    await connected(sender)
    await connected(receiver)
    site.servers[0].kill()
    await eventually(lambda: not sender.connected and not receiver.connected, COMES_S)
    await explains(sender, "Connection refused")
    site.start()
    await connected(sender)
    await connected(receiver)
    await eventually(lambda: sender.publish("a", b"x") and got, COMES_S)
    assert calls == [1, 1]


async def test_what_waits_when_the_connection_ends_is_never_sent(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    site = start_nats(1, jetstream=False)
    wanted = settings(site.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    got: list[bytes] = []
    receiver.subscribe("a", lambda message: got.append(message.data))
    await connected(sender)
    await connected(receiver)
    site.servers[0].kill()
    assert all(sender.publish("a", b"stale") for _ in range(50)), "it does not know yet"
    await eventually(lambda: not sender.connected and not receiver.connected, COMES_S)
    site.start()
    await connected(receiver)
    await connected(sender)
    await eventually(lambda: sender.publish("a", b"fresh") and len(got) > 2, COMES_S)
    assert set(got) == {b"fresh"}


def flood(port: int) -> None:
    """Publish 32 MB to ``a`` as fast as the server takes them."""
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"CONNECT {}\r\n" + (b"PUB a 64000\r\n" + b"x" * 64_000 + b"\r\n") * 500 + b"PING\r\n")
        said = b""
        while b"PONG" not in said and (more := stranger.recv(65536)):
            said += more


async def test_a_process_that_was_too_slow_for_a_server_comes_back(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    site = start_nats(1, 'max_pending: 1MB\nwrite_deadline: "1s"', jetstream=False)
    wanted = settings(site.url)
    receiver = connect(wanted)
    got: list[bytes] = []
    receiver.subscribe("a", lambda message: got.append(message.data))
    await connected(receiver)
    flood(site.servers[0].port)  # while this loop reads nothing
    assert site.servers[0].monitor("/varz")[1]["slow_consumers"] >= 1
    sender = connect(wanted, "router")
    await eventually(lambda: sender.publish("a", b"fresh") and b"fresh" in got, COMES_S)
    assert receiver.connected


async def test_messages_that_come_faster_than_they_are_handled_are_dropped_and_counted(
    nats_bus: NatsSite, connect: Callable[..., NatsConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions_module, "MAX_RECEIVED", 10)
    wanted = settings(nats_bus.url)
    sender, receiver = connect(wanted), connect(wanted, "router")
    got: list[bytes] = []
    receiver.subscribe("a", lambda message: got.append(message.data))
    await connected(sender)
    await connected(receiver)
    for _ in range(5_000):
        assert sender.publish("a", b"")
    await eventually(lambda: receiver.dropped and len(got) + receiver.dropped == 5_000, COMES_S)
    assert supervisor.current().failures.pop("reading of the bus") == receiver.dropped
    got.clear()
    await eventually(lambda: sender.publish("a", b"x") and got, COMES_S)


async def test_a_member_that_hears_no_router_looks_for_it_at_another_server(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers that are not joined, as after a partition: the router is at one of them."""
    monkeypatch.setattr(connection_module, "UNHEARD_S", 0.3)
    one, other = start_nats(1, jetstream=False), start_nats(1, jetstream=False)
    both = settings(f"{one.url},{other.url}")
    member = NatsMemberTransport(connect(both).share(), 0, on_control=lambda _: None)
    await connected(member._connection)
    first = member._connection.server
    elsewhere = other if first == one.url else one
    router = connect(replace(both, bus=load({"WATCHOUT_BUS": elsewhere.url}).bus), "router")
    heard: list[bytes] = []
    router.subscribe(router.subjects.of_router(0), lambda message: heard.append(message.data))
    # Nothing goes from one server to the other: what comes was sent at the router's.
    await eventually(lambda: (member.send_control(b"hello"), heard)[1], COMES_S, "it stays where no router is")
    member.close()


async def test_a_server_that_hangs_is_left_for_another_and_told_servers_are_used(
    nats_cluster: NatsSite, connect: Callable[..., NatsConnection]
) -> None:
    """Only one of three is in the settings: the others are known from it."""
    first = nats_cluster.servers[0]
    each = connect(settings(first.url))
    await connected(each)
    first.signal(signal.SIGSTOP)
    await eventually(lambda: each.connected and each.server != first.url, COMES_S, "it stays with a dead server")
    assert each.server in {server.url for server in nats_cluster.servers[1:]}
    first.signal(signal.SIGCONT)


async def test_a_server_in_lame_duck_mode_is_left_before_it_ends(
    start_nats: Callable[..., NatsSite], connect: Callable[..., NatsConnection]
) -> None:
    # It closes connections, or ends if there are none, after this time, whatever it is told meanwhile.
    site = start_nats(3, 'lame_duck_grace_period: "25s"', jetstream=False)
    each = connect(settings(site.url))
    await connected(each)
    (leaving,) = [server for server in site.servers if server.url == each.server]
    leaving.signal(signal.SIGUSR2)
    await eventually(lambda: each.connected and each.server != leaving.url, COMES_S, "it stays")
    assert leaving.monitor("/varz")[0] == 200, "the server has not ended yet"
    leaving.kill()
    site.remove()


async def test_without_a_server_at_the_start_the_first_that_comes_is_used(
    connect: Callable[..., NatsConnection],
) -> None:
    site = make_site(1, jetstream=False)
    try:
        each = connect(settings(site.url))
        await explains(each, "Connection refused")
        site.start()
        await connected(each)
    finally:
        site.remove()
