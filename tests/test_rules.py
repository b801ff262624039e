"""The rehearsals of faults cover every alert rule, and their Prometheus has the rules as they are, but faster."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from tests.kit.prometheus import FASTER, RULES, Prometheus, arms_of, faster_rules
from tests.rules.breakage import Outcome, Watch, read, silent_arms, write
from tests.rules.page import BEGIN, END, PAGE, rehearsed, with_outcomes
from tests.rules.scenes import SCENES, breakages
from watchout.ctl.app import COMMANDS

ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def test_what_each_rule_watches_is_broken_in_a_rehearsal() -> None:
    broken = {rule for breakage in breakages() for rule in breakage.alerts}
    names = {rule["alert"] for rule in ALERTS}
    assert names - broken == set(), "a rule needs something in tests/rules that makes it fire"
    assert broken - names == set(), "there is no such rule"


def test_each_breakage_of_a_scene_is_in_its_steps() -> None:
    for name, module in SCENES.items():
        planned = [breakage.name for step in module.STEPS for breakage in step]
        written = re.findall(r"^@breaks\(.*?^async def (\w+)\(", inspect.getsource(module), re.MULTILINE | re.DOTALL)
        assert sorted(planned) == sorted(written), name


def test_the_page_has_the_last_rehearsal_of_each_breakage() -> None:
    """`make test-rules` writes it."""
    expected = sorted((rule, breakage.how) for breakage in breakages() for rule in breakage.alerts)
    assert rehearsed(PAGE.read_text()) == expected


def test_the_table_of_the_page_is_made_anew() -> None:
    outcomes = [Outcome("WatchoutB", "it is stopped", 3.4, 12.6, "It."), Outcome("WatchoutA", "`x` | y", 1.0, 2.0, "")]
    page = with_outcomes(f"before\n{BEGIN}\nold\n{END}\nafter\n", outcomes[:1])
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "| [WatchoutB](#watchoutb) | it is stopped | 3 s | 13 s |" in page
    assert rehearsed(with_outcomes(page, outcomes)) == [("WatchoutA", "`x` | y"), ("WatchoutB", "it is stopped")]
    with pytest.raises(ValueError, match="has no"):
        with_outcomes("a page", outcomes)


def test_in_a_rehearsal_durations_are_shorter_and_nothing_else_is_changed() -> None:
    """Each duration is a fifteenth; with the durations taken out the files are the same."""
    # The last one: what a process has run, in seconds.
    duration = r"(?<=for: )\d+[smh]\b|(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]\b|(?<=\)\) > )\d+$"
    durations = re.compile(duration, re.MULTILINE)
    before, after = RULES.read_text(), faster_rules(RULES.read_text())

    def seconds(text: str) -> list[int]:
        found = durations.findall(text)
        return [int(each.rstrip("smhd")) * UNITS.get(each[-1], 1) for each in found]

    assert seconds(before) == [each * FASTER for each in seconds(after)]
    assert len(seconds(before)) > 100
    assert durations.sub("", before) == durations.sub("", after)


def test_an_expression_is_divided_at_each_or_outside_of_brackets() -> None:
    assert arms_of('max(a) > 0 or (b or c) and on () d == 1 or e{for="x"}') == [
        "max(a) > 0", "(b or c) and on () d == 1", 'e{for="x"}',
    ]  # fmt: skip
    assert arms_of("forty > 2") == ["forty > 2"]


def test_a_part_of_a_rule_that_nothing_made_true_is_named(tmp_path: Path) -> None:
    rules = {"A": ["a > 1", "b > 1"], "B": ["c > 1"]}
    watch = Watch(Prometheus(""), 1, rules=rules, arms={"A": {"a > 1"}})
    outcome = Outcome("A", "it is stopped", 3.0, 12.0, "It.")
    write([outcome], watch, tmp_path / "one.json")
    watch.arms = {"B": {"c > 1"}}
    write([], watch, tmp_path / "two.json")
    outcomes, read_rules, seen = read(tmp_path)
    assert (outcomes, read_rules) == ([outcome], rules)
    assert silent_arms(read_rules, seen) == ["A: nothing made this part of it true: b > 1"]


def test_a_duration_that_is_no_whole_number_of_seconds_is_refused() -> None:
    rules = RULES.read_text()
    with pytest.raises(ValueError, match=r"60s divided by 7 is no whole number"):
        faster_rules(rules, 7)
    with pytest.raises(ValueError, match="not where it was"):
        faster_rules(rules.replace("> 60", "> 61"))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_to_look_at_first_by_commands_that_there_are(rule: dict[str, dict[str, str]]) -> None:
    look = rule["annotations"]["look"]
    assert len(look) > 20
    named = re.findall(r"watchout-ctl ([a-z]+)", look)
    assert set(named) <= set(COMMANDS), look
    assert named or re.search(r"\b(journalctl|systemctl|df -h|top|log)\b", look), "a command, or the log"
