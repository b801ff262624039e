"""Names of the files in ``WATCHOUT_HOME``, all of them. Pure."""

from __future__ import annotations

from typing import Final

#: Unix sockets of the bus (`common.bus.zeromq`): control messages, frames to the router, frames from the router.
CONTROL_SOCKET: Final = "control"
FRAMES_IN_SOCKET: Final = "frames.in"
FRAMES_OUT_SOCKET: Final = "frames.out"
#: Followed by 8 characters: where a member accepts frames of other members (`common.bus.zeromq.unix_mesh`).
FRAME_MESH_PREFIX: Final = "f-"
#: Longest of these names with its slash, in bytes: ``WATCHOUT_HOME`` must leave that much of a socket's path.
SOCKET_NAME_BYTES: Final = 12
#: Locked by the router while it runs: one router a home.
ROUTER_LOCK: Final = "router.lock"
#: Locked by a gateway while it takes its port, so that two never take the same one.
LISTEN_LOCK: Final = "listen.lock"
#: Followed by the number of a port: locked by the gateways that listen on it.
PORT_LOCK_PREFIX: Final = "port-"
#: Followed by the name of a process: locked by the process that has this name.
NAME_LOCK_PREFIX: Final = "name-"
#: The router's last epoch (`router.epoch`).
EPOCH_FILE: Final = "epoch"
#: The embedded session store (`identity.embedded_store`).
SESSION_STORE_FILE: Final = "sessions.db"
#: Reservations of stream ids (`router.reservation_file`).
RESERVATIONS_FILE: Final = "reservations.db"
#: The key of the ids that streams have in metrics and logs (`gateway.home_keys`).
STREAM_KEY_FILE: Final = "stream.key"
#: Shared streams (`router.shares`), and the key of their tokens (`gateway.shares`).
SHARES_FILE: Final = "shares.db"
SHARE_KEY_FILE: Final = "share.key"
#: Length of these two keys in bytes.
HOME_KEY_BYTES: Final = 32
#: Alerts that wait for their acknowledgement (`router.alerts.escalation_sender`).
ESCALATIONS_FILE: Final = "escalations.db"
#: Directory of the key pairs and allowed keys of the bus over TCP (`common.bus.zeromq.curve`).
CURVE_DIRECTORY: Final = "curve"
#: Directory of the certificates of the frame mesh between hosts, and its files (`common.bus.zeromq.mesh_certificates`).
MESH_DIRECTORY: Final = "mesh"
MESH_CERT_FILE: Final = "host.crt"
MESH_KEY_FILE: Final = "host.key"
MESH_CA_FILE: Final = "ca.crt"

#: What a backup holds, because nothing else can make it again: databases, single files, directories of keys.
KEPT_DATABASES: Final = (SESSION_STORE_FILE, RESERVATIONS_FILE, SHARES_FILE, ESCALATIONS_FILE)
KEPT_KEYS: Final = (STREAM_KEY_FILE, SHARE_KEY_FILE)
KEPT_DIRECTORIES: Final = (CURVE_DIRECTORY, MESH_DIRECTORY)
#: What SQLite may keep beside a database: it belongs to that very file, and to no restored one.
DATABASE_COMPANIONS: Final = ("-wal", "-shm", "-journal")
#: Directory of a restore that is under way, and, followed by a time, what a restore replaced (`ctl.backup`).
RESTORING_DIRECTORY: Final = "restore.new"
BEFORE_RESTORE_PREFIX: Final = "before-restore-"

_NAMES: Final = frozenset((
    CONTROL_SOCKET, FRAMES_IN_SOCKET, FRAMES_OUT_SOCKET, ROUTER_LOCK, LISTEN_LOCK, EPOCH_FILE, SESSION_STORE_FILE,
    RESERVATIONS_FILE, STREAM_KEY_FILE, SHARES_FILE, SHARE_KEY_FILE, ESCALATIONS_FILE,
    CURVE_DIRECTORY, MESH_DIRECTORY,
))  # fmt: skip


def is_home_file(name: str) -> bool:
    """Whether a file of this name in a home is one of watchout's."""
    return name in _NAMES or name.startswith((PORT_LOCK_PREFIX, NAME_LOCK_PREFIX, FRAME_MESH_PREFIX))


def port_lock(port: int) -> str:
    """Return the name of the file that the gateways on this port have locked."""
    return f"{PORT_LOCK_PREFIX}{port}"


def port_of(name: str) -> int | None:
    """Return the port of a `port_lock`; None for any other file."""
    number = name.removeprefix(PORT_LOCK_PREFIX)
    return int(number) if name.startswith(PORT_LOCK_PREFIX) and number.isdecimal() else None
