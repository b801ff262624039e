"""The browser that many tests share: tests and hosts of another module leave nothing in it for the next."""

from __future__ import annotations

import asyncio
import errno
import sys
from pathlib import Path

from tests.kit import browsers
from tests.kit.browser import forget, opened, served
from tests.kit.clients import eventually
from tests.kit.network import another_host
from tests.kit.processes import Process

PERMISSION = "navigator.permissions.query({name: 'geolocation'}).then(({state}) => state)"
#: Loads more at a time, all the time, than the browser has connections for; counts what came, and keeps why something
#: did not.
LOADING = """
window.came = 0;
window.failed = [];
const load = (url) => fetch(url, {cache: "no-store"}).then(() => came++, (error) => failed.push(String(error)));
const lane = async (url) => { while (!window.enough) await load(url); };
window.lanes = Promise.all(Array.from({length: 20}, (_, number) => lane(location.href + "?" + number)));
0
"""
#: Says of each kind of socket whether this process may have it: of routes and addresses, of devices, of the internet.
SOCKETS = """
import socket
for family, protocol in ((socket.AF_NETLINK, 0), (socket.AF_NETLINK, 15), (socket.AF_INET, 0), (socket.AF_UNIX, 0)):
    try:
        socket.socket(family, socket.SOCK_DGRAM, protocol).close()
        print(0)
    except OSError as error:
        print(error.errno)
"""


async def test_a_browser_forgets_cookies_permissions_and_tabs(browser_process: Process, chromium: str) -> None:
    async with served("<title>page</title>") as url:
        async with opened(chromium, url) as left:
            await left.run("document.cookie = 'name=value'; open('about:blank?left'); 0")
            await left.set_permission("geolocation", "granted")
            assert (await left.run("document.cookie"), await left.run(PERMISSION)) == ("name=value", "granted")
        forget(browser_process)
        async with opened(chromium, url) as tab:
            assert (await tab.run("document.cookie"), await tab.run(PERMISSION)) == ("", "prompt")
            targets = (await tab._call("Target.getTargets"))["targetInfos"]
            assert sorted(each["url"] for each in targets if each["type"] == "page") == ["about:blank", url]


async def test_what_a_page_loads_comes_while_hosts_of_other_tests_are_made_and_removed(chromium: str) -> None:
    def make_and_remove() -> None:
        with another_host():
            pass

    async with served("<title>page</title>") as url, opened(chromium, url) as tab:
        await tab.run(LOADING)
        for _ in range(3):
            before = await tab.run("came")
            await asyncio.to_thread(make_and_remove)
            await eventually(lambda before=before: tab.run(f"came > {before + 10}"), what="nothing is loaded")
        await tab.run("window.enough = true; lanes.then(() => 0)")  # else one is under way when the page's server ends
        assert await tab.run("failed") == []


async def test_what_is_started_as_a_browser_hears_of_no_addresses(tmp_path: Path) -> None:
    """Firefox would end a connection over which nothing comes for five seconds after an address came or went."""
    async with browsers._running("firefox", [sys.executable, "-c", SOCKETS], tmp_path) as program:
        assert await program.ended(60) == 0
        assert program.lines == [str(errno.EAFNOSUPPORT), "0", "0", "0"]
