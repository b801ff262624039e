"""The files of `deploy/three-hosts` say what the documentation says, and differ only where hosts do."""

from __future__ import annotations

import re

import pytest

from tests.kit.cluster import DEPLOYED, variables
from tests.kit.processes import REPOSITORY
from watchout.common.settings import load, table

HOSTS = "abc"
#: What the NATS server reads; all others are settings of watchout.
OF_NATS = {"NATS_NAME", "NATS_ADDRESS", "NATS_STORE", "BUS_PASSWORD"}
OF_A_HOST = {"PUBLIC_URL", "MESH_LISTEN", "NATS_NAME", "NATS_ADDRESS"}


def of_host(name: str) -> dict[str, str]:
    return variables((DEPLOYED / f"host-{name}.env").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", HOSTS)
def test_every_variable_is_a_setting_with_a_good_value_or_one_of_nats(name: str) -> None:
    found = of_host(name)
    assert found.keys() >= OF_NATS
    assert found.keys() - OF_NATS <= {spec.env for _, spec, _ in table()}
    files = {key: value for key, value in found.items() if key.startswith("BUS_")}  # there is none here
    load({key: value for key, value in found.items() if key not in files})


def test_hosts_differ_in_what_is_theirs() -> None:
    first, second, third = map(of_host, HOSTS)
    assert {key for key in first if len({first[key], second[key], third[key]}) > 1} == OF_A_HOST
    assert {each["BUS_PASSWORD"] in each["WATCHOUT_BUS"] for each in (first, second, third)} == {True}


def test_the_nats_user_may_do_what_the_page_says_and_no_more() -> None:
    page = (REPOSITORY / "docs" / "bus.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- permissions: .*?-->\n```\n(.*?)```", page, re.DOTALL)
    config = (DEPLOYED / "nats.conf").read_text(encoding="utf-8")
    assert "".join(block.split()) in "".join(config.split())
