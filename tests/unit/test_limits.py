"""What a run may use, decided from figures."""

from __future__ import annotations

from typing import Any

import pytest

from sparrow_mp.run.limits import LATEST_S, SOONEST_S, Limits
from sparrow_mp.wire import RunSpec

MIB = 1 << 20


def limits(**given: Any) -> Limits:
    return Limits(
        RunSpec(run="r", task="t", engine="shell", agent="shell", endpoint="e", cwd="/", env={}, **given), 100.0
    )


def test_without_limits_nothing_is_due_and_nothing_is_reached() -> None:
    free = limits()
    assert free.due is None
    assert not free.wants_look(1e9)
    assert free.reached(1e9, 1 << 60, 1 << 60) is None
    assert not free.spent(1e9)


def test_each_is_reached_past_its_figure_and_once() -> None:
    timed = limits(timeout=5.0)
    assert timed.due == 105.0
    assert timed.reached(104.9, 0, 0) is None
    breach = timed.reached(105.0, 0, 0)
    assert breach is not None
    assert (breach.status, breach.reason, breach.at_once) == ("timed_out", "it ran longer than 5 s", False)
    assert timed.reached(106.0, 0, 0) is None
    assert [timed.due] == [None]

    talker = limits(max_output=10, max_transcript=3 * MIB)
    assert talker.reached(100.0, 10, 3 * MIB) is None
    breach = talker.reached(100.0, 11, 3 * MIB)
    assert breach is not None
    assert (breach.status, breach.reason) == ("over_limit", "it printed more than 10 bytes (max_output)")
    assert breach.at_once
    breach = talker.reached(100.0, 11, 3 * MIB + 1)
    assert breach is not None
    assert breach.reason == "its transcript has more than 3 MiB (max_transcript)"
    assert talker.reached(100.0, 11, 3 * MIB + 1) is None


def test_a_budget_is_told_of_once_and_then_spent() -> None:
    dear = limits(budget=1.0)
    assert [dear.spent(usd) for usd in (0.1, 0.79, 0.8, 0.9)] == [False, False, True, False]
    assert dear.reached(100.0, 0, 0) is None
    assert not dear.spent(1.0)
    breach = dear.reached(100.0, 0, 0)
    assert breach is not None
    assert breach == ("over_budget", "it cost 1.0000 USD of a budget of 1.0000", False, False)
    assert dear.reached(100.0, 0, 0) is None
    assert not limits(budget=1.0).spent(float("nan"))


def test_the_tree_is_looked_at_the_sooner_the_nearer_it_is() -> None:
    eater = limits(memory=256 * MIB)
    assert eater.due == pytest.approx(100.125)
    assert eater.used(101.0, 200 * MIB, 1, 0.0) is None
    assert eater.due == pytest.approx(101.0 + SOONEST_S)
    assert eater.used(101.0, 0, 1, 0.05) is None
    assert eater.due == pytest.approx(102.0)  # what takes long is not done often
    breach = eater.used(102.0, 300 * MIB, 1, 0.0)
    assert breach is not None
    assert (breach.status, breach.at_once) == ("out_of_memory", True)
    assert breach.reason == "it used 300 MiB of memory; the limit is 256 MiB"

    far = limits(memory=1 << 40, max_processes=100_000)
    assert far.due == pytest.approx(100.0 + LATEST_S)
    few = limits(max_processes=3)
    assert few.used(101.0, 0, 3, 0.0) is None
    breach = few.used(101.1, 0, 4, 0.0)
    assert breach is not None
    assert (breach.status, breach.reason) == ("over_limit", "it had more than 3 processes at once (max_processes)")
