"""What the supervisor asks of its index for runs that live costs the same, however many have ended. Counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sparrow_supervisor.index import Index

FEW, MANY = 30, 3000
LIVE = ["live-1", "live-2", "live-3"]


def add(index: Index, run: str, number: int) -> None:
    index.insert(
        run=run,
        name=f"name-{run}",
        status="running",
        engine="shell",
        agent="shell",
        task="true",
        cwd="/",
        labels="[]",
        terms="{}",
        created="2026-11-23T00:00:00.000000Z",
        created_at=float(number),
    )


def index_with(path: Path, ended: int) -> Index:
    index = Index(path)
    index._db.execute("BEGIN")
    for number in range(ended):
        add(index, f"{number:08x}", number)
        index.save(f"{number:08x}", status="completed", ended="2026-11-23T00:00:00.000000Z")
    for number, run in enumerate(LIVE):
        add(index, run, ended // 2 + number)  # in the midst of them, not at an end that is found quickly
    index._db.execute("COMMIT")
    return index


def steps(index: Index, action: Callable[[Index], object]) -> int:
    """How many instructions SQLite's machine executes for it."""
    count = 0

    def one() -> int:
        nonlocal count
        count += 1
        return 0

    index._db.set_progress_handler(one, 1)
    action(index)
    index._db.set_progress_handler(None, 1)
    return count


def listed(index: Index) -> list[str]:
    pages = index.pages(everything=False, status=None, label=None, limit=None)
    return [row["run"] for page in pages for row in page]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Index]:
    folder = tmp_path_factory.mktemp("growth")
    return index_with(folder / "few.db", FEW), index_with(folder / "many.db", MANY)


ASKED: dict[str, Callable[[Index], object]] = {
    "those that live, as adoption asks": lambda index: index.live(),
    "those that live, as `ps` asks": listed,
    "one by its id": lambda index: index.row("live-2"),
    "one by its name": lambda index: index.resolve("name-live-2"),
    "one by the beginning of its id": lambda index: index.resolve("0000001d"),
    "a change": lambda index: index.save("live-2", pid=7),
    "sums": lambda index: index.keep_sums("live-1", 3, b"{}"),
    "what waits for a run": lambda index: index.pending("live-1"),
    "the totals of all that ended": lambda index: index.past(),
    "the newest that ended": lambda index: index.ended(),
}


@pytest.mark.parametrize("what", ASKED)
def test_it_costs_the_same_with_a_hundred_times_as_many_ended(both: tuple[Index, Index], what: str):
    few, many = (steps(index, ASKED[what]) for index in both)
    page = (
        100 * 15 if what == "the newest that ended" else 0
    )  # a page of it, of which there are not as many in the first
    assert many <= few * 1.2 + 20 + page


def test_both_ways_to_ask_for_those_that_live_give_them(both: tuple[Index, Index]):
    for index in both:
        assert [row["run"] for row in index.live()] == LIVE
        assert listed(index) == LIVE[::-1]


def test_opening_one_adds_nothing_up_again(tmp_path: Path):
    index_with(tmp_path / "i.db", MANY).close()
    before = Index(tmp_path / "i.db")
    assert before.past()["completed"].runs == MANY
    before.close()
