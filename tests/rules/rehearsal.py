"""All that the rules watch is broken and mended: `make test-rules`, with root. The ordinary run breaks a part of it
(tests/e2e/deploy/test_prometheus.py)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.clients import Clients
from tests.rules.breakage import rehearse, watching, write
from tests.rules.scenes import SCENES
from tests.rules.stage import Kit

pytestmark = [pytest.mark.e2e, pytest.mark.real]

#: Where what was seen is kept for the table of the page.
SEEN: Final = Path(os.environ.get("WATCHOUT_TEST_RULES", "build/rules"))


@pytest.mark.parametrize("name", SCENES)
async def test_what_a_rule_watches_is_broken_and_mended_and_its_alert_fires_and_ends(
    name: str, watchout: Callable[..., Any], clients: Clients, start_nats: Any, start_postgres: Any, tmp_path: Path
) -> None:
    scene = SCENES[name]
    kit = Kit(watchout, clients, start_nats, start_postgres, tmp_path)
    async with scene.scene(kit) as here, watching(tmp_path / "prometheus", here.ports) as watch:
        write(await rehearse(scene.STEPS, here, here.system, watch), watch, SEEN / f"{name}.json")
        for rule in sorted(watch.unexpected(scene.STEPS)):
            print(f"{name}: beside those that were meant fired {rule}")
