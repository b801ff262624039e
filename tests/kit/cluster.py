"""A site of three hosts with addresses of their own: NATS servers, routers, gateways and a bridge as real processes.

Every host has a home, certificates of the cluster's authority, and a nats-server of a cluster of three. The session
store is one file that all of them read, in the place of the database that hosts share. The test process is the camera,
the viewers and the ML service: it reaches every host, whatever the hosts do not reach of each other. What is played on
the site is in `tests.kit.cluster_scenes`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.kit.hosts import Host, Hosts, hosts
from tests.kit.nats_servers import NatsServer, NatsSite
from tests.kit.processes import BIN, JOINED, REPOSITORY, SERVERS, Process, Watchout, poll
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.ctl import cluster_keys
from watchout.identity.embedded_store import mint_token

#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 90.0
#: The slots are shared within this: a router that did not take a slot that it was given gets none for a minute.
SHARED_S: Final = 180.0
#: Slots that are told the same for so long are not on their way from one router to another.
AT_REST_S: Final = 3.0
DEPLOYED: Final = REPOSITORY / "deploy" / "three-hosts"
GATEWAY_PORT: Final = 3000
#: The figures that the product promises are held exactly where the machine is one's own (`make test-cluster`); else
#: they may be longer by this factor.
FIGURES: Final = bool(os.environ.get("WATCHOUT_TEST_FIGURES"))
PATIENCE: Final = 1.0 if FIGURES else 15.0
#: After a fault there is one truth again within this.
HEALED_S: Final = 5.0 * PATIENCE
#: A NATS user who may do everything: the operator who deletes a bucket. Also the password.
OPERATOR: Final = "operator"
#: Slots of the site: the default.
SLOTS: Final = 4


def told(what: str, seconds: float) -> None:
    """Say what was measured (`pytest -s`)."""
    print(f"{what}: {seconds:.3f} s")


def deployed(file: str, made: Hosts, home: Path) -> str:
    """A file of `deploy/three-hosts` with the addresses and the folder of the test in place of those it names."""
    text = (DEPLOYED / file).read_text(encoding="utf-8").replace("/var/lib/watchout", str(home))
    return re.sub(r"10\.77\.0\.([123])\b", lambda found: made[int(found[1]) - 1].address, text)


def variables(text: str) -> dict[str, str]:
    """The variables of a ``.env`` file."""
    lines = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


class DeployedServer(NatsServer):
    """A NATS server with the file of `deploy/three-hosts`, whose monitoring the test reaches; `config` is its text."""

    def _written(self) -> str:
        local, users = 'http: "127.0.0.1:8222"', "users: ["
        assert local in self.config
        assert users in self.config
        operator = f"{users} {{ user: {OPERATOR}, password: {OPERATOR} }}"
        return self.config.replace(local, f'http: "{self.host}:{self.monitor_port}"').replace(users, operator)


@dataclass(frozen=True)
class SlotHolder:
    """Who has a slot: the index of the host, the process, and the epoch of its router."""

    host: int
    process: Process
    epoch: int


class Site:
    """Three hosts as `deploy/three-hosts` has them; processes are started by `start`, hosts lost by `lose`."""

    def __init__(self, made: Hosts, *, environ: Mapping[str, str], expected: Sequence[str]) -> None:
        self.hosts = made
        #: Leases are judged from then on, in seconds since 1970: a test before may have stopped a router.
        self.judged_since = time.time()
        self._directory = Path(tempfile.mkdtemp(prefix="wo-"))  # short: the paths of sockets are
        self._store = self._directory / SESSION_STORE_FILE
        mint_token(self._store, None, 86_400.0)
        now = datetime.now(UTC)
        keys = self._directory / "keys"
        cluster_keys.make_cluster(keys, name="test", days=3650, home=keys / "none", force=False, now=now)
        self.nats = NatsSite([])
        self.machines = [
            self._machine(name, host, keys, environ, expected) for name, host in zip("abc", made, strict=True)
        ]

    def _machine(
        self, name: str, host: Host, keys: Path, environ: Mapping[str, str], expected: Sequence[str]
    ) -> Watchout:
        machine = Watchout(host=host, expected=expected)
        machine.port = GATEWAY_PORT
        found = variables(deployed(f"host-{name}.env", self.hosts, machine.home))
        found |= {
            "DATABASE_URL": f"sqlite:{self._store}",
            "WATCHOUT_PORT": str(GATEWAY_PORT),
            "ALERT_COOLDOWN_S": "0",
            **environ,
        }
        machine.environ.update(found)
        made = cluster_keys.make_host(
            keys, f"host-{name}", [host.address], days=397, force=False, now=datetime.now(UTC)
        )
        shutil.copytree(made.place, machine.home)
        machine.home.chmod(0o700)
        text = deployed("nats.conf", self.hosts, machine.home)
        used = sorted({each for each in re.findall(r"\$([A-Z_]+)\b", text) if each not in ("JS", "KV")})
        prefix = (*host.within, "env", *(f"{each}={found[each]}" for each in used))
        server = DeployedServer(name, host.address, text, prefix, port=4222, route_port=6222, monitor_port=8222)
        self.nats.servers.append(server)
        return machine

    def __getitem__(self, index: int) -> Watchout:
        return self.machines[index]

    def __iter__(self) -> Iterator[Watchout]:
        return iter(self.machines)

    def token(self, user: str | None = None) -> str:
        """A session token for the user of this name."""
        return mint_token(self._store, user, 86_400.0)

    def server(self, index: int) -> NatsServer:
        """The NATS server of a host."""
        return self.nats.servers[index]

    def start_nats(self) -> None:
        """Start the NATS servers that do not run, and wait until they are one cluster with a leader."""
        for server in self.nats.servers:
            if server._shell is None:
                server.start()
        for server in self.nats.servers:
            self.wait_for_nats(server)
        poll(self._has_leaders, COMES_S, "the buckets have no leader")

    def host_of_leader(self, at: int = 0) -> int | None:
        """The index of the host whose NATS server leads the bucket of the slots, as that of `at` knows; None: none."""
        names = [server.name for server in self.nats.servers]
        leader = self.leader_of_slots(at)
        return names.index(leader) if leader in names else None

    def leader_of_slots(self, at: int) -> str:
        """The NATS server that leads the bucket of the slots, as that of this host knows; empty: it knows of none."""
        return (self._leaders(at) or {}).get("KV_watchout-slots", "")

    def _has_leaders(self) -> bool:
        """Whether every bucket can be written: servers that were all away elect its leader anew, for 4 to 9 s."""
        leaders = self._leaders(0)
        return leaders is not None and all(leaders.values())

    def _leaders(self, at: int) -> dict[str, str] | None:
        """The server that leads each bucket, as another one knows, empty: none does; None: it does not answer."""
        try:
            _, said = self.nats.servers[at].monitor("/jsz?accounts=true&streams=true")
        except (OSError, http.client.HTTPException, ValueError):
            return None
        accounts = said.get("account_details", ())
        streams = [stream for account in accounts for stream in account.get("stream_detail", ())]
        return {stream["name"]: (stream.get("cluster") or {}).get("leader", "") for stream in streams}

    def wait_for_nats(self, server: NatsServer) -> None:
        """Wait until a server serves, with JetStream."""

        def serves() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                return server.monitor("/healthz")[0] == 200
            return False

        poll(serves, COMES_S, f"the NATS server {server.name} does not serve:\n{server.log[-1000:]}")

    def start(self, *names: str) -> None:
        """Start a program on each host that is named with it: ``"gateway:0"``; returns when all of them serve."""
        for name in names:
            program, _, where = name.partition(":")
            self.machines[int(where)].start(program)
        poll(self.ready, COMES_S, "the site is not ready")

    def ready(self) -> bool:
        """Whether every process that runs has said that it is ready and has joined its routers."""
        for machine in self.machines:
            for process in machine.processes:
                if process.name in SERVERS and process.running:
                    said = process.output
                    if f"{process.name} ready" not in said or JOINED.get(process.name, "") not in said:
                        return False
                elif process.name in ("gateway", "router") and process.wait(0) not in (-9, 0):
                    raise AssertionError(f"{process.name} ended:\n{process.output}")
        return all(m.get("/health")[0] == 200 for m in self.machines if m.named("gateway"))

    def whole(self) -> bool:
        """Whether all gateways are healthy: every slot has a router that has heard what the gateways report."""
        return all(
            status == 200 and said["status"] == "healthy"
            for status, said in (machine.get("/health") for machine in self.machines if machine.named("gateway"))
        )

    def mend(self) -> None:
        """Start what a test has left ended, and wait until the site is whole and knows no client of that test."""
        for index, machine in enumerate(self.machines):
            self.hosts.plug(self.hosts[index])
            if self.server(index)._shell is None:
                self.server(index).start()
            for process in machine.processes:
                process.resume()
            for name in ("router", "gateway"):
                if not machine.named(name):
                    machine.start(name)
        for server in self.nats.servers:
            self.wait_for_nats(server)
        self.wait_whole()
        poll(self.idle, COMES_S, "clients of the test before are known")
        self.judged_since = time.time()

    def idle(self) -> bool:
        """Whether every gateway is told that there are no cameras and no viewers, in any slot."""
        totals = ("totalProducers", "totalVideoConsumers", "totalAlertConsumers")
        return all(
            status == 200 and "missingSlots" not in said and not any(said[name] for name in totals)
            for status, said in (machine.get("/stats") for machine in self.machines)
        )

    def wait_whole(self) -> None:
        """Wait until the site is whole."""
        poll(self.ready, COMES_S, "the site is not ready")
        poll(self.whole, COMES_S, "the site is not whole")

    def told_slots(self, at: int = 0) -> dict[int, SlotHolder]:
        """Who has which slot at this moment, as `watchout-ctl stats` on this host is told.

        A slot on its way from one router to another is not there, nor is one whose router is slow; see `slots`.
        """
        machine = self.machines[at]
        tool = machine.run("watchout-ctl", [str(BIN / "watchout-ctl"), "stats", "--json"])
        if tool.wait(COMES_S):
            return {}
        by_pid = {
            process.pid: (index, process)
            for index, each in enumerate(self.machines)
            for process in each.processes
            if process.name == "router"
        }
        rows = [row["router"] for row in json.loads(tool.output)["routers"]]
        return {row["slot"]: SlotHolder(*by_pid[row["pid"]], row["epoch"]) for row in rows}

    def slots(self, at: int = 0) -> dict[int, SlotHolder]:
        """Wait until every slot has a router that answers; who has which."""
        found: dict[int, SlotHolder] = {}

        def all_there() -> bool:
            found.clear()
            found.update(self.told_slots(at))
            return len(found) == SLOTS

        poll(all_there, COMES_S, "a slot has no router that answers")
        return found

    def shared_slots(self) -> dict[int, SlotHolder]:
        """Wait until each host has a slot, except that of the leases' leader, and none is on its way; who has which."""
        found: dict[int, SlotHolder] = {}
        since = time.monotonic()

        def shared() -> bool:
            nonlocal since
            told = self.told_slots()
            if told != found:
                found.clear()
                found.update(told)
                since = time.monotonic()
            hosts = {each.host for each in found.values()}
            at_rest = time.monotonic() - since > AT_REST_S
            if not at_rest or len(found) != SLOTS:
                return False
            leaders = self._leaders(0) or {}
            is_one = leaders.get("KV_watchout-slots") == leaders.get("KV_watchout-records")
            return is_one and hosts == set(range(len(self.machines))) - {self.host_of_leader()}

        poll(shared, SHARED_S, "the hosts do not share the slots")
        return found

    def operator_files(self) -> dict[str, str]:
        """The certificate files of a NATS client of this site: those of the first host."""
        names = {"ca": "ca.crt", "cert": "host.crt", "key": "host.key"}
        return {what: str(self.machines[0].home / "mesh" / name) for what, name in names.items()}

    def lose(self, index: int) -> None:
        """Lose a host with all that runs there, without a word to anybody."""
        self.hosts.power_off(self.hosts[index])
        self.server(index).stop()

    def find(self, index: int, *names: str) -> None:
        """Start a lost host again: its NATS server, and these programs."""
        self.hosts.plug(self.hosts[index])
        self.server(index).start()
        self.wait_for_nats(self.server(index))
        self.start(*(f"{name}:{index}" for name in names))

    def report(self) -> str:
        """The last lines of everything, for the message of a failure."""
        texts = []
        for number, machine in enumerate(self.machines):
            texts += [f"── host {number} {each.name} {each.pid}\n{each.output[-6000:]}" for each in machine.processes]
        return "\n".join(texts)

    def close(self) -> None:
        """End everything; the processes first, then the NATS servers."""
        faults = []
        for machine in self.machines:
            try:
                machine.close()
            except AssertionError as exc:
                faults.append(str(exc))
        self.nats.remove()
        shutil.rmtree(self._directory, ignore_errors=True)
        assert not faults, "\n".join(faults)


@contextlib.contextmanager
def site_of_hosts(*, environ: Mapping[str, str] | None = None, expected: Sequence[str] = ()) -> Iterator[Site]:
    """Hosts with a NATS server each; no process of watchout runs yet."""
    with hosts(3) as made:
        site = Site(made, environ=environ or {}, expected=expected)
        try:
            site.start_nats()
            yield site
        finally:
            site.close()
