"""Texts for exceptions that hold no address and no secret."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from watchout.common.toolbox.reason import MAX_TEXT_CHARS, reason, reason_with_text


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.7', 443)"), "Connection refused"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/etc/secret"), "No such file or directory"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("Multiple exceptions: ('192.0.2.7', 443)"), "OSError"),
        (ConnectionResetError(), "ConnectionResetError"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "SSLError"),
        (ValueError("token abc"), "ValueError"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_reason_is_short_and_holds_no_text_of_the_exception(exc: Exception, text: str) -> None:
    assert reason(exc) == text


def test_the_reason_of_a_tls_error_is_the_name_that_openssl_gives() -> None:
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError) as caught:
        context.wrap_bio(client, server, server_hostname="localhost").do_handshake()
    assert reason(caught.value) == "WRONG_VERSION_NUMBER" or reason(caught.value).isupper()


def test_a_reason_with_text_is_cut() -> None:
    assert reason_with_text(ValueError("x" * 1000)) == f"ValueError: {'x' * MAX_TEXT_CHARS}"
