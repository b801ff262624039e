"""permessage-deflate (RFC 7692) as this server offers it, with a bound that the library leaves out.

After a deflate block that says it is the last, zlib keeps whatever follows and inflates it to nothing: no limit on the
size of a message counts those bytes. Here they are a protocol error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from websockets.exceptions import ProtocolError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame
from websockets.typing import ExtensionParameter

#: What may follow the last block of a message: an empty one, and the end that RFC 7692 section 7.2.2 puts there.
AFTER_LAST_BLOCK_BYTES: Final = 64


class Deflate(PerMessageDeflate):
    """The extension of one connection."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame. Raises `ProtocolError`, and what the library raises."""
        decoded = super().decode(frame, max_size=max_size)
        decoder = getattr(self, "decoder", None)  # there is none between messages
        if decoder is not None and len(decoder.unused_data) > AFTER_LAST_BLOCK_BYTES:
            raise ProtocolError("compressed data goes on after its last block")
        return decoded


class DeflateFactory(ServerPerMessageDeflateFactory):
    """Negotiates it."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """What the server answers to an offer, and the extension. Raises what the library raises."""
        answer, agreed = super().process_request_params(params, accepted_extensions)
        return answer, Deflate(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )


#: No context is kept between messages, and the window is small: memory per connection (RFC 7692 section 7.1).
EXTENSIONS: Final = (
    DeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=12,
        compress_settings={"memLevel": 5},
    ),
)
