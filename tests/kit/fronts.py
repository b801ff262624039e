"""nginx, HAProxy and Caddy with the files of `deploy/`, which only get addresses, files and time-outs of the test."""

from __future__ import annotations

import contextlib
import re
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from tests.kit.certificates import PrivateKey, make_certificate, make_key, pem
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, Process
from tests.kit.proxies import found, listening, written

NGINX: Final = "nginx/watchout.conf"
HAPROXY: Final = "haproxy/haproxy.cfg"
CADDY: Final = "caddy/Caddyfile"
#: A time-out that bears on sockets and pictures, as the files of nginx and HAProxy write it.
TIME_OUT: Final = re.compile(
    r"((?:proxy_read_|proxy_send_|send_)timeout|timeout (?:client|server|tunnel)) +(\d+)([smh])\b"
)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
RELOADS_S: Final = 60.0


class CertificateFiles(Protocol):
    """Where a proxy finds its certificate with its chain, the key, and both in one file."""

    @property
    def certificate(self) -> Path: ...

    @property
    def key(self) -> Path: ...

    @property
    def both(self) -> Path: ...


class Authority:
    """An authority of its own, which clients trust, and a certificate of it for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._authority: tuple[PrivateKey, bytes] = (key := make_key(), make_certificate(key))
        self.certificate, self.key = directory / "fullchain.pem", directory / "key.pem"
        self.both = directory / "watchout.pem"
        self.renew()

    def renew(self) -> None:
        """Put another certificate, with another key, into the files."""
        key = make_key()
        certificate = make_certificate(key, authority=self._authority) + self._authority[1]
        self.key.write_bytes(pem(key))
        self.certificate.write_bytes(certificate)
        self.both.write_bytes(certificate + pem(key))

    @property
    def serial(self) -> str:
        """The serial number of the certificate in the files, as `shown_serial` has it."""
        return _serial(self.certificate.read_text(encoding="ascii"))

    def trust(self) -> ssl.SSLContext:
        """What a client trusts: the authority alone."""
        return ssl.create_default_context(cadata=self._authority[1].decode())

    def shown_serial(self, port: int) -> str:
        """The serial number of the certificate that is shown to a new connection."""
        return _serial(ssl.get_server_certificate(("127.0.0.1", port), timeout=RELOADS_S))


def _serial(text: str) -> str:

    return str(x509.load_pem_x509_certificate(text.encode()).serial_number)


@dataclass
class Front:
    """A proxy that runs."""

    directory: Path
    #: Where it speaks TLS, or HTTP when it was started without an authority.
    port: int
    #: Where it redirects to TLS; 0 without an authority.
    plain_port: int
    process: Process
    #: Makes it read its files again; returns when it was told.
    reload: Callable[[], None]
    #: Its files of logs, besides what the process prints.
    logs: Sequence[Path] = field(default_factory=tuple)

    def said(self) -> str:
        """All that is in its logs."""
        return self.process.output + "".join(log.read_text(errors="replace") for log in self.logs if log.exists())


Start = Callable[..., AbstractContextManager[Front]]


def text_of(file: str) -> str:
    """A file of `deploy/`."""
    return (REPOSITORY / "deploy" / file).read_text(encoding="utf-8")


def time_outs(file: str) -> dict[str, float]:
    """The time-outs that bear on sockets and pictures, in seconds."""
    return {name: int(number) * _SECONDS[unit] for name, number, unit in TIME_OUT.findall(text_of(file))}


@contextlib.contextmanager
def nginx(
    directory: Path, gateway_ports: Sequence[int], authority: CertificateFiles | None = None, faster: int = 1
) -> Iterator[Front]:
    """An nginx before these gateways, with time-outs that are `faster` times as short; HTTP without an authority."""
    port, plain_port = free_port(), free_port() if authority else 0
    text = _faster(_placed(NGINX, gateway_ports), faster)
    if authority is None:
        text = re.sub(r"server \{\s+listen 80;.*?\n\}\n", "", text, count=1, flags=re.DOTALL)
        changes = {"listen 443 ssl;": f"listen 127.0.0.1:{port};", **dict.fromkeys(_lines(text, "ssl_certificate"), "")}
    else:
        changes = {
            "listen 80;": f"listen 127.0.0.1:{plain_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "/etc/ssl/watchout/fullchain.pem": str(authority.certificate),
            "/etc/ssl/watchout/key.pem": str(authority.key),
        }
    text = _changed(text, changes).replace("/var/log/nginx", str(directory))
    paths = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;"
    config = written(directory, f"{head} events {{ }} http {{ {paths}\n{text}\n}}")
    command = [found("nginx"), "-p", str(directory), "-c", str(config), "-e", "stderr"]
    logs = (directory / "watchout.log", directory / "watchout-error.log")
    with listening("nginx", command, directory, port) as process:
        yield Front(directory, port, plain_port, process, lambda: process.send_signal(signal.SIGHUP), logs)


@contextlib.contextmanager
def haproxy(
    directory: Path, gateway_ports: Sequence[int], authority: CertificateFiles | None = None, faster: int = 1
) -> Iterator[Front]:
    """An HAProxy before these gateways; the rest as for `nginx`."""
    port, plain_port = free_port(), free_port() if authority else 0
    text, bind = _faster(_placed(HAPROXY, gateway_ports), faster), "bind :443 ssl crt /etc/haproxy/watchout.pem"
    if authority is None:
        redirect = _lines(text, "http-request redirect")
        changes = {"bind :80\n": "\n", f"{bind} alpn http/1.1": f"bind 127.0.0.1:{port}", **dict.fromkeys(redirect, "")}
        changes["set-header X-Forwarded-Proto https"] = "set-header X-Forwarded-Proto http"
    else:
        changes = {
            "bind :80\n": f"bind 127.0.0.1:{plain_port}\n",
            bind: f"bind 127.0.0.1:{port} ssl crt {authority.both}",
        }
    changes |= {"maxconn 50000": "maxconn 1000", "log /dev/log local0": "log stdout format raw local0"}
    config = written(directory, _changed(text, changes))
    with listening("haproxy", [found("haproxy"), "-W", "-f", str(config)], directory, port) as process:
        yield Front(directory, port, plain_port, process, lambda: process.send_signal(signal.SIGUSR2))


@contextlib.contextmanager
def caddy(
    directory: Path, gateway_ports: Sequence[int], authority: CertificateFiles | None = None, faster: int = 1
) -> Iterator[Front]:
    """A Caddy before this one gateway; the rest as for `nginx`. Its file has no time-outs, so `faster` does nothing."""
    del faster
    (gateway_port,) = set(gateway_ports)
    port, plain_port = free_port(), free_port()
    site = f"http://127.0.0.1:{port} {{\n"
    if authority is not None:
        site = f"https://127.0.0.1:{port} {{\n\ttls {authority.certificate} {authority.key}\n"
    # Orders over a socket of the test, and nothing outside its directory.
    admin = f"unix/{directory}/admin"
    options = (
        f"admin {admin}", f"http_port {plain_port}", "grace_period 1s", f"storage file_system {directory}/storage",
    )  # fmt: skip
    text = _changed(
        text_of(CADDY),
        {
            "\n{\n": "\n{\n\t" + "\n\t".join(options) + "\n",
            "{$SITE:watch.example.com} {\n": site,
        },
    )
    config = written(directory, text)
    homes = (f"{name}={directory}" for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"))
    environ = ["env", *homes, f"GATEWAY=127.0.0.1:{gateway_port}", found("caddy")]
    of_file = ["--adapter", "caddyfile", "--config", str(config)]

    def reload() -> None:
        # By force: the file has not changed, the certificates that it names have.
        command = [*environ, "reload", "--force", "--address", admin, *of_file]
        subprocess.run(command, check=True, capture_output=True, timeout=RELOADS_S)

    with listening("caddy", [*environ, "run", *of_file], directory, port) as process:
        yield Front(directory, port, plain_port if authority else 0, process, reload)


#: Each proxy by its name: how it is started, and its file.
ALL: Final[dict[str, tuple[Start, str]]] = {
    "nginx": (nginx, NGINX), "haproxy": (haproxy, HAPROXY), "caddy": (caddy, CADDY),
}  # fmt: skip


def _placed(file: str, gateway_ports: Sequence[int]) -> str:
    """A file of `deploy/` with gateways on these ports of loopback in place of the three machines that it names."""
    text = text_of(file)
    for machine, port in enumerate(gateway_ports, 1):
        text = _changed(text, {f"10.77.0.{machine}:3000": f"127.0.0.1:{port}"})
    assert ":3000" not in text, "as many gateways as the file names"
    return text


def _faster(text: str, times: int) -> str:
    return TIME_OUT.sub(lambda found: f"{found[1]} {int(found[2]) * _SECONDS[found[3]] * 1000 // times}ms", text)


def _lines(text: str, beginning: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip().startswith(beginning)]


def _changed(text: str, changes: dict[str, str]) -> str:
    for before, after in changes.items():
        assert text.count(before) == 1, (before, text.count(before))
        text = text.replace(before, after)
    return text
