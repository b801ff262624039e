"""`MESH_LISTEN`: where a process accepts frames of other hosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.errors import SettingsError
from watchout.common.settings import load
from watchout.common.settings.mesh_listen import MeshListen, mesh_listen
from watchout.common.settings.spec import InvalidValue


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("tls://10.0.0.5:7400", MeshListen("10.0.0.5", 7400, 7400, "10.0.0.5")),
        ("tls://10.0.0.5:7400-7409", MeshListen("10.0.0.5", 7400, 7409, "10.0.0.5")),
        ("tls://[::1]:0", MeshListen("::1", 0, 0, "::1")),
        ("tls://host-a:1-65535", MeshListen("host-a", 1, 65535, "host-a")),
        ("tls://0.0.0.0:7400?advertise=Host-A", MeshListen("0.0.0.0", 7400, 7400, "host-a")),
        ("tls://[::]:7400?advertise=[fd00::5]", MeshListen("::", 7400, 7400, "fd00::5")),
    ],
)
def test_every_form_is_read_and_written_again(text: str, listen: MeshListen) -> None:
    assert mesh_listen(text) == listen
    assert mesh_listen(str(listen)) == listen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tls://address:port"),
        ("10.0.0.5:7400", "tls://address:port"),
        ("tcp://10.0.0.5:7400", "tls://address:port"),
        ("tls://10.0.0.5", "tls://address:port"),
        ("tls://10.0.0.5:", "tls://address:port"),
        ("tls://10.0.0.5:7400/", "tls://address:port"),
        ("tls://user@10.0.0.5:7400", "tls://address:port"),
        ("tls://10.0.0.5:7400?other=1", "tls://address:port"),
        ("tls://fd00::5:7400", "tls://address:port"),
        ("tls://:7400", "a host name or an IP address"),
        ("tls://*:7400", "a host name or an IP address"),
        ("tls://1.2.3:7400", "a host name or an IP address"),
        ("tls://10.0.0.5:65536", "ports from 1 to 65535"),
        ("tls://10.0.0.5:7409-7400", "ports from 1 to 65535"),
        ("tls://10.0.0.5:0-7400", "ports from 1 to 65535"),
        ("tls://0.0.0.0:7400", "add ?advertise="),
        ("tls://[::]:7400", "add ?advertise="),
        ("tls://10.0.0.5:7400?advertise=", "behind ?advertise="),
        ("tls://10.0.0.5:7400?advertise=0.0.0.0", "behind ?advertise="),
        ("tls://10.0.0.5:7400?advertise=a:1", "behind ?advertise="),
    ],
)
def test_every_other_form_gets_a_sentence(text: str, said: str) -> None:
    with pytest.raises(InvalidValue, match=said.replace("?", r"\?")):
        mesh_listen(text)


@given(st.text(max_size=60) | st.text("tls:/[]0123456789.-?=advertis", max_size=60).map(lambda rest: "tls://" + rest))
def test_nothing_else_comes_of_any_text(text: str) -> None:
    try:
        made = mesh_listen(text)
    except InvalidValue:
        return
    assert mesh_listen(str(made)) == made


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MESH_LISTEN": "tls://a:1"}, "MESH_LISTEN is set, expected WATCHOUT_BUS with it"),
        ({"MESH_CA": __file__}, "MESH_CA is set, expected MESH_LISTEN with it"),
        ({"WATCHOUT_BUS": "a", "MESH_CERT": __file__}, "MESH_CERT is set, expected MESH_LISTEN with it"),
        (
            {"WATCHOUT_BUS": "a", "MESH_LISTEN": "tls://a:1", "MESH_KEY": __file__},
            "MESH_KEY is set, expected MESH_CERT with it",
        ),
    ],
)
def test_what_lacks_another_setting_is_a_fault(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(environ)
