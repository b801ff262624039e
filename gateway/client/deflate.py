"""permessage-deflate (RFC 7692) with small memory per connection, and a check that the library lacks. Pure.

After a deflate block that is marked as the last, zlib stores all further bytes without inflating them, so that no limit
on the size of a message counts them. Here they are a protocol error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from websockets.exceptions import ProtocolError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.typing import ExtensionParameter

#: Bytes that may follow the last block of a message: an empty block, and the tail of RFC 7692 section 7.2.2.
AFTER_LAST_BLOCK_BYTES: Final = 64


class Deflate(PerMessageDeflate):
    """permessage-deflate of one connection; `ServerProtocol` calls it for each compressed frame that it reads."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame; raises `ProtocolError` for data after the last block, and what the library raises."""
        decoded = super().decode(frame, max_size=max_size)
        decoder = getattr(self, "decoder", None)  # none between messages
        if decoder is not None and len(decoder.unused_data) > AFTER_LAST_BLOCK_BYTES:
            raise ProtocolError("compressed data after the last block")
        return decoded


class DeflateFactory(ServerPerMessageDeflateFactory):
    """Negotiates permessage-deflate; `ServerProtocol` calls it for each offer in a handshake, and gets a `Deflate`."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """Return the parameters of the response to an offer, and the extension; raises what the library raises."""
        answer, agreed = super().process_request_params(params, accepted_extensions)
        return answer, Deflate(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )


#: Extensions that are offered. No context between messages and a small window bound the memory of a connection
#: (RFC 7692 section 7.1).
EXTENSIONS: Final = (
    DeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        compress_settings={"memLevel": 5},
    ),
)
