"""One NDJSON client: what it asked for, how far it has got, and what it is to be sent next. No socket, no clock.

A session is first **held** (nothing is sent until it is clear that the peer is no browser), and then always the same:
``fill()`` takes the next events from the records, about ``TURN`` bytes of them; the server sends what is ``pending``.
Replay and live are no two states: a session is behind in some runs, each with a place to read on from, or in none.
So it costs the same whether a client reads the past or the present, and a client that takes nothing costs its one turn
of bytes, and not even these after ``spill()``.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from itertools import islice

from sparrow_mp import wire
from sparrow_mp.errors import AmbiguousRun, BadRequest, NoSuchRun, SparrowError
from sparrow_supervisor.adapters.greeting import judge
from sparrow_supervisor.adapters.ledger import Ledger
from sparrow_supervisor.adapters.library import BEGIN, Library, Pruned, Spot

TURN = 256 << 10
"""How many bytes of a record one turn takes."""
LONGEST_LINE = 256 << 10
"""How long a request may be: a few thousand runs in ``since``."""

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that say nothing of a record: there is no descriptor or memory left to read it with."""

_STEPS = 64  # how many runs one turn looks at
_BEHIND = 64  # how many entries are taken over at once from the runs that began, or from the folder
_NAMES = 512  # how many names of a folder are compared in one turn
_SEEK_COST = 8 << 10  # finding a place takes as long as reading so many bytes

# Places that are looked for when it is a run's turn, since there may be thousands of runs.
_BY_TIME = Spot(-1)  # from the time asked for
_IF_RECENT = Spot(
    -2
)  # from the first event, if the run said anything since the time of the oldest event the client named


class Piece:
    """Bytes to send. Where ``source`` is given they can be had again, and need not be kept for a client that stalls."""

    __slots__ = ("data", "size", "source")

    def __init__(self, data: bytes, source: tuple[str, Spot, Spot, frozenset[bytes] | None, str] | None = None) -> None:
        self.data: bytes | None = data
        self.size = len(data)
        self.source = source


