"""A real Prometheus scrapes real processes: each query of the dashboard has data, and rules fire and resolve.

`make test-rules` breaks all that the rules watch (tests/rules).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.deploy.test_prometheus_files import queries
from tests.kit.clients import Clients, eventually
from tests.kit.nats_servers import NatsSite
from tests.kit.prometheus import Prometheus
from tests.rules import cluster
from tests.rules.breakage import rehearse, watching
from tests.rules.stage import Kit
from watchout.common.metric_guide import ALL, GUIDE
from watchout.common.metric_names import DECLARED, TOTALS

pytestmark = [pytest.mark.e2e, pytest.mark.real]
COMES_S: Final = 90.0


def empty_queries(seen: Prometheus, expressions: Iterable[str]) -> list[str]:
    """Those of the dashboard's queries that have no data at this moment."""
    return [
        expression
        for expression in expressions
        if not seen.values(expression.replace("$__rate_interval", "10s").replace("$process", ".*"))
    ]


async def nothing_new() -> bool:
    """False, but not at once: Prometheus scrapes, and looks at its rules, once a second."""
    await asyncio.sleep(0.3)
    return False


def undeclared(seen: Prometheus) -> list[str]:
    """Series of watchout that are not declared, or are told of a kind of process to which they are not ascribed."""
    former = {declared.former_name for declared in DECLARED.values()}
    wrong = []
    for series in seen.ask("series", **{"match[]": '{__name__=~"watchout_.+"}'}):
        name = series["__name__"].removeprefix("watchout_")
        name = name if name in DECLARED else name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        if name in TOTALS or name in former:
            continue
        kind = next((kind for kind in ALL if series.get("process", "").startswith(kind)), None)
        if name not in GUIDE or kind not in GUIDE[name].of:
            wrong.append(f"{series}")
    return wrong


async def test_every_panel_has_data_and_a_rule_fires_while_what_it_watches_is_broken(
    watchout: Callable[..., Any], clients: Clients, start_nats: Callable[..., NatsSite], tmp_path: Path
) -> None:
    kit = Kit(watchout, clients, start_nats, None, tmp_path)
    async with cluster.scene(kit) as here, watching(tmp_path / "prometheus", here.ports) as watch:
        await every_query_has_data(watch.seen)
        assert await asyncio.to_thread(undeclared, watch.seen) == []
        fired = await rehearse(cluster.SHORT, here, None, watch)
        assert {outcome.rule for outcome in fired} > {"WatchoutMlServiceAway", "WatchoutNatsAway"}


async def every_query_has_data(seen: Prometheus) -> None:
    left = [expression for _, expression in queries()]

    async def nothing_is_empty() -> bool:
        left[:] = await asyncio.to_thread(empty_queries, seen, left)
        return not left or await nothing_new()

    await eventually(nothing_is_empty, COMES_S, lambda: "\n".join(left))
