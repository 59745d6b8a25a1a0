"""What a run's events add up to."""

from __future__ import annotations

from sparrow_mp import events as ev
from sparrow_supervisor.core.inputs import Totals
from sparrow_supervisor.core.totals import COUNTED, add


def totals_of(*said: ev.AnyEvent) -> Totals:
    totals = Totals()
    add(totals, said)
    return totals


def proposed(file: str, plus: int, minus: int) -> ev.DiffProposed:
    return ev.DiffProposed(file=file, patch="@@", plus=plus, minus=minus)


def test_nothing_said() -> None:
    assert totals_of() == Totals()
    assert Totals().tokens == ev.Tokens()


def test_costs_and_tokens_are_totals_already() -> None:
    totals = totals_of(
        ev.CostUpdate(usd=0.5),
        ev.TokenUsage(input=10, output=1),
        ev.CostUpdate(usd=0.75),
        ev.TokenUsage(input=30, output=4),
    )
    assert (totals.cost_usd, totals.tokens) == (0.75, ev.Tokens(input=30, output=4))
    # An estimate is no usage.
    assert totals_of(ev.TokenUsageEstimated(input=9, output=9, reason="none was sent")).tokens == ev.Tokens()


def test_a_run_waits_for_the_approvals_that_were_not_given() -> None:
    asked = [ev.ApprovalRequested(id=name, summary="run ls") for name in "ab"]
    assert totals_of(*asked).waiting == {"a", "b"}
    assert totals_of(*asked, ev.ApprovalResolved(id="a", decision="Deny")).waiting == {"b"}
    assert totals_of(ev.ApprovalResolved(id="c", decision="Allow")).waiting == set()


def test_only_a_diff_that_was_applied_has_changed_a_file() -> None:
    assert totals_of(proposed("f", 3, 1)).diffs == {}
    assert totals_of(ev.DiffApplied(file="f")).diffs == {}
    totals = totals_of(
        proposed("f", 3, 1), proposed("g", 9, 9), ev.DiffApplied(file="f"),
        proposed("f", 5, 5), proposed("f", 2, 0), ev.DiffApplied(file="f"), ev.DiffApplied(file="f"),
    )  # fmt: skip
    assert totals.diffs == {"f": ev.DiffStat(file="f", plus=5, minus=1)}


def test_what_does_not_count_need_not_be_looked_at() -> None:
    """The supervisor passes over all other types, so none of them may change anything."""
    every = {name: ev.EVENT_TYPES[name] for name in COUNTED}
    assert set(every) == {
        "RunStarted", "ApprovalRequested", "ApprovalResolved", "CostUpdate", "TokenUsage", "DiffProposed", "DiffApplied",
    }  # fmt: skip
    assert totals_of(ev.Message(role="a", text="b"), ev.Unknown(type="CostUpdate2", fields={"usd": 3})) == Totals()


def test_a_field_of_a_later_version_does_not_hide_an_event() -> None:
    assert totals_of(ev.decode('{"type":"CostUpdate","usd":0.5,"currency":"USD"}')).cost_usd == 0.5
