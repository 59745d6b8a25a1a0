"""The outbox: where a run's events are safe before anybody has heard of them.

One file, two writers (the engine and its monitor), one order. The first page is a mapping shared by both and holds the
*state*; behind it lies a ring of ``capacity`` bytes with the events themselves, one a line, at logical offsets that only
grow. What is not yet acknowledged by the supervisor is never overwritten, so the ring bounds it.

An append is: take the lock, write the lines behind ``end``, write the new state into the slot that is not in force, flip
the byte that says which one is. The flip is the commit: a writer that is killed anywhere before it has changed nothing,
and what it wrote is overwritten by the next. So there is no torn line below ``end``, ever, and ``seq`` has no hole.

The lock is a POSIX record lock: the kernel drops it when its holder dies, and a child that the engine forked does not
share it (flock's and OFD locks live on in such a child). It does not keep out threads, hence the second lock beside it.

Layout of the first page (little endian): 0 magic; 8 slot in force (u8); 9 started (u8); 10 monitor asleep (u8);
16 and 48 the two slots, each seq, end, ts in µs, origin (u64); 80 acked (u64); 88 capacity (u64).
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

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

PAGE = 4096
_MAGIC = b"SPRWOUT1"
_CURRENT, _STARTED, _ASLEEP, _ACKED, _CAPACITY = 8, 9, 10, 80, 88
_SLOTS = (16, 48)
_SLOT = struct.Struct("<QQQQ")
_U64 = struct.Struct("<Q")
_BATCH_BYTES = 1 << 18
_EVENTS_AT_ONCE = 1000
_SHRINK_OVER = 1 << 20


class State(NamedTuple):
    """What is committed: the last seq, the logical end, the last time in µs, and the end at which the ring began anew."""

    seq: int
    end: int
    ts: int
    origin: int


class Outbox:
    """One run's outbox, opened by the engine, the monitor, or (after the run has ended) the supervisor."""

    def __init__(self, path: Path, run: str, opening: RunStarted | None = None, wake_fd: int = -1) -> None:
        """Open an outbox. ``opening`` goes before the first event; ``wake_fd`` is the eventfd that wakes the monitor.

        Raises OSError where it cannot be opened, ValueError where the file is no outbox.
        """
        self.run = run
        self._opening = opening
        self._wake_fd = wake_fd
        self._thread_lock = threading.Lock()
        self._stamp = _Stamp()
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._fd).st_size < PAGE:
            os.close(self._fd)
            raise ValueError(f"{path} is no outbox")
        self._map = mmap.mmap(self._fd, PAGE)
        if self._map[:8] != _MAGIC:
            self.close()
            raise ValueError(f"{path} is no outbox")
        (self.capacity,) = _U64.unpack_from(self._map, _CAPACITY)
        state = self.state
        if not self.capacity or not state.end - self.capacity <= self.acked <= state.end or state.origin > state.end:
            self.close()
            raise ValueError(f"{path} is damaged")

    @classmethod
    def create(cls, path: Path, capacity: int, last_seq: int = 0, last_ts: int = 0) -> None:
        """Make an empty outbox whose next event is ``last_seq + 1``. Raises OSError."""
        page = bytearray(PAGE)
        page[:8] = _MAGIC
        _SLOT.pack_into(page, _SLOTS[0], last_seq, 0, last_ts, 0)
        _U64.pack_into(page, _CAPACITY, capacity)
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
            first = State(*_SLOT.unpack_from(self._map, _SLOTS[self._map[_CURRENT]]))
            if first == State(*_SLOT.unpack_from(self._map, _SLOTS[self._map[_CURRENT]])):
                return first

    @property
    def acked(self) -> int:
        """The logical offset up to which the supervisor has recorded."""
        return int(_U64.unpack_from(self._map, _ACKED)[0])

    @property
    def started(self) -> bool:
        """Whether RunStarted is in it, or was."""
        return bool(self._map[_STARTED])

    def append(self, events: Sequence[AnyEvent], *, wait: bool = True) -> int:
        """Append as many of the events as have room, in order; how many they were.

        ``wait`` is for the lock alone, which a stopped engine may hold: the monitor never waits for it. Raises
        ValueError, and appends nothing, where the first event is over its limit.
        """
        with self._thread_lock:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return 0
                raise
            try:
                return self._append(events)
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def begin(self) -> bool:
        """Append RunStarted where it is not there yet. False where there was no room or the lock was held."""
        if self.started or self._opening is None:
            return True
        with self._thread_lock:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            try:
                self._append(())
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
        return self.started

    def _append(self, events: Sequence[AnyEvent]) -> int:
        page = self._map
        slot = page[_CURRENT]
        seq, end, ts, origin = _SLOT.unpack_from(page, _SLOTS[slot])
        now = time.time_ns() // 1000
        if now < ts:
            now = ts
        stamp = self._stamp.at(now)
        begins = not page[_STARTED] and self._opening is not None
        if begins and self._opening is not None:
            events = [self._opening, *events]
        if len(events) > _EVENTS_AT_ONCE:
            events = events[
                :_EVENTS_AT_ONCE
            ]  # all that are given are encoded, and again where they do not fit together
        room = self.capacity - (end - _U64.unpack_from(page, _ACKED)[0])
        data, count = self._encoded_at_once(events, seq, stamp, min(room, _BATCH_BYTES))
        if not count:
            data, count = self._encoded_singly(events, seq, stamp, room)
        if not count or not self._write(data, end, origin):
            return 0
        _SLOT.pack_into(page, _SLOTS[1 - slot], seq + count, end + len(data), now, origin)
        page[_CURRENT] = 1 - slot
        if begins:
            page[_STARTED] = 1
        if page[_ASLEEP] and self._wake_fd >= 0:
            page[_ASLEEP] = 0
            os.eventfd_write(self._wake_fd, 1)
        return count - begins

    def _encoded_at_once(self, events: Sequence[AnyEvent], seq: int, stamp: str, most: int) -> tuple[bytes, int]:
        """The usual case, fast: plain events, each there once, which fit together. Nothing where it is another case."""
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
        if len(data) > most or data.count(b"\n") != len(plain) or b"\r" in data:
            return b"", 0
        return data, len(plain)

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
        _U64.pack_into(self._map, _ACKED, offset)
        state = self.state
        if offset == state.end and state.end - state.origin > _SHRINK_OVER:
            self._shrink()

    def _shrink(self) -> None:
        """Begin the ring anew, where nobody is writing just now."""
        with self._thread_lock:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            try:
                slot = self._map[_CURRENT]
                seq, end, ts, _ = _SLOT.unpack_from(self._map, _SLOTS[slot])
                if end == self.acked:
                    os.ftruncate(self._fd, PAGE)
                    _SLOT.pack_into(self._map, _SLOTS[1 - slot], seq, end, ts, end)
                    self._map[_CURRENT] = 1 - slot
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def fall_asleep(self, asleep: bool) -> None:
        """The monitor says whether the next append has to wake it."""
        self._map[_ASLEEP] = asleep

    def unrecorded(self, recorded: int) -> list[bytes]:
        """The committed lines whose seq is over ``recorded``, in order. For when the run has ended."""
        state = self.state
        offset = self.acked
        lines: list[bytes] = []
        while offset < state.end:
            data = self.read(offset)
            if not data:
                break  # not what a writer left: after a power cut the file may be NULs
            offset += len(data)
            lines.extend(data.split(b"\n")[:-1])
        first = state.seq - len(lines) + 1
        return lines[max(0, recorded - first + 1) :]


class _Stamp:
    """RFC 3339 in UTC with microseconds; the part down to the second is kept, since most events share it."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def at(self, microseconds: int) -> str:
        second, fraction = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{fraction:06d}Z"


def timestamp(microseconds: int) -> str:
    """A time in µs since 1970 as an event bears it."""
    return _Stamp().at(microseconds)
