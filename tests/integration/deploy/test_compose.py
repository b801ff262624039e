"""`deploy/compose` fits together, and fits the images, the settings and the Caddyfile that it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema
import pytest

from tests.integration.deploy.test_dockerfile import IMAGE, rootfs, texts
from tests.integration.deploy.test_kubernetes import alive_command
from tests.kit.processes import BIN, REPOSITORY, Watchout
from tests.kit.services import BetterAuth, Postgres
from watchout.common.settings import Settings, load
from watchout.common.settings.misspelled import known_names

yaml = pytest.importorskip("yaml")

FOLDER: Final = REPOSITORY / "deploy/compose"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = ("router", "gateway", "mlbridge")
DETECTOR: Final = rootfs.parse((REPOSITORY / "deploy/container/Dockerfile.detector").read_text())[-1]
IMAGES: Final = {"watchout": IMAGE, "watchout-detector": DETECTOR}
VERSION: Final = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What secrets.sh makes, in a copy of the folder."""
    folder = tmp_path_factory.mktemp("compose")
    script = folder / "secrets.sh"
    script.write_bytes((FOLDER / "secrets.sh").read_bytes())
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    return folder / "secrets"


@pytest.mark.parametrize("file", ["compose.yaml", "compose.try.yaml"])
def test_the_files_are_valid_by_the_specification(file: str) -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load((FOLDER / file).read_text()))


def test_every_secret_is_made_and_may_be_read_by_the_users_of_the_containers(secrets: Path) -> None:
    made = {file.name: file.read_text() for file in secrets.iterdir()}
    assert {f"./secrets/{name}" for name in made} == {each["file"] for each in COMPOSE["secrets"].values()}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o444}
    assert len(set(made.values())) == len(made)
    subprocess.run(["sh", str(secrets.parent / "secrets.sh")], check=True, capture_output=True)
    assert {file.name: file.read_text() for file in secrets.iterdir()} == made, "what is there stays as it is"


def test_services_get_the_secrets_that_they_name_and_no_others() -> None:
    for name, service in SERVICES.items():
        granted = set(service.get("secrets", ()))
        assert granted <= COMPOSE["secrets"].keys()
        named = {value for key, value in service.get("environment", {}).items()
                 if key.endswith("_FILE") and key != "ALIVE_FILE"}  # fmt: skip
        if name == "postgres":
            named |= {f"/run/secrets/{each}" for each in ("app_password", "watchout_password")}
        assert named == {f"/run/secrets/{each}" for each in granted}, name


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_our_services_is_a_setting_and_accepted(name: str, secrets: Path) -> None:
    environ = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    assert environ.keys() <= known_names()
    load({key: value.replace("/run/secrets", str(secrets)) for key, value in environ.items()})


def test_every_line_of_the_example_of_settings_is_one() -> None:
    lines = (FOLDER / "watchout.env.example").read_text().splitlines()
    given = dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    assert given
    assert given.keys() <= known_names()
    load({**given, "ALERT_WEBHOOK_SECRETS": "whsec_" + "A" * 32})
    (env_file,) = SERVICES["gateway"]["env_file"]
    assert env_file == {"path": "watchout.env", "required": False}
    assert {"watchout.env", ".env", "secrets/"} <= set((FOLDER / ".gitignore").read_text().splitlines())


