"""What the failures of a NATS connection mean, in sentences for the log: what happened, and what to do. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from watchout.common.bus.nats.parts import MIN_PAYLOAD_BYTES

_PERMISSION: Final = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]{1,200})\"")
#: What stops JetStream until an operator acts: a hint behind other causes.
FULL_DISK: Final = "as after a full disk: then make room, and restart nats-server"
#: Parts of OpenSSL's words for faults, and what they mean.
_TLS: Final = (
    (
        "certificate has expired",
        "the server's certificate, or that of its CA, has ended: renew it, then `nats-server --signal reload`",
    ),
    ("certificate is not yet valid", "the server's certificate is of the future: look at the clocks of both machines"),
    (
        "ALERT_CERTIFICATE_EXPIRED",
        "the certificate of BUS_CERT has ended for the server: renew it; the next attempt uses the new files",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not of BUS_CA, or not for this host name"),
    ("CERTIFICATE_REQUIRED", "the server wants a certificate of this process: set BUS_CERT and BUS_KEY"),
    (
        "BAD_CERTIFICATE",
        "the server does not take BUS_CERT: its CA has to be the server's `ca_file`",
    ),
    ("TLSV1_ALERT_UNKNOWN_CA", "the server does not know the CA of BUS_CERT"),
    ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the server wants a certificate of this process: set BUS_CERT and BUS_KEY"),
)


def of_permission(text: str) -> tuple[str, str] | None:
    """Return what a user may not do.

    Args:
        text: The text of the server's error.

    Returns:
        ``publish`` or ``subscription`` and the subject; None: it is another error.

    """
    found = _PERMISSION.search(text.lower())
    return None if found is None else (found[1], found[2])


def permission(what: str, subject: str) -> str:
    """Return the sentence for a permission that is missing.

    Args:
        what: ``publish`` or ``subscription``.
        subject: The subject.

    """
    verb = "publish to" if what == "publish" else "subscribe to"
    return (
        f"the NATS server permits this user not to {verb} {subject}: allow the subjects of docs/bus.md, "
        '"Permissions of the NATS user"'
    )


def refused(text: str) -> str:
    """Return the sentence for an error that a server sent instead of its greeting, or before it closed the connection.

    Args:
        text: The text of the error.

    """
    lower = text.lower().removeprefix("nats: ").strip("'")
    if "authorization violation" in lower or "authentication" in lower:
        return (
            f"it refuses the user of this process ({lower}): look at user, password or token in WATCHOUT_BUS, or at "
            "BUS_CREDENTIALS"
        )
    if "maximum connections" in lower:
        return "it has its maximum of connections: raise its `max_connections`"
    if "secure connection" in lower:
        return "it accepts TLS only: write tls:// in WATCHOUT_BUS"
    if "empty response" in lower or "json parse" in lower:
        return "what answers there is no NATS server, or not on this port"
    return lower[:200] or "it closed the connection"


def no_tls() -> str:
    """Return the sentence for a server that does not begin TLS although the settings demand it."""
    return "it does not offer TLS, which WATCHOUT_BUS, BUS_CA or BUS_CERT demands: nothing was sent"


def no_certificate() -> str:
    """Return the hint for a server that closed the connection to a process without a certificate."""
    return "a server that verifies its clients does so to one without BUS_CERT and BUS_KEY"


def own_certificate_ended(at: datetime) -> str:
    """Return the hint for a server that closed the connection to a process whose certificate has ended.

    Args:
        at: When it ended.

    """
    when = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return f"the certificate of BUS_CERT ended at {when}: renew it; the next attempt uses the new files"


def tls(fault: str) -> str:
    """Return the sentence for a TLS handshake that failed.

    Args:
        fault: OpenSSL's name of the fault, and what it found wrong with a certificate.

    """
    for name, meaning in _TLS:
        if name in fault:
            return f"TLS failed ({fault}): {meaning}"
    return f"TLS failed ({fault})"


def small_payload(most: int) -> str:
    """Return the sentence for a server whose largest payload is too small.

    Args:
        most: Its `max_payload`, in bytes.

    """
    return f"its max_payload is {most} bytes, expected at least {MIN_PAYLOAD_BYTES}: raise it in its configuration"


def nobody_reached(failures: dict[str, str]) -> str:
    """Return the sentence for a bus of which no server can be used.

    Args:
        failures: What happened, by server.

    """
    first = list(failures.items())[:4]
    more = f" and {len(failures) - len(first)} more" if len(failures) > len(first) else ""
    tried = "; ".join(f"{server}: {why}" for server, why in first)
    return f"no NATS server of WATCHOUT_BUS can be used ({tried}{more})"


def nobody_listens(server: str, slot: int, cluster: str) -> str:
    """Return the sentence for a bus on which no router is there.

    Args:
        server: The server to which this process is connected.
        slot: The slot.
        cluster: `CLUSTER_NAME`.

    """
    return (
        f"NATS is there ({server}), but no router serves slot {slot} of the site {cluster!r}: start `watchout-router` "
        "with the same WATCHOUT_BUS and CLUSTER_NAME; where one runs, it cannot use JetStream, and its log says why"
    )


def no_jetstream() -> str:
    """Return the sentence's end for servers on which nobody answers for JetStream."""
    return f"it is not enabled on these servers, or not for this account, or off, {FULL_DISK}"


def silent_router(server: str, slot: int) -> str:
    """Return the sentence for a router that is there and does not reply.

    Args:
        server: The server to which this process is connected.
        slot: The slot.

    """
    return (
        f"NATS is there ({server}), and the router of slot {slot} does not reply: it is just starting, or hangs, or is "
        "cut off; look at its log"
    )
