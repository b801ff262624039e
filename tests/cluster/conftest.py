from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.cluster import Site, site_of_hosts


@pytest.fixture(scope="package")
def shared_site() -> Iterator[Site]:
    """Three hosts with a NATS server, a router and a gateway each, for all tests whose faults heal."""
    with site_of_hosts() as made:
        made.start("router:0", "router:1", "router:2", "gateway:0", "gateway:1", "gateway:2")
        made.wait_whole()
        yield made


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The shared site; what the test before has left ended runs again."""
    shared_site.mend()
    return shared_site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Add what the processes of the site said to the report of a failure."""
    report = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and call.when != "teardown" and isinstance(site, Site):
        report.sections.append(("what the processes of the site said", site.report()))
    return report
