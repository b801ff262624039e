"""``watchout-ctl doctor`` where nothing runs: its report, exit codes, and no secret in it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.kit.ctl_command import Ctl
from tests.kit.doctor_report import Doctor, line, lines, served
from watchout.common.settings import table
from watchout.identity.embedded_store import mint_token

#: What the doctor may take at most on a machine that is busy: it waits 3 s for each answer, for several at a time.
BOUND_S = 30


def everything_below(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def test_where_nothing_is_yet_nothing_is_wrong_and_nothing_is_made(
    doctor: Doctor, home: Path, tmp_path: Path, unused_port: int
) -> None:
    ended = await doctor("--home", home / "new", WATCHOUT_HOST="127.0.0.1")
    assert ended.code == 0
    assert line(ended, "home", "ok", "does not exist yet, `watchout-gateway` creates it")
    assert line(ended, "store", "ok", "does not exist yet, `watchout-gateway` creates it")
    assert line(ended, "ports", "ok", f"Port {unused_port} is free; no gateway runs on this home.")
    assert line(ended, "ports", "ok", "No router runs")
    assert lines(ended, "(?:home|store|clock|keys|tls|ml)", "(?:wrong|warning)") == []
    assert list(home.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


async def test_json_is_for_machines(doctor: Doctor, home: Path) -> None:
    ended = await doctor("--json")
    assert (ended.code, ended.err) == (0, "")
    body = json.loads(ended.out)
    assert body["status"] in ("ok", "warning")
    assert {"settings", "home", "store", "clock", "keys", "tls", "ports", "ml"} == {
        f["check"] for f in body["findings"]
    }
    assert all({"check", "level", "says"} <= set(finding) for finding in body["findings"])
    assert all(finding["level"] in ("ok", "warning") for finding in body["findings"])
    assert next(f["facts"]["path"] for f in body["findings"] if f["check"] == "home") == str(home)


@pytest.mark.parametrize("as_json", [False, True])
async def test_every_wrong_setting_is_named_and_no_secret_shown(doctor: Doctor, as_json: bool) -> None:
    ended = await doctor(*["--json"] * as_json,
        WATCHOUT_PORT="many", STATS_TOKEN="canary", JWT_JWKS_URL="ftp://user:canary-jwks@host/keys",
    )  # fmt: skip
    assert ended.code == 2
    assert ended.err.count("watchout-ctl: wrong setting: ") == 3
    assert "WATCHOUT_PORT is 'many', expected a whole number from 1 to 65535" in ended.err
    assert "canary" not in ended.err + ended.out
    if as_json:
        assert [f["level"] for f in json.loads(ended.out)["findings"]] == ["wrong"] * 3
    else:
        assert ended.out == ""


async def test_an_env_file_that_cannot_be_read_ends_with_2(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A='")
    ended = await doctor()
    assert (ended.code, ended.out) == (2, "")
    assert ".env in this directory cannot be read" in ended.err


async def test_the_env_file_is_looked_at(ctl: Ctl, tmp_path: Path, unused_port: int) -> None:
    (tmp_path / ".env").write_text(f"WATCHOUT_PORT={unused_port}\nSTATS_TOKEN=canary-stats-token\nALOWED_ORIGINS=x\n")
    (tmp_path / ".env").chmod(0o644)
    ended = await ctl("doctor")
    assert ended.code == 0
    assert line(ended, "settings", "ok", "STATS_TOKEN, WATCHOUT_PORT from .env")
    assert line(ended, "settings", "warning", ".env has mode 0644")
    assert line(ended, "settings", "warning", "Is ALLOWED_ORIGINS meant?")
    assert "canary" not in ended.out


async def test_an_embedded_store_that_is_there_is_looked_at_and_left_as_it_is(doctor: Doctor, home: Path) -> None:
    mint_token(home / "sessions.db")
    (home / "sessions.db").chmod(0o644)
    before = everything_below(home)
    ended = await doctor()
    assert ended.code == 1
    assert line(ended, "store", "ok", f"at {home}/sessions.db answers; a look-up takes")
    assert line(ended, "schema", "ok", "Sessions are in session, users in user: camelCase")
    assert line(ended, "home", "wrong", f"chmod 600 {home}/sessions.db")
    assert everything_below(home) == before


async def test_an_embedded_store_without_tables_is_wrong_and_not_mended(
    doctor: Doctor, home: Path, unused_port: int
) -> None:
    with contextlib.closing(sqlite3.connect(home / "sessions.db")) as db:
        db.execute("create table other (a)")
    (home / "sessions.db").chmod(0o600)
    before = everything_below(home)
    ended = await doctor()
    assert ended.code == 1
    assert line(ended, "store", "wrong", 'there is no table "session" here')
    assert everything_below(home) == before


async def test_a_file_that_is_no_database_is_wrong(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "app.db").write_bytes(b"not a database" * 1000)
    for name, words in (("app.db", "file is not a database"), ("none.db", "No such file")):
        ended = await doctor(DATABASE_URL=f"sqlite:{tmp_path / name}")
        assert ended.code == 1
        assert line(ended, "store", "wrong", words)
    assert not (tmp_path / "none.db").exists()


async def test_a_stranger_on_the_port_is_wrong(doctor: Doctor, silent: int) -> None:
    ended = await doctor(WATCHOUT_PORT=str(silent))
    assert ended.code == 1
    assert line(ended, "ports", "wrong", f"Another program listens on port {silent}")
    async with served(lambda _: web.json_response({"status": "ok"})) as url:
        ended = await doctor(WATCHOUT_PORT=url.rpartition(":")[2])
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "Another program listens")


async def test_a_host_that_is_not_ours_is_wrong(doctor: Doctor) -> None:
    ended = await doctor(WATCHOUT_HOST="192.0.2.1")
    assert ended.code == 1
    assert line(ended, "ports", "wrong", "Set WATCHOUT_HOST to an address of this machine")


async def test_an_ml_service_that_is_away_is_a_warning_without_its_password(doctor: Doctor, unused_port: int) -> None:
    ended = await doctor(ML_SERVICE_URL=f"http://u:canary-ml@127.0.0.1:{unused_port}/canary")
    assert ended.code == 0
    assert line(ended, "ml", "warning", f"at 127.0.0.1:{unused_port} cannot be reached")
    assert "canary" not in ended.out
    async with served(lambda _: web.Response()) as url:
        ended = await doctor(ML_SERVICE_URL=url)
    assert line(ended, "ml", "ok", "accepts connections")


async def test_whoever_does_not_answer_is_waited_for_a_bounded_time(doctor: Doctor, silent: int) -> None:
    url = f"http://127.0.0.1:{silent}/"
    began = time.monotonic()
    ended = await doctor(DATABASE_URL=f"postgres://u:canary-pw@127.0.0.1:{silent}/app", WATCHOUT_PORT=str(silent),
        JWT_JWKS_URL=url, JWT_ISSUER="https://app", INTROSPECTION_URL=url, ML_SERVICE_URL=url, STORE_TIMEOUT_S="60",
    )  # fmt: skip
    assert time.monotonic() - began < BOUND_S
    assert ended.code == 1
    assert line(ended, "store", "wrong", "gave no answer within 3 s")
    assert "no whole answer within 3 s" in line(ended, "keys", "wrong", "JWT_JWKS_URL")
    assert "no whole answer within 3 s" in line(ended, "keys", "wrong", "INTROSPECTION_URL at")
    assert "a bug in watchout-ctl" not in ended.out


async def test_no_secret_of_any_setting_is_ever_shown(doctor: Doctor, unused_port: int) -> None:
    def answer(request: web.Request) -> web.Response:
        said = f"{request.headers} {request.path_qs}"
        return web.Response(status=500, text=said, reason="canary-echo", headers={"X-Echo": said})

    async with served(answer) as url:
        at = url.removeprefix("http://")
        environ = {
            "WATCHOUT_PORT": at.rpartition(":")[2],
            "WATCHOUT_TOKEN": "canary-token",
            "DATABASE_URL": f"postgres://canary-user:canary-db@127.0.0.1:{unused_port}/canary-name?password=canary-more",
            "BETTER_AUTH_SECRET": "canary-better",
            "JWT_JWKS_URL": f"http://who:canary-jwks@{at}/canary-path?key=canary-key",
            "JWT_ISSUER": "https://app",
            "INTROSPECTION_URL": f"http://{at}/canary-path?key=canary-key",
            "INTROSPECTION_AUTH_HEADER_VALUE": "Bearer canary-header",
            "ML_SERVICE_URL": f"http://who:canary-ml@{at}/canary-path",
            "ML_FALLBACK_URL": f"http://who:canary-fallback@{at}/canary-path",
            "ML_HEADERS": '{"Authorization":"Bearer canary-ml-header"}',
            "ALERT_WEBHOOK_URL": f"https://{at}/canary-path?key=canary-webhook",
            "ALERT_WEBHOOK_SECRETS": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
            "STATS_TOKEN": "canary-stats-token",
            "SERVICE_TOKEN": "canary-service-token",
            "SERVICE_WEBHOOK_SECRETS": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
            "WATCHOUT_BUS": f"nats://canary-user:canary-bus@127.0.0.1:{unused_port}",
        }
        assert {spec.env for _, spec, _ in table() if spec.secret} - {"JWT_SECRET"} <= environ.keys()

        async def say(arguments: list[str], more: dict[str, str]) -> None:
            ended = await doctor(*arguments, **environ | more)
            assert ended.code == 1
            assert "canary" not in ended.out + ended.err
            assert "Y2Fu" not in ended.out + ended.err
            assert "Traceback" not in ended.out + ended.err

        others = ({}, {"LOG_LEVEL": "debug"}, {"JWT_JWKS_URL": "", "JWT_SECRET": "canary-jwt-secret"})
        # At once: each waits for services that are not there.
        await asyncio.gather(*(say(arguments, more) for arguments in ([], ["--json"]) for more in others))
