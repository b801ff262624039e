"""``watchout-ctl keys``, and what the doctor says of them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.ctl_command import Ctl
from watchout.common.bus.zeromq import curve


async def test_the_routers_key_is_made_once_and_shown_again(home: Path, ctl: Ctl) -> None:
    first, second = await ctl("keys", "server"), await ctl("keys", "server")
    assert (first.code, first.err) == (0, "")
    assert first.out == second.out
    assert curve.KEY.match(first.out.strip())
    path = curve.server_file(home)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert curve.load_pair(path).public == first.out.strip()


async def test_the_way_of_a_key_from_the_bridge_to_the_list_and_off_it(home: Path, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "bridge.key"
    made = await ctl("keys", "client", file)
    key = made.out.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert curve.load_pair(file).public == key
    assert curve.load_pair(file).secret not in made.out + made.err
    assert (await ctl("keys", "allow", "ml-team", key)).code == 0
    assert (await ctl("keys", "list")).out == f"ml-team\t{key}\n"
    assert json.loads((await ctl("keys", "list", "--json")).out) == {"server": None, "clients": {"ml-team": key}}
    assert (await ctl("keys", "remove", "ml-team")).code == 0
    ended = await ctl("keys", "list")
    assert ended.out == ""
    assert "no key is allowed" in ended.err


async def test_on_one_machine_a_pair_is_made_and_let_in_at_once(home: Path, ctl: Ctl, tmp_path: Path) -> None:
    made = await ctl("keys", "client", tmp_path / "a.key", "--allow", "a")
    assert curve.allowed(home) == {"a": made.out.strip()}
    refused = await ctl("keys", "client", tmp_path / "b.key", "--allow", "a")
    assert refused.code == 1
    assert not (tmp_path / "b.key").exists()


async def test_what_is_wrong_is_a_sentence(home: Path, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "bridge.key"
    key = (await ctl("keys", "client", file)).out.strip()
    for arguments, said in (
        (("client", file), "is there already"),
        (("allow", "a b", key), "is no name for a key"),
        (("allow", "ml", "12"), "64 hexadecimal digits"),
        (("remove", "ml"), "no key is called 'ml'"),
    ):
        ended = await ctl("keys", *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert said in ended.err
        assert ended.err.startswith("watchout-ctl: ")


async def bus_findings(ctl: Ctl, **environ: str) -> list[tuple[str, str]]:
    found = json.loads((await ctl("doctor", "--json", **environ)).out)
    rows = found["findings"] if isinstance(found, dict) else found
    return [(row["level"], row["says"]) for row in rows if row["check"] == "bus"]


async def test_the_doctor_says_nothing_of_a_bus_that_nobody_asked_for(ctl: Ctl) -> None:
    assert await bus_findings(ctl) == []


async def test_the_doctor_says_what_bridges_of_other_machines_lack(home: Path, ctl: Ctl, tmp_path: Path) -> None:
    listens = {"ROUTER_LISTEN": "tcp://127.0.0.1:5550"}
    ((level, says),) = await bus_findings(ctl, **listens)
    assert level == "wrong"
    assert "server.key cannot be read" in says
    await ctl("keys", "server")
    ((level, says),) = await bus_findings(ctl, **listens)
    assert level == "warning"
    assert "none is allowed to join" in says
    key = (await ctl("keys", "client", tmp_path / "bridge.key", "--allow", "ml")).out.strip()
    assert await bus_findings(ctl, **listens) == [
        ("ok", "1 bridge may join the router on tcp://127.0.0.1:5550, encrypted.")
    ]
    joins = {
        "ROUTER_ADDRESS": "tcp://127.0.0.1:5550", "ROUTER_PUBLIC_KEY": key,
        "BRIDGE_KEY_FILE": str(tmp_path / "bridge.key"),
    }  # fmt: skip
    assert await bus_findings(ctl, **joins) == [("ok", "mlbridge has its key pair for tcp://127.0.0.1:5550.")]
    (tmp_path / "bridge.key").chmod(0o644)
    ((level, says),) = await bus_findings(ctl, **joins)
    assert level == "wrong"
    assert "mode 0644" in says


async def test_the_help_keeps_its_examples_as_they_are_typed(ctl: Ctl) -> None:
    ended = await ctl("keys", "--help")
    assert ended.code == 0
    lines = [line.strip() for line in ended.out.splitlines()]
    assert "watchout-ctl keys allow ml-team KEY" in lines
    assert not any("\\b" in line for line in lines)
