"""`deploy/kubernetes` is valid, fits together, and fits watchout: image, settings, keys, probes, drain."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import typing
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.integration.deploy.test_dockerfile import IMAGE, texts
from tests.kit.nats_servers import nats_program
from tests.kit.ports import free_port
from tests.kit.processes import BIN, REPOSITORY, Process, Watchout, clean_environ, poll
from watchout.common.bus.zeromq.mesh_certificates import MeshFiles, refusal
from watchout.common.bus.zeromq.mesh_certificates import load as load_certificates
from watchout.common.process.alive_file import EVERY_S
from watchout.common.settings import Settings, load
from watchout.common.settings.mesh_listen import mesh_listen
from watchout.common.settings.misspelled import known_names
from watchout.gateway.context import HEALTH_TIMEOUT_S

yaml = pytest.importorskip("yaml")
pytest.importorskip("lightkube")

FOLDER: Final = REPOSITORY / "deploy/kubernetes"
GUIDE: Final = (REPOSITORY / "docs/deploy.md").read_text()
KUSTOMIZATION: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: Final[list[dict[str, Any]]] = [
    each for file in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((FOLDER / file).read_text())
]
OURS: Final = ("gateway", "router", "mlbridge")
COMES_S: Final = 60.0


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in OBJECTS if each["kind"] == kind}


WORKLOADS: Final = of_kind("StatefulSet")


def pod(name: str) -> dict[str, Any]:
    return dict(WORKLOADS[name]["spec"]["template"]["spec"])


def main_container(name: str) -> dict[str, Any]:
    (container,) = pod(name)["containers"]
    return dict(container)


def environ_of(name: str) -> dict[str, str]:
    """The environment of a process, of pod 0."""
    lines = (FOLDER / "settings.env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    environ |= {each["name"]: each.get("value", f"{name}-0") for each in main_container(name)["env"]}
    return {key: value.replace("$(POD_NAME)", environ["POD_NAME"]) for key, value in environ.items()}


# ── the objects ──────────────────────────────────────────────────────────────────────────────────────────────────────


def faults(each: dict[str, Any]) -> list[str]:
    """What is wrong with an object by the API's models: a missing field or one of another type, and unknown fields."""
    try:
        known = msgspec.convert(each, model_of(each))
    except msgspec.ValidationError as error:
        return [str(error)]
    return list(unknown(each, msgspec.to_builtins(known), each["metadata"]["name"]))


def unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """The fields of an object that are left out where only known ones are kept."""
    if isinstance(given, dict):
        for name, value in given.items():
            if name in known:
                yield from unknown(value, known[name], f"{path}.{name}")
            else:
                yield f"{path}.{name} is unknown"
    elif isinstance(given, list):
        for number, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from unknown(one, other, f"{path}[{number}]")


def model_of(each: dict[str, Any]) -> type:
    group, _, version = each["apiVersion"].rpartition("/")
    module = f"{(group or 'core').partition('.')[0]}_{version}"
    return typing.cast("type", getattr(importlib.import_module(f"lightkube.models.{module}"), each["kind"]))


def test_every_object_is_valid_by_the_api() -> None:
    assert [fault for each in OBJECTS for fault in faults(each)] == []


def test_what_is_wrong_by_the_api_is_found() -> None:
    """The check itself."""

    def changed(change: Callable[[dict[str, Any]], None]) -> list[str]:
        wrong = json.loads(json.dumps(WORKLOADS["gateway"]))
        change(wrong["spec"]["template"]["spec"]["containers"][0])
        return faults(wrong)

    assert changed(lambda _: None) == []
    assert "readinesProbe" in changed(lambda one: one.update(readinesProbe=one.pop("readinessProbe")))[0]
    assert "periodSeconds" in changed(lambda one: one["livenessProbe"].update(periodSeconds="10"))[0]
    assert "containerPort" in changed(lambda one: one["ports"][0].pop("containerPort"))[0]


def test_every_file_is_part_of_it() -> None:
    named = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    named |= {file for each in KUSTOMIZATION["configMapGenerator"] for file in each.get("files", each.get("envs"))}
    assert named == {file.name for file in FOLDER.iterdir()}
    assert KUSTOMIZATION["namespace"] == of_kind("Namespace").popitem()[0]
    assert KUSTOMIZATION["images"][0]["newTag"] in (REPOSITORY / "pyproject.toml").read_text()


