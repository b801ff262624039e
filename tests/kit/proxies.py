"""nginx and HAProxy in front of a gateway, with as few words as their users write."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.kit.ports import free_port
from tests.kit.processes import Process, clean_environ, poll
from tests.kit.services import missing

LISTENS_S: Final = 30.0

_NGINX: Final = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
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
        {time_outs}
        location / {{
            proxy_pass http://127.0.0.1:{gateway};
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


@contextlib.contextmanager
def nginx(directory: Path, gateway_port: int, idle_s: int | None = None) -> Iterator[int]:
    """The port of an nginx; `idle_s` in place of its default time-outs of 60 s."""
    time_outs = "" if idle_s is None else f"proxy_read_timeout {idle_s}s; proxy_send_timeout {idle_s}s;"
    time_outs += "" if idle_s is None else f" send_timeout {idle_s}s;"
    port = free_port()
    config = _written(
        directory, _NGINX.format(directory=directory, port=port, gateway=gateway_port, time_outs=time_outs)
    )
    command = [_found("nginx"), "-p", str(directory), "-c", str(config), "-e", "stderr"]
    with _listening("nginx", command, directory, port):
        yield port


@contextlib.contextmanager
def haproxy(directory: Path, gateway_port: int, idle_s: int | None = None) -> Iterator[int]:
    """The port of an HAProxy; `idle_s` in place of the time-outs that its packages come with."""
    port = free_port()
    text = _HAPROXY.format(port=port, gateway=gateway_port, idle=idle_s or HAPROXY_DEFAULT_S)
    config = _written(directory, text)
    with _listening("haproxy", [_found("haproxy"), "-db", "-f", str(config)], directory, port):
        yield port


def _written(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config"
    config.write_text(text, encoding="ascii")
    return config


def _found(name: str) -> str:
    program = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
    if program is None:
        missing(f"no {name} is on the PATH")
    return program


@contextlib.contextmanager
def _listening(name: str, command: list[str], directory: Path, port: int) -> Iterator[None]:
    process = Process(name, command, clean_environ(), directory / "log", directory)
    try:
        poll(lambda: _answers(port) or not process.running, LISTENS_S, f"{name} does not listen")
        assert process.running, process.output
        yield
        assert process.running, process.output
    finally:
        process.end()  # how a proxy ends is its own business


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
