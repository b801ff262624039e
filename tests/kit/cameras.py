"""Cameras of the network for tests: MJPEG over HTTP in the forms of several makes, and RTSP servers that go wrong."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.kit.ports import free_port

#: How the parts of a stream are written: (Content-Type of the answer, head of a part for a length, end of a part).
FORMS: dict[str, tuple[str, Callable[[int], bytes], bytes]] = {
    "esp32": (
        "multipart/x-mixed-replace;boundary=123456789000000000000987654321",
        lambda size: (
            b"\r\n--123456789000000000000987654321\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n"
            b"X-Timestamp: 1.2\r\n\r\n" % size
        ),
        b"",
    ),
    "ustreamer": (
        "multipart/x-mixed-replace;boundary=boundarydonotcross",
        lambda size: b"--boundarydonotcross\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % size,
        b"\r\n",
    ),
    "axis": (
        "multipart/x-mixed-replace; boundary=--myboundary",
        lambda size: b"--myboundary\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % size,
        b"\r\n",
    ),
    "without a length": (
        'multipart/x-mixed-replace; boundary="frame"',
        lambda _: b"--frame\r\nContent-Type: image/jpeg\r\n\r\n",
        b"\r\n",
    ),
}


class TcpCamera:
    """Answers each connection on a port of loopback by `talk`, in a thread; `talk` returning closes it.

    After `close` another one may have its `port`: nobody else gets it.
    """

    def __init__(self, talk: Callable[[socket.socket], None], port: int = 0) -> None:
        self._talk = talk
        self.port = port or free_port()
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            self._open.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            self._talk(peer)
        except OSError:
            pass
        finally:
            peer.close()

    def close(self) -> None:
        """Take no more connections, and end those that are open."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for peer in self._open:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)


@contextmanager
def camera(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A camera on a free port."""
    running = TcpCamera(talk)
    try:
        yield running.port
    finally:
        running.close()


def head_of(peer: socket.socket) -> bytes:
    """Read the head of a request."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := peer.recv(65536)):
            raise ConnectionError
        head += data
    return head


def mjpeg(pictures: Callable[[], Iterator[bytes]], form: str = "ustreamer") -> Callable[[socket.socket], None]:
    """A camera that sends pictures as multipart over HTTP, and ends when they end."""
    content_type, part, end = FORMS[form]

    def talk(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nConnection: close\r\n\r\n" % content_type.encode())
        for picture in pictures():
            peer.sendall(part(len(picture)) + picture + end)

    return talk


def http_answer(status: str, headers: str = "", body: bytes = b"") -> Callable[[socket.socket], None]:
    """A camera that answers each request so."""

    def talk(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        peer.sendall(body)

    return talk


def rtsp(answer: Callable[[bytes], str]) -> Callable[[socket.socket], None]:
    """An RTSP server: `answer` gives status, headers and body of each request, without its CSeq."""

    def talk(peer: socket.socket) -> None:
        while True:
            head = head_of(peer)
            number = re.search(rb"CSeq: *(\d+)", head)
            status, _, rest = answer(head).partition("\r\n")
            assert number is not None
            peer.sendall(f"RTSP/1.0 {status}\r\nCSeq: {number[1].decode()}\r\n{rest}".encode())

    return talk