def test_labels_names_and_ports_lead_to_something() -> None:
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in WORKLOADS.items()}

    def selected(selector: Mapping[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for name, each in WORKLOADS.items():
        assert selected(each["spec"]["selector"]["matchLabels"]) == {name}
        assert each["spec"]["serviceName"] in of_kind("Service")
        assert selected(of_kind("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"]) == {name}
    assert selected(of_kind("Service")["hosts"]["spec"]["selector"]) == set(OURS)
    assert selected(of_kind("Service")["gateway"]["spec"]["selector"]) == {"gateway"}
    assert selected(of_kind("Service")["nats"]["spec"]["selector"]) == {"nats"}
    ports = {each["name"]: each["containerPort"] for each in main_container("gateway")["ports"]}
    assert ports["http"] == Settings().port
    assert texts(IMAGE, "EXPOSE") == [str(ports["http"])]
    (rule,) = of_kind("Ingress")["watchout"]["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    (port,) = of_kind("Service")[backend["name"]]["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == (backend["port"]["name"], "http")


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_container_may_do_more_than_it_needs(name: str) -> None:
    spec = pod(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    if name in OURS:
        assert texts(IMAGE, "USER") == [str(spec["securityContext"]["runAsUser"])]
    mounted = {each["name"] for each in spec["volumes"]}
    mounted |= {each["metadata"]["name"] for each in WORKLOADS[name]["spec"].get("volumeClaimTemplates", ())}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert container["resources"]["limits"].keys() == {"memory"}
        assert {each["name"] for each in container["volumeMounts"]} <= mounted


# ── settings, secrets, keys ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guide's commands make, in a folder as the secret `keys` is mounted."""
    directory = tmp_path_factory.mktemp("keys")
    commands = re.findall(r"^ *(watchout-ctl keys (?:cluster|host).*hosts.watchout.svc.*|watchout-ctl keys cluster)$",
                          _chapter(), re.MULTILINE)  # fmt: skip
    assert len(commands) == 2, commands
    environ = {**clean_environ(), "WATCHOUT_HOME": str(directory / "home"), "PATH": f"{BIN}:/usr/bin:/bin"}
    for command in commands:
        subprocess.run(shlex.split(command), cwd=directory, env=environ, check=True, capture_output=True)
    (host,) = (directory / "cluster-keys/hosts").iterdir()
    mounted = directory / "mounted"
    mounted.mkdir()
    for path in host.rglob("*"):
        if path.is_file():
            (mounted / path.name).write_bytes(path.read_bytes())
    return mounted


def _chapter() -> str:
    return GUIDE.partition("## Kubernetes\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_accepted(name: str, keys: Path, tmp_path: Path) -> None:
    environ = environ_of(name)
    del environ["POD_NAME"]
    assert environ.keys() <= known_names()
    assert {
        each["name"]: each.get("value") for each in pod(name)["initContainers"][0]["env"]
    }.items() <= environ.items()
    values = {
        "watchout_bus": "tls://watchout:x@nats-0.nats.watchout.svc:4222", "database_url": "postgres://a:b@c/d",
        "service_token": "x" * 32, "stats_token": "y" * 32, "alert_webhook_secrets": "whsec_" + "A" * 32,
    }  # fmt: skip
    (mounted,) = [each["secret"] for each in pod(name)["volumes"] if each["name"] == "secrets"]
    assert all(item["key"] == item["path"] for item in mounted["items"])
    for item in mounted["items"]:
        (tmp_path / item["path"]).write_text(values[item["key"]] + "\n")
    named = {Path(value).name for key, value in environ.items() if value.startswith("/secrets/")}
    assert named == {item["path"] for item in mounted["items"]}, "what it is told to read, and no more"
    changed = {k: v.replace("/secrets", str(tmp_path)).replace("/keys", str(keys)) for k, v in environ.items()}
    settings = load(changed)
    assert settings.mesh_listen is not None
    assert settings.mesh_listen.advertise == f"{name}-0.hosts.watchout.svc"


def test_the_guide_makes_every_secret_that_is_mounted() -> None:
    given = set(re.findall(r"--from-(?:literal|file)=([\w.]+)=", _chapter()))
    wanted: set[str] = set()
    for name in WORKLOADS:
        for volume in pod(name)["volumes"]:
            wanted |= {item["key"] for item in volume.get("secret", {}).get("items", ())}
        for each in main_container(name)["env"]:
            wanted |= (
                {each["valueFrom"]["secretKeyRef"]["key"]} if "secretKeyRef" in each.get("valueFrom", {}) else set()
            )
    assert given == wanted | {"share.key", "stream.key"}


def test_the_keys_of_the_guide_are_for_every_pod_and_every_nats_server(keys: Path, tmp_path: Path) -> None:
    own = load_certificates(MeshFiles(keys / "host.crt", keys / "host.key", keys / "ca.crt"))
    names = [f"{kind}-{number}.hosts.watchout.svc" for kind in OURS for number in (0, 9)]
    servers = re.findall(r"nats-\d\.[\w.]+", (FOLDER / "nats.conf").read_text())
    assert len(servers) == WORKLOADS["nats"]["spec"]["replicas"]
    assert all(refusal(own, own, name) is None for name in (*names, *servers))
    assert refusal(own, own, "gateway-0.hosts.other.svc") is not None
    assert set(re.findall(r"nats-\d\.[\w.]+(?=:4222)", _chapter())) == set(servers), "the guide's WATCHOUT_BUS"


def test_a_home_is_prepared_as_watchout_wants_it(keys: Path, tmp_path: Path) -> None:
    for name in OURS:
        (container,) = pod(name)["initContainers"]
        script = container["command"][-1].replace("/keys/", f"{keys}/")
        home = tmp_path / name / "home"
        for _ in range(2):  # a pod may be started again with its volume
            subprocess.run(["sh", "-c", script], env={"WATCHOUT_HOME": str(home), "PATH": "/usr/bin:/bin"}, check=True)
        assert home.stat().st_mode & 0o777 == 0o700
        assert {each.name: each.stat().st_mode & 0o777 for each in home.iterdir()} == {
            "share.key": 0o600, "stream.key": 0o600,
        }  # fmt: skip


# ── probes, time ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_probes_ask_what_the_gateway_answers_and_a_lost_router_or_service_restarts_nothing(
    watchout: Callable[..., Watchout],
) -> None:
    container = main_container("gateway")
    live, ready = (container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness"))
    assert container["startupProbe"]["httpGet"]["path"] == live
    started = watchout(start=False, environ={"ML_SERVICE_URL": f"http://127.0.0.1:{free_port()}"})
    started.start("gateway")
    poll(lambda: started.get(live)[0] == 200, COMES_S, "the gateway answers")
    assert started.get(ready)[0] == 503, "nobody is sent to a gateway without a router"
    router = started.start("router")
    started.start("mlbridge")
    poll(lambda: started.get(ready)[0] == 200, COMES_S, "the gateway is ready, though no ML service is there")
    assert router.terminate() == 0
    poll(lambda: started.get(ready)[0] == 503, COMES_S, "the gateway is not ready without its router")
    assert started.get(live)[0] == 200


def test_the_probes_wait_longer_than_an_answer_takes() -> None:
    container = main_container("gateway")
    live, ready = (container[f"{kind}Probe"] for kind in ("liveness", "readiness"))
    assert live["httpGet"]["path"] != ready["httpGet"]["path"], "what is asked for restarts asks nobody else"
    assert ready["timeoutSeconds"] > 2 * HEALTH_TIMEOUT_S, "it asks the router, then the store"
    for name in ("router", "mlbridge"):
        probe = main_container(name)["livenessProbe"]
        assert probe["initialDelaySeconds"] > 3 * EVERY_S, "a file of before is renewed by then"
        assert main_container(name)["command"], "it has no port to ask"


def alive_command(name: str) -> str:
    """What is asked of a router or bridge: a line for sh."""
    *shell, line = main_container(name)["livenessProbe"]["exec"]["command"]
    assert shell == ["sh", "-c"]
    return str(line)


def test_a_router_that_stands_still_is_not_alive_and_one_that_works_is(
    watchout: Callable[..., Watchout], tmp_path: Path
) -> None:
    """With a tenth of the time."""
    file, line = tmp_path / "alive", alive_command("router")
    assert line == alive_command("mlbridge")
    limit_s = int(line.rpartition(" ")[2])
    assert limit_s >= 4 * EVERY_S, "a busy machine ends nobody"
    shorter = line.replace(f"-lt {limit_s}", f"-lt {int(EVERY_S) + 4}")

    def alive() -> bool:
        asked = subprocess.run(["sh", "-c", shorter], env={"ALIVE_FILE": str(file), "PATH": "/usr/bin:/bin"},
                               capture_output=True, check=False)  # fmt: skip
        return asked.returncode == 0

    assert not alive(), "no file"
    router = watchout(start=False).start("router", {"ALIVE_FILE": str(file)})
    poll(alive, COMES_S, "the router is alive")
    router.pause()
    poll(lambda: not alive(), COMES_S, "a router that stands still is not alive")
    router.resume()
    poll(alive, COMES_S, "it works again")


@pytest.mark.parametrize("name", OURS)
def test_the_time_to_end_is_over_what_a_drain_takes(name: str) -> None:
    settings, container = Settings(), main_container(name)
    command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    assert command[0] == "sleep"
    takes_s = float(command[1]) + settings.drain_s + getattr(settings, "drain_spread_s", 0)
    assert pod(name)["terminationGracePeriodSeconds"] >= takes_s + 5


def test_time_outs_of_ingress_controllers_outlive_a_silence() -> None:
    found = {
        name: int(match[1]) * {"": 1, "s": 1, "h": 3600}[match[2]]
        for name, value in of_kind("Ingress")["watchout"]["metadata"]["annotations"].items()
        if "timeout" in name and (match := re.fullmatch(r"(\d+)(s|h|)", value))
    }
    assert len(found) == 7
    assert all(seconds > Settings().idle_timeout_s / 4 + 10 for seconds in found.values()), found


# ── who reaches whom ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_port_that_somebody_listens_on_is_reached_by_those_who_need_it_and_no_one_else() -> None:
    policies = of_kind("NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def ports(policy: str, way: str) -> set[int]:
        rules = policies[policy]["spec"].get(way, ())
        return {
            p
            for rule in rules
            for each in rule["ports"]
            for p in range(each["port"], each.get("endPort", each["port"]) + 1)
        }

    listen = mesh_listen(environ_of("gateway")["MESH_LISTEN"])
    mesh = set(range(listen.first, listen.last + 1))
    assert ports("hosts", "ingress") == mesh
    assert ports("hosts", "egress") == mesh | {4222, 53}
    assert ports("nats", "ingress") == {4222, 6222}
    assert ports("gateway", "ingress") == {Settings().port}
    assert ports("mlbridge", "egress") == {int(environ_of("mlbridge")["ML_SERVICE_URL"].rpartition(":")[2])}
    assert all("from" in rule for each in policies.values() for rule in each["spec"].get("ingress", ())), (
        "not everybody"
    )


# ── NATS ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nats_permits_what_it_does_for_three_hosts() -> None:
    def rights(path: Path) -> str:
        return path.read_text().partition("authorization {")[2]

    assert rights(FOLDER / "nats.conf") == rights(REPOSITORY / "deploy/three-hosts/nats.conf")
    words = dict(
        re.findall(r"^(ping_\w+|max_payload|lame_duck_\w+): (\S+)$", (FOLDER / "nats.conf").read_text(), re.MULTILINE)
    )
    other = (REPOSITORY / "deploy/three-hosts/nats.conf").read_text()
    assert len(words) == 5
    assert all(f"{name}: {value}\n" in other for name, value in words.items())
    lame_s = sum(int(words[f"lame_duck_{name}"].strip('"s')) for name in ("grace_period", "duration"))
    assert pod("nats")["terminationGracePeriodSeconds"] > lame_s


@pytest.mark.e2e
@pytest.mark.real
def test_a_nats_server_takes_the_file_and_answers_its_probes(keys: Path, tmp_path: Path) -> None:
    """One of the three: alone it serves, has JetStream, and no leader."""
    port, text = free_port(), (FOLDER / "nats.conf").read_text()
    for before, after in (
        ("port: 4222", f'listen: "127.0.0.1:{free_port()}"'), ("http_port: 8222", f'http: "127.0.0.1:{port}"'),
        ("port: 6222", f'listen: "127.0.0.1:{free_port()}"'), ('"/data', f'"{tmp_path}/data'), ('"/keys/', f'"{keys}/'),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    text = re.sub(r"nats-\d\.nats\.watchout\.svc:\d+", f"127.0.0.1:{free_port()}", text)
    (tmp_path / "data").mkdir()
    (tmp_path / "nats.conf").write_text(text)
    environ = {**clean_environ(), "POD_NAME": "nats-0", "BUS_PASSWORD": "x" * 24}
    server = Process("nats", [nats_program(), "-c", str(tmp_path / "nats.conf")], environ, tmp_path / "log", tmp_path)
    try:
        container = main_container("nats")

        def answers(probe: str) -> bool:
            url = f"http://127.0.0.1:{port}{container[probe]['httpGet']['path']}"
            try:
                return bool(urllib.request.urlopen(url, timeout=5).status == 200)
            except (OSError, urllib.error.URLError):
                return False

        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            poll(lambda probe=probe: answers(probe) or not server.running, COMES_S, f"{probe} is answered")
            assert server.running, server.output
    finally:
        server.kill()
