"""The bus over NATS: control messages between machines; frames cross the frame mesh, never NATS."""

from watchout.common.errors import StartError

try:
    import nats.aio.client  # noqa: F401 - every module of this package needs it
except ImportError as exc:
    raise StartError(
        f"WATCHOUT_BUS needs nats-py, which cannot be loaded ({exc}): pip install 'watchout[nats]'"
    ) from None
