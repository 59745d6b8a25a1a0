"""F8: 50 runs that emit at once, end to end, beside what one bare PAIR socket can receive."""

from __future__ import annotations

from benchmarks import crowd
from benchmarks.bare import pair
from benchmarks.daemon import sparrow
from benchmarks.rows import Goal, Plan, Row

TITLE = "50 runs that emit at once"
_RUNS = 50
_AGAINST = "one bare PAIR socket, receiving: a message an event, nothing else"


def measure(plan: Plan) -> list[Row]:
    """Both ways of emitting are held to the goal; a flood that the subscriber missed a part of is repeated, and told."""
    many = Row("F8", f"{_RUNS} runs at once, `emit_many()` of 100", "events/s", _AGAINST, goal=Goal(0.3, "at least"))
    single = Row("F8", "the same, `emit()` one by one", "events/s", _AGAINST, goal=Goal(0.3, "at least"))
    missed: list[str] = []
    for _ in range(plan.rounds):
        with pair() as bare:  # never at the same time as sparrow
            sample = bare.flood(plan.size(300_000, 50_000))
        with sparrow() as bench:
            for row, each, alone in ((many, plan.size(16_000, 500), False), (single, plan.size(16_000, 500), True)):
                row.baseline.append(sample)
                row.ours.append(crowd.emitted_whole(bench, _RUNS, each, single=alone, missed=missed))
    many.note = "each event was found once in its transcript and once at the subscriber"
    if missed:
        many.note += (
            f"; {len(missed)} floods were repeated, since the subscriber lagged and a PUB socket then drops messages"
        )
    return [many, single]