class Session:
    """A client of the adapters."""

    def __init__(self, library: Library, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._library = library
        self._ledger = ledger
        self._clock = clock
        # As the ledger wants it:
        self.behind: dict[str, Spot] = {}
        self.unreadable: dict[str, Spot] = {}
        """The runs whose records cannot be read just now, and how far they were: they are looked at again a while later."""
        self.cursor = BEGIN
        self.level = 0
        self.met = 0
        # What was asked for:
        self._run: str | None = None
        self._types: frozenset[bytes] | None = None
        self._since = ""
        self._floor = ""
        self._rule = _BY_TIME
        self._ahead: dict[str, int] = {}
        self._scan: Iterator[str] | None = None
        self._named: frozenset[str] = frozenset()  # what the walk through the folder leaves out
        self._choosing: Generator[None, None, None] | None = None
        self._done = False
        # What it sent, and what it is to be sent:
        self._input = bytearray()
        self._pending: deque[Piece] = deque()
        self._sent = 0  # of the first piece
        self.held = True
        """Nothing may be sent yet."""
        self.half_closed = False
        """It will send nothing more; it may go on reading."""
        self.closing = False
        """It is to be closed as soon as nothing is pending."""
        self.failed = False
        """It is closing with an error, and is not waited for as long as others are."""
        self.refused = False
        """It is to be closed at once, without another byte."""
        self.paused = False
        """The record has to be looked at again a little later."""
        ledger.join(self)

    # ── What the client sends ────────────────────────────────────────────────────────────────────────────────────────

    @property
    def wants_input(self) -> bool:
        """Whether it is to be read from."""
        return not (self.half_closed or self.closing or self.refused or len(self._input) > LONGEST_LINE)

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        self._input += data
        self._read_requests()

    def end_of_input(self) -> None:
        """The client closed its side. What it sent counts, also without the last line break."""
        self.half_closed = True
        if self._input and not self._input.endswith(b"\n"):
            self._input += b"\n"
        self._read_requests()
        self._maybe_done()

    def release(self) -> None:
        """Time enough has passed: no browser has shown itself."""
        self.held = False
        if self._input.strip() and self._choosing is None and judge(bytes(self._input[:1024])) == "wait":
            self.fail("not a subscription: send one line of JSON, or nothing")

    def _read_requests(self) -> None:
        # A request replaces the one before it, also while the events of that one are under way; but one at a time.
        while self._input and self._choosing is None and not self.closing and not self.refused:
            line, found, rest = self._input.partition(b"\n")
            verdict = judge(bytes(line[:1024] + found))
            if verdict == "http":
                self.refuse()
            elif verdict == "bad" or (found and verdict == "wait"):
                self.fail("not a subscription: send one line of JSON, or nothing")
            elif len(line) > LONGEST_LINE:
                self.fail(f"not a subscription: the line is longer than {LONGEST_LINE} bytes")
            elif not found:
                return
            else:
                self._input = rest
                self._ask(bytes(line))

    def _ask(self, line: bytes) -> None:
        try:
            self._choosing = self._choose(wire.parse_subscription(line))
        except SparrowError as error:
            self.fail(error.message)
            return
        self.held = False  # it speaks our language; nobody needs to wait any longer

    def _go_on_choosing(self, choosing: Generator[None, None, None]) -> None:
        try:
            next(choosing)
        except StopIteration:
            self._choosing = None
            self._read_requests()
        except SparrowError as error:
            self._choosing = None
            self.fail(error.message)

    # ── What the server does with it ─────────────────────────────────────────────────────────────────────────────────

    @property
    def pending(self) -> bool:
        """Whether there is something to send."""
        return bool(self._pending)

    @property
    def choosing(self) -> bool:
        """Whether it has asked for another stream: what is pending need not be sent before that is looked at."""
        return self._choosing is not None

    @property
    def wants_turn(self) -> bool:
        """Whether ``fill()`` would find more to do."""
        if self.closing or self.refused:
            return False
        return bool(
            self._choosing is not None
            or self.behind
            or self._scan is not None
            or (self._run is None and self._ledger.has_new(self))
        )

    def look_again(self) -> None:
        """Try once more what could not be read."""
        self.behind.update(self.unreadable)
        self.unreadable = {}

    def rest(self) -> None:
        """There is nothing to do: the ledger wakes it."""
        if self._run is None:
            self._ledger.idle(self)

    def fail(self, message: str) -> None:
        """Tell the client why, as the last thing that it hears."""
        self._cut()
        self._say(message)
        self.held = False
        self.closing = self.failed = True
        self._stop()

    def refuse(self) -> None:
        """Close without another byte: it speaks HTTP."""
        self._pending.clear()
        self.refused = True
        self._stop()

    def close(self) -> None:
        """The connection is gone."""
        self._pending.clear()
        self._stop()

    def outgoing(self, most: int = 64) -> list[memoryview]:
        """What to send next. Raises Pruned where a half-sent line is not to be had any more, OSError."""
        views = []
        for piece in islice(self._pending, most):
            if piece.data is None:
                piece.data = self._again(piece)
            views.append(memoryview(piece.data))
        if views and self._sent:
            views[0] = views[0][self._sent :]
        return views

    def sent(self, size: int) -> None:
        """The client's socket took so many bytes."""
        size += self._sent
        while self._pending and size >= self._pending[0].size:
            size -= self._pending.popleft().size
        self._sent = size

    def spill(self) -> None:
        """The client takes nothing: keep where its bytes are, not the bytes."""
        for piece in self._pending:
            if piece.source is not None:
                piece.data = None

    def _again(self, piece: Piece) -> bytes:
        assert piece.source is not None
        run, start, end, types, floor = piece.source
        chunk = self._library.read_again(run, start, end)
        data = chunk.chosen(types, floor) if chunk is not None else b""
        if len(data) != piece.size:
            raise Pruned(None)
        return data

    def fill(self) -> None:
        """Take the next events from the records. Raises OSError where one cannot be read."""
        self.paused = False
        if self._choosing is not None:
            self._go_on_choosing(self._choosing)
            return
        room = TURN
        for _ in range(_STEPS):
            run = self._next_run()
            if run is None or room <= 0 or self.paused:
                return
            room -= self._take(run, room)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _next_run(self) -> str | None:
        """The run whose turn it is: they come in the order in which this session fell behind in them."""
        if self._run is None and len(self.behind) < _BEHIND:
            for tail in self._ledger.meet(self, _BEHIND):
                self.behind.setdefault(tail.run, tail.start)
            if self._scan is not None:
                self._walk(self._scan)
        return next(iter(self.behind), None)

    def _walk(self, scan: Iterator[str]) -> None:
        """Take the next names of the folder. What the ledger knows was entered when the request came, or is met anyway."""
        for _ in range(_BEHIND):
            name = next(scan, None)
            if name is None:
                self._stop_scan()
                return
            if name not in self._ledger.tails and name not in self._named:
                self.behind.setdefault(name, self._rule)

    def _take(self, run: str, room: int) -> int:
        """Read on in one run. How much of the turn that took."""
        spot = self.behind.pop(run)
        spot = self.unreadable.pop(run, spot)
        tail = self._ledger.tails.get(run)
        limit = tail.spot if tail is not None else None
        cost = 0
        try:
            if spot.seq < 0:
                cost = _SEEK_COST
                found = self._look_for(run, spot)
                if found is None:
                    self._has_all(run, BEGIN)
                    return cost
                spot = found
            if limit is not None:
                if self._run is None and max(spot.seq, self._ahead.get(run, 0)) > limit.seq:
                    # It named an event that has not come: those before it are not for it.
                    self._ahead[run] = max(spot.seq, self._ahead.get(run, 0))
                    self._has_all(run, spot)
                    return cost
                spot = max(spot, Spot(self._ahead.pop(run, 0)), key=lambda each: each.seq)
                if spot.seq >= limit.seq:
                    self._has_all(run, spot)
                    return cost
            chunk = self._library.read(run, spot, limit, max(room, 1))
        except Pruned as gone:
            self._tell_gone(run, max(spot.seq, 0), gone.first)
            if gone.first is not None:
                self.behind[run] = Spot(gone.first - 1)
            else:
                self._has_all(run, spot)
            return _SEEK_COST
        except OSError as error:
            if self._run is None and error.errno not in NO_ROOM:
                self._library.tell(run, f"its record cannot be read: {error.strerror}")
                self.unreadable[run] = spot
                self._ledger.caught_up(self)  # as far as can be: the others do not wait for it
                return _SEEK_COST
            self.behind[run] = spot
            raise
        if chunk is None and limit is not None:
            # The record is shorter than it was: a full disk, and its writer cut it back. What is missing comes again.
            self.behind[run] = spot
            self.paused = True
            return cost
        if chunk is None:
            self._has_all(run, spot)
            return cost
        data = chunk.chosen(self._types, self._floor)
        if data:
            self._pending.append(Piece(data, (run, chunk.start, chunk.end, self._types, self._floor)))
        if limit is not None and chunk.end.seq >= limit.seq:
            self._has_all(run, chunk.end)
        else:
            self.behind[run] = chunk.end
        return cost + len(chunk.data)

    def _look_for(self, run: str, what: Spot) -> Spot | None:
        """Where to begin in a run; None: nothing of it is wanted. Raises Pruned."""
        if not self._library.has(run):
            return None  # removed since, or no folder
        if what == _BY_TIME:
            return self._library.seek_time(run, self._since)
        return BEGIN if self._library.last_time(run)[0] >= self._since else None

    def _has_all(self, run: str, spot: Spot) -> None:
        """It was sent all that there is of this run."""
        tail = self._ledger.tails.get(run)
        if self._run is None:
            self._ledger.caught_up(self)
            if spot.seq > 0 and (self._library.is_fresh(run) if tail is None else tail.place >= self.met):
                # Found in the folder before this session has heard of it: when it does, it has so much of it already.
                self._ahead[run] = spot.seq
            return
        self.cursor = spot
        self._done = tail.ended if tail is not None else self._ended(run)
        self._ledger.watch(self, run)
        self._maybe_done()

    def _ended(self, run: str) -> bool:
        try:
            return self._library.last_time(run)[1]
        except Pruned:
            return True

    def _maybe_done(self) -> None:
        # A run that has ended says no more, but the connection stays: its client may ask for another one, and a person
        # with `nc` is not thrown out. Only where the client can ask no more there is nothing left to wait for, and
        # echo '{"run":"1b0c","since":0}' | nc -N 127.0.0.1 9337 ends.
        if self.half_closed and self._done and not self.behind and self._choosing is None:
            self.closing = True

    def _say(self, message: str) -> None:
        self._pending.append(Piece(wire.encode({"type": "Error", "message": message}) + b"\n"))

    def _tell_gone(self, run: str, since: int, first: int | None) -> None:
        if first is None:
            self._say(f"gone: there is no record of run {run} any more")
        else:
            self._say(
                f"gone: run {run} is kept from its event {first} on; the events from {since + 1} to {first - 1} were pruned"
            )

    # ── Choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _choose(self, asked: wire.Subscription) -> Generator[None, None, None]:
        """Replace the stream. Bit by bit, since there may be many runs to look at. Raises SparrowError."""
        types = None if asked.types is None else frozenset(name.encode() for name in asked.types)
        run = None
        if asked.run is not None:
            run = yield from self._resolve(asked.run)
        since = asked.since
        if since is None:
            self._go_on_with(run)
        elif isinstance(since, int):
            assert run is not None  # parse_subscription saw to that
            self._begin(run, Spot(since))
        elif isinstance(since, str):
            moment = utc(datetime.fromisoformat(since))
            if run is not None:
                self._begin(run, _BY_TIME)
            else:
                self._begin_all(_BY_TIME)
            self._since = moment
            # A time to come: what is recorded until then is not wanted either.
            self._floor = moment if moment > utc(self._clock()) else ""
        elif run is not None:
            self._begin(run, Spot(_checked(since).get(run, 0)))
        else:
            oldest = yield from self._oldest(_checked(since))
            self._begin_all(_IF_RECENT)
            self._since = oldest
            self.behind.update((name, Spot(seq)) for name, seq in since.items())
            self._named = frozenset(since)
        self._types = types

    def _go_on_with(self, run: str | None) -> None:
        """No ``since``: from where the stream is. So nothing since the connection is lost, however late the line came."""
        if run is None:
            if self._run is not None:
                self._stop()
                self._run = None
                self._ledger.join(self)
            return
        if run == self._run:
            return
        spot = self._place_in(run)
        self._stop()
        self._run, self._done = run, False
        self.behind[run] = spot

    def _place_in(self, run: str) -> Spot:
        if self._run is None and (run in self.unreadable or run in self.behind):
            return self.unreadable.get(run) or self.behind[run]
        tail = self._ledger.tails.get(run)
        if tail is not None:
            return tail.start if self._run is None and tail.place >= self.met else tail.spot
        found = self._library.end(run)
        return found[0] if found is not None else BEGIN

    def _begin(self, run: str, spot: Spot) -> None:
        self._cut()
        self._stop()
        self._run, self._done = run, False
        self._floor = ""
        self.behind[run] = spot

    def _begin_all(self, spot: Spot) -> None:
        self._cut()
        self._stop()
        self._run = None
        self._floor = ""
        self._rule = spot
        self._ledger.join(self)
        self.behind = dict.fromkeys(self._ledger.tails, spot)
        self._scan = self._library.names()
        self._ledger.pins += 1

    def _oldest(self, named: dict[str, int]) -> Generator[None, None, str]:
        """The time of the oldest event that the client named.

        It has seen these, so everything since then is its. A run that it does not name and that said anything since is
        sent whole: it began since, or its first events got lost with the connection. What ended before is not sent.
        """
        oldest = utc(self._clock())
        for count, (run, seq) in enumerate(named.items()):
            if self._library.has(run) and seq > 0:
                oldest = min(oldest, self._library.time_of(run, seq) or oldest)
            if count % 16 == 15:
                yield
        return oldest

    def _resolve(self, asked: str) -> Generator[None, None, str]:
        """The id that a prefix stands for. Raises NoSuchRun, AmbiguousRun."""
        if self._library.has(asked):
            return asked
        found: list[str] = []
        if asked and asked[0] != ".":
            for count, name in enumerate(self._library.names()):
                if name.startswith(asked):
                    found.append(name)
                    if len(found) > 1:
                        raise AmbiguousRun(
                            f"the prefix {asked} fits several runs, {found[0]} and {found[1]} among them"
                        )
                if count % _NAMES == _NAMES - 1:
                    yield
        if not found:
            raise NoSuchRun(f"No active run with id {asked}, and no record of one that ended")
        return found[0]

    def _cut(self) -> None:
        """Take back what is not sent yet, but for the rest of a line that is half sent."""
        first = self._pending[0] if self._pending else None
        self._pending.clear()
        if first is None or not self._sent:
            self._sent = 0
            return
        try:
            data = first.data if first.data is not None else self._again(first)
        except (Pruned, OSError):
            self.refused = True  # no way to end the line
            return
        at = self._sent
        self._sent = 0
        if data[at - 1 : at] != b"\n":
            self._pending.append(Piece(data[at : data.index(b"\n", at) + 1]))

    def _stop(self) -> None:
        """Leave what is read at present."""
        self._ledger.leave(self, self._run)
        self._stop_scan()
        self.behind = {}
        self.unreadable = {}
        self._ahead = {}

    def _stop_scan(self) -> None:
        if self._scan is not None:
            self._ledger.pins -= 1
            scan, self._scan = self._scan, None
            self._named = frozenset()
            if isinstance(scan, Generator):
                scan.close()


def _checked(since: dict[str, int]) -> dict[str, int]:
    """Raises BadRequest where a name is no run's, or a number no seq."""
    for run, seq in since.items():
        if seq < 0 or not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}", run):
            raise BadRequest(f"not a subscription: `since` is {{run id: seq, …}}; {run[:100]}: {seq} is not")
    return since


def utc(moment: datetime) -> str:
    """A time as events have it, so that the texts compare as the times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
