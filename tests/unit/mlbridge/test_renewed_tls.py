"""Renewed certificates towards an ML service are used at the next connection, whatever carries the frames."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisLost

from tests.kit.certificates import PrivateKey, make_certificate, make_key, pem
from watchout.common.media.frames import Frame
from watchout.common.settings import load
from watchout.mlbridge.targets import TargetFailure
from watchout.mlbridge.targets.redis_server import _TlsConnection
from watchout.mlbridge.targets.registry import open_target
from watchout.mlbridge.targets.target import Target

FRAME = Frame("stream_1", 7, 1_700_000_000_000, picture=b"\xff\xd8\xff")
INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true,"tls_required":true}\r\n'
COMES_S = 30


class Service:
    """Ends each connection once its handshake has succeeded, and counts those."""

    def __init__(self, folder: Path, *, greets: bool) -> None:
        self._folder = folder
        self._greets = greets
        self._context: ssl.SSLContext | None = None
        self.handshakes = 0

    def show(self, authority: tuple[PrivateKey, bytes]) -> None:
        """Have a certificate of this authority from now on."""
        key = make_key()
        cert, key_file = self._folder / "service.crt", self._folder / "service.key"
        cert.write_bytes(make_certificate(key, authority=authority))
        key_file.write_bytes(pem(key))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key_file)

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._context is not None
        if self._greets:
            writer.write(INFO)
        with contextlib.suppress(OSError):
            await writer.start_tls(self._context)
            self.handshakes += 1
        writer.transport.abort()


@pytest.mark.parametrize("scheme", ["https", "wss", "tls"])
async def test_files_that_were_renewed_are_used_at_the_next_connection(scheme: str, tmp_path: Path) -> None:
    first, second = [(key, make_certificate(key)) for key in (make_key(), make_key())]
    service, ca = Service(tmp_path, greets=scheme == "tls"), tmp_path / "ca.crt"
    service.show(first)
    ca.write_bytes(first[1])
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = open_target(load({"ML_SERVICE_URL": f"{scheme}://127.0.0.1:{port}", "ML_TLS_CA": str(ca)}))
        assert target is not None
        await target.open(lambda _: None)
        try:
            await reaches(target, service)
            service.show(second)
            ca.write_bytes(second[1])
            await reaches(target, service)
        finally:
            await target.close()


async def test_a_connection_to_redis_that_is_made_again_uses_the_files_as_they_are_then(tmp_path: Path) -> None:
    """The pools keep a connection when it is lost, and connect it again."""
    first, second = [(key, make_certificate(key)) for key in (make_key(), make_key())]
    service, ca = Service(tmp_path, greets=False), tmp_path / "ca.crt"
    async with await asyncio.start_server(service.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = _TlsConnection(host="127.0.0.1", port=port, ssl_ca_certs=str(ca))
        for number, authority in enumerate((first, second), 1):
            service.show(authority)
            ca.write_bytes(authority[1])
            with pytest.raises(RedisLost, match=r"reading|writing"):  # past the handshake
                await connection.connect()
            await connection.disconnect()
            assert service.handshakes == number


async def reaches(target: Target, service: Service) -> None:
    before = service.handshakes
    async with asyncio.timeout(COMES_S):
        while service.handshakes < before + 2:  # one may have begun with the certificates of before
            with contextlib.suppress(TargetFailure, TimeoutError):
                async with asyncio.timeout(0.5):
                    await target.analyse(FRAME)
