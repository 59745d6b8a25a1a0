"""How far the record of each live run goes, and who has still to be told. Pure: positions in, sessions to serve out.

The rule that keeps the work small: **an event costs nothing for a client that lags, and an idle run costs nothing at all.**

Each reader has a dictionary ``behind`` of the runs in which it lags, with the place from where it has to read on. For
every other run it has all that the ledger knows. When a run grows, each reader that does not lag in it yet has to get
its entry; a reader that does is not even looked at. For that all readers are kept in the order of their ``level``: the
tick at which a reader last caught up with some run. It holds at any time:

    for each run R (that the reader has met) and each reader:  R in behind, or R has not grown since the reader's level

(When R grows, readers with a level before R's last growth got their entry then, and have it still: giving one up raises
the level. So only those after it, at the end of the order, are visited.) Runs that begin later are not entered for
anybody: they stand in one list for all, in which each reader has its place, ``met``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Protocol

from sparrow_supervisor.adapters.library import Spot

KEEP_ENDED_S = 120.0
"""How long an ended run is remembered at least, so that a late word about it is not taken for a new run."""


class Reader(Protocol):
    """What the ledger has to know of a session."""

    behind: dict[str, Spot]
    cursor: Spot
    level: int
    met: int


class Tail:
    """A live run: ``spot`` is the end of its record, as far as it is known; ``start`` is where it began for us."""

    __slots__ = ("ended", "grown", "place", "run", "spot", "start")

    def __init__(self, run: str, start: Spot, place: int, grown: int) -> None:
        self.run = run
        self.start = start
        self.spot = start
        self.place = place
        self.grown = grown
        self.ended = False


class Ledger:
    """All live runs and all readers."""

    def __init__(self) -> None:
        self.tails: dict[str, Tail] = {}
        self.pins = 0
        """How many readers walk through the folder: while any does, nothing is forgotten, so that it knows what it met."""
        self._tick = 0
        self._born: deque[Tail] = deque()
        self._born_before = 0
        self._readers: OrderedDict[Reader, None] = OrderedDict()
        self._watchers: dict[str, set[Reader]] = {}
        self._idle: set[Reader] = set()
        self._ended: deque[tuple[float, Tail]] = deque()

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def appear(self, run: str, start: Spot, ended: bool, now: float) -> list[Reader]:
        """A run that was not known: what follows ``start`` is for all. Who was idle and is to be served now."""
        self._tick += 1
        tail = Tail(run, start, self._born_before + len(self._born), self._tick)
        self.tails[run] = tail
        self._born.append(tail)
        self._mark_ended(tail, ended, now)
        woken = list(self._idle)
        self._idle.clear()
        return woken

    def grow(self, run: str, spot: Spot, ended: bool, now: float) -> list[Reader]:
        """A known run's record goes to ``spot`` now. Who was idle and is to be served now."""
        tail = self.tails[run]
        if spot.seq <= tail.spot.seq:
            return []
        before, last_grown = tail.spot, tail.grown
        self._tick += 1
        tail.spot, tail.grown = spot, self._tick
        self._mark_ended(tail, ended, now)
        woken: list[Reader] = []
        for reader in reversed(self._readers):
            if reader.level < last_grown:
                break
            if tail.place < reader.met:
                reader.behind.setdefault(run, before)
                if reader in self._idle:
                    self._idle.discard(reader)
                    woken.append(reader)
        for reader in self._watchers.pop(run, ()):
            reader.behind[run] = reader.cursor
            woken.append(reader)
        return woken

    def _mark_ended(self, tail: Tail, ended: bool, now: float) -> None:
        if ended and not tail.ended:
            tail.ended = True
            self._ended.append((now, tail))

    def forget(self, now: float) -> None:
        """Drop the ended runs that nobody has still to meet."""
        if self.pins:
            return
        met = min((reader.met for reader in self._readers), default=self._born_before + len(self._born))
        while self._born and self._born_before < met:
            self._born.popleft()
            self._born_before += 1
        while self._ended and self._ended[0][0] < now - KEEP_ENDED_S and self._ended[0][1].place < met:
            del self.tails[self._ended.popleft()[1].run]

    # ── Readers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def join(self, reader: Reader) -> None:
        """A reader of all runs, which has what there is up to now."""
        reader.met = self._born_before + len(self._born)
        self.caught_up(reader)

    def caught_up(self, reader: Reader) -> None:
        """A reader of all runs has just given up an entry of ``behind``: it has all of that run."""
        reader.level = self._tick
        self._readers[reader] = None
        self._readers.move_to_end(reader)

    def watch(self, reader: Reader, run: str) -> None:
        """A reader of one run, which has what there is: wake it when there is more after its ``cursor``."""
        self._watchers.setdefault(run, set()).add(reader)

    def idle(self, reader: Reader) -> None:
        """A reader of all runs has nothing to do."""
        self._idle.add(reader)

    def leave(self, reader: Reader, run: str | None) -> None:
        """The reader goes, or asks for something else."""
        self._readers.pop(reader, None)
        self._idle.discard(reader)
        if run is not None and run in self._watchers:
            self._watchers[run].discard(reader)
            if not self._watchers[run]:
                del self._watchers[run]

    def has_new(self, reader: Reader) -> bool:
        """Whether runs began that the reader has not met."""
        return reader.met < self._born_before + len(self._born)

    def meet(self, reader: Reader, most: int) -> Iterator[Tail]:
        """The next runs that began since the reader last asked."""
        for _ in range(most):
            place = reader.met - self._born_before
            if place >= len(self._born):
                return
            reader.met += 1
            yield self._born[place]
