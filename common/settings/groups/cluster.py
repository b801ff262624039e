"""Settings of a site of several machines: the NATS servers that join them, and the frame mesh between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchout.common.settings import parsers
from watchout.common.settings.bus_servers import BusServer, bus_servers
from watchout.common.settings.mesh_listen import MeshListen, mesh_listen
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Several machines")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ClusterSettings:
    """The settings of the section "Several machines": what joins the processes of all of them. See `Settings`."""

    bus: tuple[BusServer, ...] = _GROUP.setting(
        "WATCHOUT_BUS", bus_servers, (), expects="NATS URLs", secret=True,
        help="NATS servers that join the processes of several machines, `nats://a:4222,nats://b:4222`: one of them is "
        "enough to find the others. Also `tls://`, `ws://`, `wss://`, a host alone, and `user:password@` or `token@` "
        "before the host (percent-encoded). Requires `pip install 'watchout[nats]'`. Not set: the processes of one "
        "`WATCHOUT_HOME` are joined, without NATS.",
    )  # fmt: skip
    bus_credentials: Path | None = _GROUP.setting(
        "BUS_CREDENTIALS", parsers.file, None, expects="file",
        help="Credentials of the NATS user (a `.creds` file of `nsc`), in place of a user in `WATCHOUT_BUS`. A changed "
        "file is used at the next connection, without a restart.",
    )  # fmt: skip
    bus_ca: Path | None = _GROUP.setting(
        "BUS_CA", parsers.file, None, expects="file",
        help="Certificates of the CA of the NATS servers, in PEM. With it every connection is encrypted, whatever the "
        "scheme. Not set: those that the system trusts. A changed file is used at the next connection, without a "
        "restart.",
    )  # fmt: skip
    bus_cert: Path | None = _GROUP.setting(
        "BUS_CERT", parsers.file, None, expects="file",
        help="Certificate of this process for NATS servers that verify it, with its chain, in PEM. A changed file "
        "is used at the next connection, without a restart.",
    )  # fmt: skip
    bus_key: Path | None = _GROUP.setting(
        "BUS_KEY", parsers.file, None, expects="file",
        help="Private key of `BUS_CERT`, in PEM. If it is not set, the key is read from the file of `BUS_CERT`.",
    )  # fmt: skip
    cluster_name: str = _GROUP.setting(
        "CLUSTER_NAME", parsers.cluster_name, "watchout", expects="1–32 of A-Z a-z 0-9 _ -",
        help="Name of the site, and first part of all its NATS subjects: several sites can share NATS servers.",
    )  # fmt: skip
    mesh_listen: MeshListen | None = _GROUP.setting(
        "MESH_LISTEN", mesh_listen, None, expects="tls://address:first-last",
        help="Where this process accepts frames of other hosts, over TLS with certificates of both sides: "
        "`tls://10.0.0.5:7400-7409`. Each gateway, bridge and router of a host takes a free port of the range; "
        "port 0 is any. The address is told to the other hosts: to listen on all addresses, "
        "`tls://0.0.0.0:7400-7409?advertise=10.0.0.5`. Not set: frames come from processes of the same home "
        "only.",
    )  # fmt: skip
    mesh_cert: Path | None = _GROUP.setting(
        "MESH_CERT", parsers.file, None, expects="file",
        help="Certificate of this host for other hosts, in PEM; it names the address in `MESH_LISTEN`. Not set: "
        "`mesh/host.crt` in `WATCHOUT_HOME`, which `watchout-ctl keys host` makes. A changed file is used for new "
        "connections without a restart.",
    )  # fmt: skip
    mesh_key: Path | None = _GROUP.setting(
        "MESH_KEY", parsers.file, None, expects="file",
        help="Private key of the certificate, in PEM. Not set: `mesh/host.key` in `WATCHOUT_HOME`, or the file of "
        "`MESH_CERT` if that is set.",
    )  # fmt: skip
    mesh_ca: Path | None = _GROUP.setting(
        "MESH_CA", parsers.file, None, expects="file",
        help="Certificates of the authorities of the cluster's hosts, in PEM: whoever has a certificate of one of them "
        "may send and get frames. Not set: `mesh/ca.crt` in `WATCHOUT_HOME`.",
    )  # fmt: skip
    cluster_slots: int = _GROUP.setting(
        "CLUSTER_SLOTS", parsers.whole(1, 64), 4, expects="1–64",
        help="Number of slots into which the streams are divided, each with one router at a time; the same for all "
        "processes of the site. More router processes than slots are spares. To change it, end all processes, "
        "delete the bucket `CLUSTER_NAME-slots`, and start them all with the new number; the routers move what is "
        "stored (docs/cluster.md). Without `WATCHOUT_BUS` there is one slot.",
    )  # fmt: skip

    @property
    def slots(self) -> int:
        """The number of slots of this site."""
        return self.cluster_slots if self.bus else 1
