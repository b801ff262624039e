"""Check of the introspection endpoint, by introspecting a random token that no user has."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from watchout.common.errors import StartError, StoreUnavailable
from watchout.common.settings import Settings
from watchout.ctl.doctor.check import ASK_S, Check
from watchout.ctl.doctor.clocks import compare_http_clock
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.scrubbing import visible_address
from watchout.identity.authenticator import auth_methods
from watchout.identity.sources.introspection import Introspection


async def check_introspection(settings: Settings) -> list[Finding]:
    """Return the findings on the introspection endpoint and its clock; none where it is not in use."""
    url = settings.introspection_url
    if url is None or "introspection" not in auth_methods(settings):
        return []
    address = visible_address(url)
    where = f"INTROSPECTION_URL{f' at {address}' if address else ''}"
    source = Introspection(replace(settings, store_timeout_s=min(settings.store_timeout_s, ASK_S)))
    try:
        await source.open()
        claims = await source.verify(f"doctor-{secrets.token_hex(16)}")
    except StartError as exc:
        return [wrong("keys", f"{exc}.", "No gateway starts with it: set a correct one.")]
    except StoreUnavailable as exc:
        return [_failed(where, str(exc).removeprefix("the introspection endpoint cannot be asked: "))]
    finally:
        await source.close()
    if claims is not None:
        text = f"{where} accepts a random token that no user has: everybody can sign in."
        found = wrong("keys", text, "It does not read the token: see INTROSPECTION_TOKEN_PARAM and _METHOD.")
    elif source.last_status == 404:
        text = f"{where} responds with status 404, which counts as an unknown token."
        found = warning("keys", text, "Some endpoints do so; if no token is accepted, the path is wrong.")
    else:
        found = ok("keys", f"{where} responds, and refuses a random token that no user has.", status=source.last_status)
    return [found, *await compare_http_clock("the introspection endpoint", url)]


CHECK: Final = Check("keys", check_introspection)


def _failed(where: str, reason: str) -> Finding:
    """Return the finding on an endpoint that gave no usable response."""
    if "refuses this server" in reason:
        remedy = "Set INTROSPECTION_AUTH_HEADER_NAME and _VALUE to the credentials that the endpoint expects."
    else:
        remedy = "Look at INTROSPECTION_URL, INTROSPECTION_METHOD, and the endpoint's own log."
    return wrong("keys", f"{where} cannot be used: {reason}.", remedy)
