"""The tables of bounds in docs/security.md name metrics, constants, settings and fillers that exist."""

from __future__ import annotations

import importlib
import re

from tests.kit.fillers import COLUMNS_WITHIN, FILLERS, rows
from watchout.common.metric_names import DECLARED
from watchout.common.settings import table


def test_every_row_of_the_table_is_whole_and_has_its_filler() -> None:
    found = rows()
    names = [row["filler"].strip("`") for row in found]
    assert len(set(names)) == len(names)
    assert set(names) == set(FILLERS)
    for row in found:
        assert all(row.values()), row
        metrics = [word.strip("`") for word in row["metric"].split(", ")]
        assert set(metrics) - {"–"} <= set(DECLARED), row


def test_every_row_of_what_is_filled_within_has_a_bound_of_the_code_and_a_unit_test() -> None:
    settings = {spec.env for _, spec, _ in table()}
    units = {"MiB": 1 << 20, "KiB": 1 << 10, "s": 1, "": 1}
    for row in rows("bounds within", COLUMNS_WITHIN):
        assert all(row.values()), row
        assert {word.strip("`") for word in row["metric"].split(", ")} - {"–"} <= set(DECLARED), row
        assert re.fullmatch(r"(`test_\w+`(, )?)+", row["held by"]), row
        constants = re.findall(r"`([a-z_.]+)\.([A-Z_]+)` = ([\d ]*[\d.]*\d) ?(MiB|KiB|s|)", row["bound"])
        assert row["bound"].count(" = ") == len(constants), row
        for module, name, number, unit in constants:
            value = getattr(importlib.import_module(f"watchout.{module}"), name)
            assert value == float(number.replace(" ", "")) * units[unit], (row, value)
        assert constants or set(re.findall(r"`([A-Z_]+)`", row["bound"])) & settings, row
