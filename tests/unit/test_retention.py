"""Which transcripts are to go: the oldest, and no more of them than a limit asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp.config import Config
from sparrow_mp.paths import Places
from sparrow_mp.retention import Kept, outlived
from sparrow_supervisor.index import Index
from sparrow_supervisor.pruning import Pruning

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

pytestmark = pytest.mark.unit

FOUR = [Kept("c", 30, 10), Kept("a", 10, 10), Kept("d", 40, 10), Kept("b", 20, 10)]


def runs(**limits: int) -> str:
    return "".join(one.run for one in outlived(FOUR, 100, **limits))


def test_the_oldest_go_first() -> None:
    assert runs() == ""
    assert runs(max_age=75) == "ab"
    assert runs(max_age=80) == "a", "one that is just as old as the limit stays"
    assert runs(max_runs=3) == "a"
    assert runs(max_runs=0) == "abcd"
    assert runs(max_bytes=20) == "ab"
    assert runs(max_bytes=19) == "abc"
    assert runs(max_age=85, max_runs=2, max_bytes=35) == "ab"


@given(
    st.lists(st.builds(Kept, st.uuids().map(str), st.floats(0, 100), st.integers(0, 50)), max_size=20),
    st.none() | st.floats(0, 120),
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 20),
)
def test_what_stays_exceeds_nothing_and_one_more_would(kept, age, size, count) -> None:
    gone = outlived(kept, 100, max_age=age, max_bytes=size, max_runs=count)

    def exceeds(rest: list[Kept]) -> bool:
        return (
            (age is not None and any(one.ended < 100 - age for one in rest))
            or (size is not None and sum(one.bytes for one in rest) > size)
            or (count is not None and len(rest) > count)
        )

    rest = [one for one in kept if one not in gone]
    assert not exceeds(rest)
    assert all(one.ended <= other.ended for one in gone for other in rest)
    if gone:
        assert exceeds([*rest, gone[-1]])


def test_the_rest_of_many_are_found_a_page_at_a_time(tmp_path: Path) -> None:
    """No step of the loop takes long, however many there are: each asks the index for a page at most, and removes one folder."""
    places = Places(tmp_path, tmp_path / "run", tmp_path / "config.toml")
    index = PagesSeen(tmp_path / "index.db")
    runs = [f"{number:08x}-2f0a-4c1d-9e6b-0a1b2c3d4e5f" for number in range(450)]
    for number, run in enumerate(runs):
        add_run(index, run, ended=None if run == runs[7] else f"2026-11-22T12:00:{number % 60:02}.{number:06}Z")
        places.transcript(run).mkdir(parents=True)
    (places.transcript(runs[5]) / "events.jsonl").write_bytes(b"x" * 100)
    by_age = sorted((run for run in runs if run != runs[7]), key=lambda run: (index.when(run), run))
    reactor = SimpleNamespace(index=index, places=places, loop=(loop := Steps()), config=Config())
    reactor.config.retention.max_runs = 400
    Pruning(cast("Reactor", reactor))
    left = len(runs)
    for _ in range(1000):
        if not loop.step():
            break
        here = len(list(places.transcripts.iterdir()))
        assert left - here in (0, 1)
        left = here
    assert index.seen
    assert max(index.seen) <= 100
    assert {path.name for path in places.transcripts.iterdir()} == {runs[7], *by_age[-400:]}
    assert index.runs() == {runs[7], *by_age[-400:]}
    index.close()


class PagesSeen(Index):
    """An index that counts what it is asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seen: list[int] = []

    def ended(self, before: tuple[str, str] | None = None) -> list[tuple[str, str]]:
        found = super().ended(before)
        self.seen.append(len(found))
        return found

    def when(self, run: str) -> str:
        row = self.row(run)
        assert row is not None
        return str(row["ended"])


class Steps:
    """In the loop's place: what is to be called later is called when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        if seconds < 60:
            self.due.append(callback)

    def step(self) -> bool:
        if self.due:
            self.due.pop(0)()
        return bool(self.due)


def add_run(index: Index, run: str, ended: str | None) -> None:
    index.insert(
        run=run, status="completed", engine="shell", agent="shell", task="x", cwd="/", labels="[]", terms="{}",
        created="2026-11-22T12:00:00.000000Z", created_at=1.0, ended=ended,
    )  # fmt: skip