def test_our_services_are_the_images_that_the_dockerfiles_make() -> None:
    programs = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    for name in (*OURS, "detector"):
        service = SERVICES[name]
        image, _, version = service["image"].partition(":")
        assert version == VERSION
        stage = IMAGES[image]
        context = FOLDER / service["build"]["context"]
        assert rootfs.parse((context / service["build"]["dockerfile"]).read_text())[-1] == stage
        if name in OURS:
            assert service["command"] == [f"watchout-{name}"]
            assert service["command"][0] in programs
            (home,) = [text.partition("=")[2] for text in texts(stage, "ENV") if text.startswith("WATCHOUT_HOME=")]
            assert service["volumes"] == [f"home:{home}"], "one home for all three"
        else:
            copied = {shlex.split(text)[-1] for text in texts(stage, "COPY")}
            assert service["command"] == json.loads(texts(stage, "CMD")[0])
            assert service["command"][1] in copied
            assert service["command"][-1] == texts(stage, "EXPOSE")[0]
        assert "user" not in service, "the image says it"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_gateways_check_is_the_images_and_the_others_have_one_where_they_have_a_port() -> None:
    assert "healthcheck" not in SERVICES["gateway"]
    for name in ("detector", "postgres", "proxy"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    files = {SERVICES[name]["environment"]["ALIVE_FILE"] for name in ("router", "mlbridge")}
    assert len(files) == 2, "one for each, in the home that they share"
    assert {str(Path(file).parent) for file in files} == {"/var/lib/watchout"}
    for name in ("router", "mlbridge"):
        kind, command = SERVICES[name]["healthcheck"]["test"]
        assert (kind, command.replace("$$", "$")) == ("CMD-SHELL", alive_command(name))
    compile(SERVICES["detector"]["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_every_service_is_bounded_and_comes_back() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
    assert SERVICES["gateway"]["ulimits"]["nofile"] >= Settings().max_connections + 48


def test_the_time_to_end_is_over_what_a_drain_takes() -> None:
    settings = Settings()
    takes_s = settings.drain_s + getattr(settings, "drain_spread_s", 0)
    assert all(seconds(SERVICES[name]["stop_grace_period"]) >= takes_s + 5 for name in OURS)


def test_addresses_and_ports_are_those_of_the_services() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    proxy, gateway, bridge = SERVICES["proxy"], SERVICES["gateway"], SERVICES["mlbridge"]
    assert proxy["environment"]["GATEWAY"] == f"gateway:{Settings().port}"
    assert texts(IMAGE, "EXPOSE") == [str(Settings().port)]
    assert gateway["environment"]["TRUSTED_PROXIES"] == proxy["networks"]["front"]["ipv4_address"]
    assert {"front"} == proxy["networks"].keys() & set(gateway["networks"])
    service = urlsplit(bridge["environment"]["ML_SERVICE_URL"])
    assert (service.hostname, service.port) == ("detector", int(SERVICES["detector"]["command"][-1]))
    assert set(bridge["networks"]) & set(SERVICES["detector"]["networks"])
    assert set(gateway["networks"]) & set(SERVICES["postgres"]["networks"])
    used = {network for each in SERVICES.values() for network in each["networks"]}
    assert used == COMPOSE["networks"].keys()
    caddyfile = (REPOSITORY / "deploy/caddy/Caddyfile").read_text()
    assert set(re.findall(r"\{\$(\w+):", caddyfile)) == proxy["environment"].keys()


def test_every_file_that_is_mounted_is_there_and_every_volume_declared() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file(), source
                assert volume.endswith(":ro")
                if source.endswith(".sh"):
                    assert os.access(FOLDER / source, os.X_OK)
            else:
                assert source in COMPOSE["volumes"]


def test_without_an_app_it_uses_a_store_of_its_own(secrets: Path) -> None:
    tried = yaml.safe_load((FOLDER / "compose.try.yaml").read_text())["services"]["gateway"]["environment"]
    environ = {**SERVICES["gateway"]["environment"], **tried}
    assert (
        load({key: value.replace("/run/secrets", str(secrets)) for key, value in environ.items()}).database_url is None
    )


@pytest.mark.e2e
@pytest.mark.real
def test_the_scripts_of_the_database_let_watchout_read_sessions_and_no_more(
    own_postgres: Postgres,
    start_better_auth: Callable[..., BetterAuth],
    watchout: Callable[..., Watchout],
    secrets: Path,
    tmp_path: Path,
) -> None:
    """As in the container: roles when the volume is new, then the app's migration, then the rights."""
    postgres = own_postgres
    database, port = urlsplit(postgres.create_database()).path[1:], postgres.port

    def script(name: str) -> subprocess.CompletedProcess[str]:
        psql = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": postgres.password}
        environ = {"PATH": f"{postgres.programs}:{os.environ['PATH']}", "SECRETS": str(secrets), **psql}
        environ |= {"POSTGRES_USER": "postgres", "POSTGRES_DB": database}
        return subprocess.run(
            ["sh", str(FOLDER / "postgres" / name)], env=environ, capture_output=True, text=True, check=False
        )

    assert script("10-roles.sh").returncode == 0
    early = script("grants.sh")
    assert early.returncode != 0
    assert "run the migration of your app first" in early.stderr
    word = (secrets / "app_password").read_text().strip()
    app = start_better_auth(
        f"postgres://app:{word}@127.0.0.1:{port}/{database}", BA_PLUGINS="bearer,admin,organization"
    )
    signed_in = app.sign_up()
    for _ in range(2):  # after each migration
        done = script("grants.sh")
        assert done.returncode == 0, done.stderr
    url = (secrets / "database_url").read_text().replace("@postgres:5432/app", f"@127.0.0.1:{port}/{database}")
    (tmp_path / "url").write_text(url)
    started = watchout(environ={"DATABASE_URL_FILE": str(tmp_path / "url"), "STREAM_ACCESS": "organization"})
    assert started.get("/streams", signed_in.token)[0] == 200
    assert started.get("/streams", "nobody-s-token-of-this-app-0123456789")[0] == 401
    doctor = started.run("watchout-ctl", [str(BIN / "watchout-ctl"), "doctor", "--json"])
    doctor.wait(60)
    assert "grant" not in doctor.output.lower(), doctor.output
    with pytest.raises(RuntimeError, match="permission denied"):
        postgres.run_sql(url.strip(), 'select password from "account"')
    with pytest.raises(RuntimeError, match="permission denied"):
        postgres.run_sql(url.strip(), 'select email from "user"')
