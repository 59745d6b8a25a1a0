"""What a run's events add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from sparrow_mp.events import (
    AnyEvent,
    ApprovalRequested,
    ApprovalResolved,
    CostUpdate,
    DiffApplied,
    DiffProposed,
    DiffStat,
    RunStarted,
    Tokens,
    TokenUsage,
)
from sparrow_supervisor.core.inputs import Totals

COUNTED = frozenset(
    {"RunStarted", "ApprovalRequested", "ApprovalResolved", "CostUpdate", "TokenUsage", "DiffProposed", "DiffApplied"}
)
"""The types that change the totals; all others need not be looked at."""


def add(totals: Totals, events: Iterable[AnyEvent]) -> None:
    """Take the events into account, in their order."""
    for event in events:
        match event:
            case CostUpdate():
                totals.cost_usd = event.usd
            case TokenUsage():
                totals.tokens = Tokens(input=event.input, output=event.output)
            case RunStarted():
                totals.started = True
            case ApprovalRequested():
                totals.asked = totals.asked if totals.waiting else event
                totals.waiting.add(event.id)
            case ApprovalResolved():
                totals.waiting.discard(event.id)
            case DiffProposed():
                totals.proposed[event.file] = DiffStat(file=event.file, plus=event.plus, minus=event.minus)
            case DiffApplied():
                _apply(totals, event.file)
            case _:
                pass


def _apply(totals: Totals, file: str) -> None:
    """A proposed diff has become a change of the file; several add up."""
    new = totals.proposed.pop(file, None)
    if new is not None:
        old = totals.diffs.get(file)
        totals.diffs[file] = DiffStat(
            file=file, plus=new.plus + (old.plus if old else 0), minus=new.minus + (old.minus if old else 0)
        )
