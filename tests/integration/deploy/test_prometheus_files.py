"""The alert rules of `deploy/prometheus` and the dashboard of `deploy/grafana`, as files: complete and true."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import pytest
import yaml

from tests.kit.processes import REPOSITORY
from tests.kit.prometheus import FILES, RULES, promtool
from watchout.common.metric_names import DECLARED, TOTALS

DASHBOARD: Final = json.loads((REPOSITORY / "deploy/grafana/watchout.json").read_text())
GROUPS: Final = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: Final = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
TESTS: Final = yaml.safe_load((FILES / "watchout.rules.test.yml").read_text())["tests"]


def names_in(expression: str) -> set[str]:
    """The metrics of watchout that an expression reads, without prefix and without the parts of a histogram."""
    names = set(re.findall(r"\bwatchout_(\w+)", expression))
    histograms = {name for name, declared in DECLARED.items() if str(declared.kind) == "histogram"}
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in DECLARED else name for name in names} | (
        names & histograms
    )


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression of each query of the dashboard."""
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_promtool_takes_the_configuration_and_each_rule_fires_and_is_silent_as_its_test_says() -> None:
    for arguments in (("check", "config", "prometheus.yml"), ("test", "rules", "watchout.rules.test.yml")):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_each_rule_says_how_urgent_it_is_what_is_wrong_and_where_it_is_told_what_to_do(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"[1-9]\d*[smh]", rule["for"])
    assert re.fullmatch(r"\S.{20,}\.", rule["annotations"]["summary"]), "a sentence"
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    section = (REPOSITORY / page).read_text().partition(f"\n### {name}\n")[2].partition("\n##")[0]
    assert anchor == name.lower()
    assert "\n- Look at: " in section
    assert "\n- Do: " in section


def test_each_rule_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    fires, silent = set(), set()
    for test in TESTS:
        for checked in test["alert_rule_test"]:
            (fires if checked["exp_alerts"] else silent).add(checked["alertname"])
    names = {rule["alert"] for rule in ALERTS}
    assert len(names) == len(ALERTS) > 25
    assert fires == silent == names


def test_the_page_lists_the_rules_as_they_are() -> None:
    page = (REPOSITORY / "docs/monitoring.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \| (\w+) \|$", page, re.MULTILINE)
    rules = [(rule["alert"], rule["alert"].lower(), rule["labels"]["severity"], rule["for"]) for rule in ALERTS]
    assert listed == rules


def test_rules_and_dashboard_read_metrics_that_are_declared_under_their_present_names() -> None:
    rules = [rule["expr"] for group in GROUPS for rule in group["rules"]]
    read = {name for expression in [*rules, *(query for _, query in queries())] for name in names_in(expression)}
    assert read - set(DECLARED) - set(TOTALS) == set()
    assert len(read) > 80


def test_panels_have_numbers_and_places_of_their_own_and_the_data_source_that_is_chosen() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 35
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
