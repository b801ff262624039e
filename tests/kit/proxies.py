"""nginx and HAProxy in front of a gateway, with as few words as their users write; and a proxy that can go silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from tests.kit.ports import free_port
from tests.kit.processes import Process, clean_environ, poll
from tests.kit.relays import Relays, connected, first_of
from tests.kit.services import missing

LISTENS_S: Final = 30.0

_NGINX: Final = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr {level};
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {server}
        location / {{
            proxy_pass http://127.0.0.1:{gateway};
            {location}
        }}
    }}
}}
"""
_HAPROXY: Final = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client {idle}s
    timeout server {idle}s
frontend front
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    server one 127.0.0.1:{gateway}
"""
#: The time-outs of the configuration that HAProxy's packages and documentation come with.
HAPROXY_DEFAULT_S: Final = 50


def nginx_settings(
    directory: Path, port: int, gateway_port: int, *, server: str = "", location: str = "", level: str = "error"
) -> str:
    """The file that nginx is started with; `server` and `location` are lines for these blocks."""
    return _NGINX.format(
        directory=directory, port=port, gateway=gateway_port, server=server, location=location, level=level
    )


@contextlib.contextmanager
def nginx(directory: Path, gateway_port: int, idle_s: int | None = None) -> Iterator[int]:
    """The port of an nginx; `idle_s` in place of its default time-outs of 60 s."""
    time_outs = "" if idle_s is None else f"proxy_read_timeout {idle_s}s; proxy_send_timeout {idle_s}s;"
    time_outs += "" if idle_s is None else f" send_timeout {idle_s}s;"
    port = free_port()
    config = written(directory, nginx_settings(directory, port, gateway_port, server=time_outs))
    command = [found("nginx"), "-p", str(directory), "-c", str(config), "-e", "stderr"]
    with listening("nginx", command, directory, port):
        yield port


@contextlib.contextmanager
def haproxy(directory: Path, gateway_port: int, idle_s: int | None = None) -> Iterator[int]:
    """The port of an HAProxy; `idle_s` in place of the time-outs that its packages come with."""
    port = free_port()
    text = _HAPROXY.format(port=port, gateway=gateway_port, idle=idle_s or HAPROXY_DEFAULT_S)
    config = written(directory, text)
    with listening("haproxy", [found("haproxy"), "-db", "-f", str(config)], directory, port):
        yield port


def written(directory: Path, text: str) -> Path:
    """The file of settings, with this text."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config"
    config.write_text(text, encoding="utf-8")
    return config


def found(name: str) -> str:
    """The program; the test skips when there is none."""
    program = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
    if program is None:
        missing(f"no {name} is on the PATH")
    return program


@contextlib.contextmanager
def listening(name: str, command: list[str], directory: Path, port: int) -> Iterator[Process]:
    """Run a proxy until the block ends; it listens on this port of loopback when the block begins."""
    process = Process(name, command, clean_environ(), directory / "log", directory)
    try:
        poll(lambda: answers(port) or not process.running, LISTENS_S, f"{name} does not listen")
        assert process.running, process.output
        yield process
        assert process.running, process.output
    finally:
        process.end()  # how a proxy ends is its own business


def answers(port: int) -> bool:
    """Whether something accepts connections on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class SilentProxy:
    """Passes bytes on, until `silence`: then it takes them and passes nothing, as a network that is gone."""

    def __init__(self, gateway_port: int) -> None:
        self._gateway_port = gateway_port
        self._passes = asyncio.Event()
        self._passes.set()
        self._relays = Relays(self._serve)
        #: Connections that were made so far.
        self.made = 0

    @property
    def port(self) -> int:
        return self._relays.port

    def silence(self) -> None:
        self._passes.clear()

    async def heal(self) -> None:
        """Pass bytes on again: those of new connections, the old ones end."""
        await self._relays.put_out()
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected("127.0.0.1", self._gateway_port) as (near, far):
            self.made += 1
            await first_of(self._pump(reader, far), self._pump(near, writer))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if self._passes.is_set():
                    target.write(data)
                    await target.drain()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._relays:
            yield
