"""Figures: each stress test says one line of what it did and found. They are shown as they come, and gathered at the end."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from tests.support.stress import Figure

_lines: list[str] = []
_LONGEST = (
    "test_n1_",
    "test_n2_",
    "test_n4_killed_in_every_order",
    "test_nothing_is_left_of_what_stops_its_monitor",
    "test_n8_",
    "test_n4_",
    "test_nothing_is_left",
    "test_the_laws_of_the_house",
    "test_no_input_breaks_a_decoder",
)
"""What takes minutes each, or together."""
_WORKERS = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first. Each worker gets two at the beginning, so the second one is a short one: what is handed out waits
    for its worker, however long that has to do.
    """

    def place(item: pytest.Item) -> int:
        return next((number for number, name in enumerate(_LONGEST) if item.name.startswith(name)), len(_LONGEST))

    items.sort(key=place)
    first, last = items[:_WORKERS], items[-_WORKERS:]
    if len(items) > 2 * _WORKERS:
        pairs = itertools.chain.from_iterable(zip(first, last, strict=True))
        items[:] = [*pairs, *items[_WORKERS:-_WORKERS]]


@pytest.fixture
def figure(record_property) -> Figure:
    """Say a line with the test's figure."""

    def say(line: str) -> None:
        record_property("figure", line)

    return say


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _lines.extend(str(value) for name, value in report.user_properties if name == "figure")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if not _lines or hasattr(config, "workerinput"):  # what a worker says its controller has too
        return
    terminalreporter.section("figures")
    for line in sorted(_lines):
        terminalreporter.write_line(line)
    kept = os.environ.get("SPARROW_FIGURES")
    if kept:
        with Path(kept).open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in sorted(_lines))
