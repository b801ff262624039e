"""The browser that many tests share: what one module's tests leave in it is gone for the next."""

from __future__ import annotations

from tests.kit.browser import forget, opened, served
from tests.kit.processes import Process

PERMISSION = "navigator.permissions.query({name: 'geolocation'}).then(({state}) => state)"


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
