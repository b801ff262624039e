"""``watchout-ctl addresses``: the addresses of console and sockets for this machine and for phones, with a QR code."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import segno
from cryptography import x509

from watchout.ctl.environment import home_option, read_environment, token_source
from watchout.ctl.reachable import reachable, signing_in, socket_url

#: Addresses of documentation (RFC 5737, RFC 3849): towards them the kernel picks the address that others see.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PORT: Final = 9


@click.command("addresses", short_help="Print the addresses of console and sockets, with a QR code.")
@click.option(
    "--sign-in", is_flag=True, help="The QR code signs whoever scans it in: with WATCHOUT_TOKEN, or else a new token "
    "of the embedded session store."
)  # fmt: skip
@click.option("--qr/--no-qr", default=None, help="Draw the QR code. By default on a terminal only.")
@home_option
def addresses(sign_in: bool, qr: bool | None, home: str | None) -> None:
    """Print where browsers reach the console of this machine's gateway, and where clients reach its sockets.

    The QR code leads a phone of the same network to the console. What a phone lacks (an address, https for its camera)
    is said with the setting that changes it.
    """
    environment = read_environment(home)
    settings = environment.settings
    names = None if settings.tls_cert is None else _names(settings.tls_cert)
    found = reachable(
        host=settings.host, port=settings.port, own=own_addresses(), names=names, console=settings.console
    )
    click.echo(f"console on this machine  {found.here}")
    for url in found.others:
        click.echo(f"console from a phone     {url}")
    click.echo(f"sockets                  {socket_url(found.best)}")
    for hint in found.hints:
        click.echo(f"note: {hint}")
    if found.others and settings.console and (sys.stdout.isatty() if qr is None else qr):
        link = signing_in(found.best, token_source(None, environment)()) if sign_in else found.best
        drawn = io.StringIO()
        segno.make(link, error="l", micro=False).terminal(drawn, compact=True, border=2)
        click.echo(f"{drawn.getvalue()}scan it with a phone in the same network", nl=False)
        click.echo(": it signs the phone in with the token, so show it to nobody else" if sign_in else "")


def own_addresses() -> list[str]:
    """Return the addresses that other machines see of this one, IPv4 before IPv6. Nothing is sent."""
    found = []
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, _PORT))
            address = str(probe.getsockname()[0])
            if not address.startswith("fe80"):
                found.append(address)
    return found


def _names(certificate: Path) -> Sequence[str]:
    """Return the names of a certificate; empty when it cannot be read, which `watchout-ctl doctor` explains."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, IndexError, x509.ExtensionNotFound):
        return ()
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
