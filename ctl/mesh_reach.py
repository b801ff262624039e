"""Tries whether the mesh ports of other members are reached, and would accept frames of this host."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Final

from watchout.common.bus import mesh_address
from watchout.common.bus.mesh_address import MeshAddress
from watchout.common.bus.zeromq.mesh_certificates import refusal_reason
from watchout.common.bus.zeromq.zmtp import GREETING

#: Seconds for one attempt, and attempts at once.
REACH_S: Final = 3.0
_AT_ONCE: Final = 32


async def reach(addresses: Iterable[str], client: ssl.SSLContext) -> dict[str, str | None]:
    """Make a connection to each address, as a sender of frames would, and end it again.

    Args:
        addresses: Addresses of the frame mesh; those that name no other host are left out.
        client: The context of this host's certificate (`mesh_certificates.load`).

    Returns:
        Why each address cannot be used, None where it can.

    """
    turns = asyncio.Semaphore(_AT_ONCE)
    found: dict[str, MeshAddress] = {}
    for text in addresses:
        try:
            address = mesh_address.parse(text)
        except ValueError:
            continue
        if address.host is not None:
            found[text] = address

    async def one(address: MeshAddress) -> str | None:
        async with turns:
            return await _try(address, client)

    return dict(zip(found, await asyncio.gather(*map(one, found.values())), strict=True))


async def _try(address: MeshAddress, client: ssl.SSLContext) -> str | None:
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(REACH_S):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=client, server_hostname=address.host
            )
            # The peer judges this host's certificate after the handshake has ended here.
            said = await reader.readexactly(1)
    except asyncio.IncompleteReadError:
        return "the peer closes the connection: it refuses the certificate of this host, or has too many"
    except OSError as error:
        return refusal_reason(error)
    except UnicodeError:
        return "no host name"
    finally:
        if writer is not None:
            writer.transport.abort()
    return None if said == GREETING[:1] else "the peer does not speak ZMTP"
