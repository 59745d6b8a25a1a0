"""The outbox: where a run's events are safe before anybody has heard of them.

One file, two writers (the engine and its monitor), one order. The first page is a mapping shared by both and holds the
*state*; behind it lies a ring of ``capacity`` bytes with the events themselves, one a line, at logical offsets that only
grow. What is not yet acknowledged by the supervisor is never overwritten, so the ring bounds it.

An append is: take the turn (``turns.py``), write the lines behind ``end``, write the new state into the slot that is not in
force, flip the byte that says which one is. The flip is the commit: a writer that is killed anywhere before it has changed
nothing, and what it wrote is overwritten by the next. So there is no torn line below ``end``, ever, and ``seq`` has no hole.
One event of the engine's has a shorter way to the same (``quick.py``).
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from sparrow_mp.events import (
    MAX_EVENT_BYTES,
    PLAIN_TYPES,
    AnyEvent,
    Event,
    RunStarted,
    Unknown,
    decode,
    encode,
    encode_lines,
)
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.regular import open_regular
from sparrow_mp.run.layout import (
    ACKED,
    ASLEEP,
    CAPACITY,
    CURRENT,
    ENDED,
    KEPT,
    MAGIC,
    PAGE,
    SLOT,
    SLOTS,
    STARTED,
    U64,
    State,
)
from sparrow_mp.run.quick import Quick
from sparrow_mp.run.stamp import Stamp
from sparrow_mp.run.turns import Turns, fence

MAX_CAPACITY = 256 << 20
"""The largest ring: what a run that has ended may leave is read in one go."""
_HAS_ENDED = 1 << 32
_BATCH_BYTES = 1 << 18
_EVENTS_AT_ONCE = 1000
"""At most; fewer of such as were too large to go together."""
_SINGLES = 10
"""From so many appends of one event on, preparing the short way pays."""


class Outbox:
    """One run's outbox, opened by the engine, the monitor, or (after the run has ended) the supervisor."""

    def __init__(
        self, path: Path, run: str, opening: RunStarted | None = None, wake_fd: int = -1, *, engine: bool = False
    ) -> None:
        """Open an outbox. ``opening`` goes before the first event; ``wake_fd`` is the eventfd that wakes the monitor; ``engine``
        says that this process is the run's engine, which may take the short way.

        Raises OSError where it cannot be opened, ValueError where the file is no outbox.
        """
        self.run = run
        self._opening = opening
        self._wake_fd = wake_fd
        self._stamp = Stamp()
        self._fd = open_regular(path, os.O_RDWR)
        if os.fstat(self._fd).st_size < PAGE:
            os.close(self._fd)
            raise ValueError(f"{path} is no outbox")
        self._map = mmap.mmap(self._fd, PAGE)
        if self._map[:8] != MAGIC or self._map[CURRENT] >= len(SLOTS):
            self.close()
            raise ValueError(f"{path} is no outbox")
        (self.capacity,) = U64.unpack_from(self._map, CAPACITY)
        state = self.state
        if (
            not 0 < self.capacity <= MAX_CAPACITY
            or not state.end - self.capacity <= self.acked <= state.end
            or state.origin > state.end
        ):
            self.close()
            raise ValueError(f"{path} is damaged")
        self._turns = Turns(self._fd, self._map)
        self._quick = (
            Quick(self._map, self._fd, run, self.capacity, self._turns.threads, self._wake) if engine else None
        )
        self._at_once = _EVENTS_AT_ONCE
        self._singles = 0
        self.append_one: Callable[[Any], bool] = _never if self._quick is None else self._quick.append
        """Appends an event the short way. False where it has to be appended the long way."""

    @classmethod
    def create(cls, path: Path, capacity: int, last_seq: int = 0, last_ts: int = 0) -> None:
        """Make an empty outbox whose next event is ``last_seq + 1``. Raises OSError."""
        page = bytearray(PAGE)
        page[:8] = MAGIC
        SLOT.pack_into(page, SLOTS[0], last_seq, 0, last_ts, 0)
        U64.pack_into(page, CAPACITY, capacity)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, page) != PAGE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Give mapping and descriptor back."""
        if hasattr(self, "_map"):
            self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    @property
    def descriptor(self) -> int:
        """The file's descriptor."""
        return self._fd

    @property
    def state(self) -> State:
        """What is committed now. Needs no lock: a slot in force is never written to."""
        while True:
            first = State(*SLOT.unpack_from(self._map, SLOTS[self._map[CURRENT]]))
            if first == State(*SLOT.unpack_from(self._map, SLOTS[self._map[CURRENT]])):
                return first

    @property
    def acked(self) -> int:
        """The logical offset up to which the supervisor has recorded."""
        return int(U64.unpack_from(self._map, ACKED)[0])

    @property
    def started(self) -> bool:
        """Whether RunStarted is in it, or was."""
        return bool(self._map[STARTED])

    def append(self, events: Sequence[AnyEvent], *, wait: bool = True) -> int:
        """Append as many of the events as have room, in order; how many they were.

        ``wait`` is for the lock alone, which a stopped engine may hold: the monitor never waits for it. Raises
        ValueError, and appends nothing, where the first event is over its limit.
        """
        if not self._turns.take(wait=wait):
            return 0
        try:
            done = self._append(events)
            if len(events) == 1 and self._quick is not None:
                self._open_short_way(self._quick)
        finally:
            self._turns.give()
        self._wake()  # not sooner: the turn's end has what was committed be seen before this is looked at
        return done

    def begin(self) -> bool:
        """Append RunStarted where it is not there yet. False where there was no room or it was not our turn."""
        if self._opening is not None and not self.started:
            self.append((), wait=False)
        return self._opening is None or self.started

    def _open_short_way(self, quick: Quick) -> None:
        """In our turn: for an engine that goes on saying one thing after another."""
        self._singles += 1
        if self._singles > _SINGLES and self._turns.open_short_way():
            quick.begin(self.state)

    def _wake(self) -> None:
        """Wake the monitor where it sleeps."""
        if self._map[ASLEEP] and self._wake_fd >= 0:
            self._map[ASLEEP] = 0
            os.eventfd_write(self._wake_fd, 1)

    def _append(self, events: Sequence[AnyEvent]) -> int:
        page = self._map
        slot = page[CURRENT]
        seq, end, ts, origin = SLOT.unpack_from(page, SLOTS[slot])
        now = time.time_ns() // 1000
        if now < ts:
            now = ts
        stamp = self._stamp.at(now)
        begins = not page[STARTED] and self._opening is not None
        if begins and self._opening is not None:
            events = [self._opening, *events]
        if len(events) > self._at_once:
            events = events[: self._at_once]
        room = self.capacity - (end - U64.unpack_from(page, ACKED)[0])
        data, count = self._encoded_at_once(events, seq, stamp, min(room, _BATCH_BYTES))
        if not count:
            data, count = self._encoded_singly(events, seq, stamp, room)
        if not count or not self._write(data, end, origin):
            return 0
        if ARMED:
            reach("outbox.written")
        SLOT.pack_into(page, SLOTS[1 - slot], seq + count, end + len(data), now, origin)
        if ARMED:
            reach("outbox.slotted")
        page[CURRENT] = 1 - slot
        if begins:
            page[STARTED] = 1
        if ARMED:
            reach("outbox.committed")
        return count - begins

    def _encoded_at_once(self, events: Sequence[AnyEvent], seq: int, stamp: str, most: int) -> tuple[bytes, int]:
        """The usual case, fast: plain events, each there once. Nothing where it is another case, or not one fits."""
        if not PLAIN_TYPES.issuperset(map(type, events)) or len(set(map(id, events))) != len(events):
            return b"", 0
        plain = cast("Sequence[Event]", events)
        run = self.run
        for event in plain:
            seq += 1
            event.run = run
            event.seq = seq
            event.ts = stamp
        data = encode_lines(plain)
        if data.count(b"\n") != len(plain) or b"\r" in data:
            return b"", 0
        if len(data) <= most:
            self._at_once = min(2 * self._at_once, _EVENTS_AT_ONCE)
            return data, len(plain)
        data = data[: data.rfind(b"\n", 0, most) + 1]
        count = data.count(b"\n")
        self._at_once = max(1, count)  # what does not fit was encoded for nothing
        return data, count

    def _encoded_singly(self, events: Sequence[AnyEvent], seq: int, stamp: str, room: int) -> tuple[bytes, int]:
        """As many as have room, and how many they are. Raises ValueError where the first is over its limit."""
        lines: list[bytes] = []
        size = 0
        for event in events:
            line = self._encoded(event, seq + 1, stamp)
            if len(line) > MAX_EVENT_BYTES:
                if lines:
                    break
                raise ValueError(
                    f"an event may have {MAX_EVENT_BYTES} bytes, this {type(event).__name__} has {len(line)}"
                )
            if size + len(line) + 1 > room or (size > _BATCH_BYTES):
                break
            lines.append(line)
            size += len(line) + 1
            seq += 1
        count = len(lines)
        lines.append(b"")
        return b"\n".join(lines), count

    def _encoded(self, event: AnyEvent, seq: int, stamp: str) -> bytes:
        if isinstance(event, Unknown):
            head = {"type": event.type, "run": self.run, "seq": seq, "ts": stamp}
            event = Unknown(type=event.type, fields={**head, **event.fields, **head})
        else:
            event.run = self.run
            event.seq = seq
            event.ts = stamp
        line = encode(event)
        if b"\n" in line or b"\r" in line:
            line = encode(decode(line))  # an engine gave JSON that was encoded already (msgspec.Raw), on several lines
        return line

    def _write(self, data: bytes, end: int, origin: int) -> bool:
        """Write behind the end, around the ring's corner where need be. False where the disk is full."""
        place = (end - origin) % self.capacity
        head = data[: self.capacity - place]
        try:
            whole = os.pwrite(self._fd, head, PAGE + place) == len(head)
            rest = data[len(head) :]
            return whole and (not rest or os.pwrite(self._fd, rest, PAGE) == len(rest))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise

    def read(self, offset: int, most: int = _BATCH_BYTES) -> bytes:
        """Whole lines from a logical offset on, about ``most`` bytes of them, at least one; empty at the end.

        The offset must be where a line begins, and not below what has been acknowledged.
        """
        state = self.state
        size = min(most, state.end - offset)
        while size > 0:
            data = self._read(offset, size, state.origin)
            whole = data.rfind(b"\n") + 1
            if whole:
                return data[:whole]
            if size > MAX_EVENT_BYTES or size == state.end - offset:
                return b""  # no writer left this
            size = min(size + MAX_EVENT_BYTES, state.end - offset)
        return b""

    def _read(self, offset: int, size: int, origin: int) -> bytes:
        place = (offset - origin) % self.capacity
        head = os.pread(self._fd, min(size, self.capacity - place), PAGE + place)
        if len(head) < size:
            head += os.pread(self._fd, size - len(head), PAGE)
        return head

    def acknowledge(self, offset: int) -> None:
        """Free what lies before a logical offset; give the disk back where that is all and was much."""
        U64.pack_into(self._map, ACKED, offset)
        state = self.state
        if offset == state.end and state.end - state.origin > KEPT:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Begin the ring anew, where nobody is writing just now."""
        if not self._turns.take(wait=False):
            return
        try:
            slot = self._map[CURRENT]
            seq, end, ts, _ = SLOT.unpack_from(self._map, SLOTS[slot])
            if end == self.acked:
                if os.fstat(self._fd).st_size > PAGE + KEPT:
                    os.ftruncate(self._fd, PAGE + KEPT)
                SLOT.pack_into(self._map, SLOTS[1 - slot], seq, end, ts, end)
                self._map[CURRENT] = 1 - slot
        finally:
            self._turns.give()

    def fall_asleep(self, asleep: bool) -> None:
        """The monitor says whether the next append has to wake it."""
        self._map[ASLEEP] = asleep
        if asleep:
            fence()

    @property
    def engine_status(self) -> int | None:
        """The engine's wait status; None while it runs, or where nobody saw its end."""
        (ended,) = U64.unpack_from(self._map, ENDED)
        return int(ended - _HAS_ENDED) if ended & _HAS_ENDED else None

    @engine_status.setter
    def engine_status(self, status: int) -> None:
        U64.pack_into(self._map, ENDED, _HAS_ENDED | status)

    def unrecorded(self, recorded: int) -> list[bytes]:
        """The committed lines whose seq is over ``recorded``, in order. For when the run has ended."""
        state = self.state
        offset = self.acked
        lines: list[bytes] = []
        there = self.acked + os.fstat(self._fd).st_size - PAGE
        while offset < min(state.end, there):
            data = self.read(offset)
            if not data:
                break  # not what a writer left: after a power cut the file may be NULs
            offset += len(data)
            lines.extend(data.split(b"\n")[:-1])
        first = state.seq - len(lines) + 1
        return lines[max(0, recorded - first + 1) :]


def _never(_: object) -> bool:
    """The short way of whoever has none."""
    return False
