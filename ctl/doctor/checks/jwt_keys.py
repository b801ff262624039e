"""Check of the keys of JWTs: ``JWT_SECRET``, ``JWT_PUBLIC_KEY``, and those that the issuer publishes."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec
from yarl import URL

from watchout.common.errors import StartError
from watchout.common.settings import Settings
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.clocks import compare_http_clock
from watchout.ctl.doctor.findings import Finding, ok, wrong
from watchout.ctl.doctor.scrubbing import visible_address
from watchout.ctl.terminal import counted
from watchout.identity.authenticator import auth_methods
from watchout.identity.sources.endpoint import EndpointFault, HttpEndpoint
from watchout.identity.sources.jwks import FETCH_TIMEOUT_S, MAX_RESPONSE_BYTES
from watchout.identity.sources.jwt import JwtVerifier
from watchout.identity.sources.keys import KeyFault, pem_key, read_jwks


async def check_jwt_keys(settings: Settings) -> list[Finding]:
    """Return the findings on each configured key of JWTs, and on the clock of their issuer."""
    if "jwt" not in auth_methods(settings):
        return [ok("keys", "No JWT is accepted: no JWT_SECRET, JWT_PUBLIC_KEY or JWT_JWKS_URL is in use.")]
    found = [] if settings.jwt_jwks_url is None else await _check_published_keys(settings.jwt_jwks_url)
    if settings.jwt_public_key is None and settings.jwt_secret is None:
        return found
    verifier = JwtVerifier(replace(settings, jwt_jwks_url=None))
    try:
        await verifier.open()
    except StartError as exc:
        return [*found, wrong("keys", f"{exc}.", "No gateway starts with it: set a correct one.")]
    finally:
        await verifier.close()
    if settings.jwt_public_key is not None:
        algorithms = " ".join(sorted(pem_key(settings.jwt_public_key).algorithms))
        found.append(ok("keys", f"JWT_PUBLIC_KEY can be used ({algorithms})."))
    if settings.jwt_secret is not None:
        found.append(ok("keys", "JWT_SECRET can be used (HS256 HS384 HS512)."))
    return found


CHECK: Final = Check("keys", check_jwt_keys)


async def _check_published_keys(url: str) -> list[Finding]:
    """Fetch the issuer's keys and return the findings on them and on its clock."""
    address = visible_address(url)
    where = f" at {address}" if address else ""
    remedy = "JWTs are refused until it works; look at the issuer, and at JWT_JWKS_URL."
    endpoint = HttpEndpoint(timeout_s=FETCH_TIMEOUT_S, max_response_bytes=MAX_RESPONSE_BYTES, max_requests=1)
    await endpoint.open()
    try:
        answer = await endpoint.request("GET", URL(url))
        if answer.status != 200:
            raise EndpointFault(f"it answered with status {answer.status}")
        found = read_jwks(answer.body)
    except (EndpointFault, KeyFault) as exc:
        return [wrong("keys", f"JWT_JWKS_URL{where} returns no keys: {exc}.", remedy)]
    finally:
        await endpoint.close()
    published = len(msgspec.json.decode(answer.body)["keys"])
    return [
        judge_published_keys(where, usable=len(found.keys), published=published, algorithms=found.algorithms),
        *await compare_http_clock("the JWT issuer", url),
    ]


def judge_published_keys(where: str, *, usable: int, published: int, algorithms: str) -> Finding:
    """Return the finding on the keys at `JWT_JWKS_URL`; `algorithms` of the usable ones, separated by spaces."""
    facts = {"usableKeys": usable, "publishedKeys": published, "algorithms": algorithms.split()}
    if not usable:
        return wrong(
            "keys",
            f"JWT_JWKS_URL{where} publishes {counted(published, 'key')}, none of which can be used: every JWT is "
            "refused.",
            "Let the issuer sign with RSA of 2048 bits or more, EC on P-256, P-384 or P-521, or Ed25519.",
            **facts,
        )
    which = f"{usable} of {published} keys" if usable < published else counted(usable, "key")
    return ok("keys", f"JWT_JWKS_URL{where} publishes {which} that can be used ({algorithms}).", **facts)
