"""The short way into an outbox: one event of the engine's, for as long as nobody else writes.

It does what ``Outbox.append`` does, with what it remembers of the last time in place of what it would have to read, and without
a call of the kernel: the ring is mapped. Whatever is not the usual case it leaves to the long way.

A store into a mapped file for which the disk has no room would end the process (SIGBUS). So only what has been allocated before
is stored to, and only on file systems that write in place: others may need room once more for what they have. There it is
written, which can fail and is told so.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from threading import Lock
from time import time_ns

from sparrow_mp.events import (
    MAX_EVENT_BYTES,
    PLAIN_TYPES,
    CostUpdate,
    Event,
    RunFinished,
    RunQueued,
    RunStarted,
    encode_plain,
)
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.run.layout import ACKED, ASLEEP, CURRENT, KEPT, OPEN, PAGE, SLOT, SLOTS, U64, WRITING, State
from sparrow_mp.run.stamp import Stamp

_USUAL = PLAIN_TYPES.difference((RunQueued, RunStarted, RunFinished, CostUpdate))
"""What an engine emits, but for what it costs: that has to be told the monitor as well."""
_LINE_BREAK, _CARRIAGE_RETURN = b"\n\r"
_WRITE_IN_PLACE = (0xEF53, 0x58465342, 0x01021994)
"""ext4, XFS and tmpfs, as statfs(2) names them."""
_AHEAD = 256 << 10
_NEAR = 64 << 10
_pack = SLOT.pack_into
_libc = ctypes.CDLL(None)


class Quick:
    """One engine's short way. ``threads`` is the lock that its threads take to write, ``wake`` wakes the monitor."""

    def __init__(
        self, page: mmap.mmap, fd: int, run: str, capacity: int, threads: Lock, wake: Callable[[], None]
    ) -> None:
        self._page = page
        self._fd = fd
        self._run = run
        self._capacity = capacity
        self._threads = threads
        self._wake = wake
        self._stamp = Stamp()
        self._usual = _USUAL
        self._seq = self._ts = self._origin = self._slot = self._place = self._start = self._most = 0
        self._ring: mmap.mmap | None = None
        self._allocated = -1
        """How much of the ring may be stored to; -1 where that is not known yet."""
        os.register_at_fork(after_in_child=self._forget)

    def begin(self, state: State) -> None:
        """The way has been opened: until the page says that it is closed, nobody else writes behind ``state``."""
        self._seq, end, self._ts, origin = state
        self._slot = 1 - self._page[CURRENT]
        self._place = (end - origin) % self._capacity
        self._start = end - self._place
        if self._allocated < 0:
            self._map()
        elif self._ring is not None and origin != self._origin:
            self._allocated = min(self._allocated, KEPT)
        self._origin = origin
        if self._ring is not None:
            self._allocate()
        self._look_for_room()

    def append(self, event: Event) -> bool:
        """Append an event. False, and nothing is done, where that takes the long way. (One function: this is the fast one.)"""
        if type(event) not in self._usual:
            return False
        page = self._page
        with self._threads:
            page[WRITING] = 1
            try:
                if not page[OPEN]:
                    return False
                now = time_ns() // 1000
                if now < self._ts:
                    now = self._ts
                seq = self._seq + 1
                event.run = self._run
                event.seq = seq
                event.ts = self._stamp.at(now)
                line = encode_plain(event)
                place = self._place
                after = place + len(line)
                if (
                    (after >= self._most and after >= self._look_for_room())
                    or _LINE_BREAK in line
                    or _CARRIAGE_RETURN in line
                ):
                    return False
                ring = self._ring
                if ring is not None:
                    ring[place:after] = line
                    ring[after] = _LINE_BREAK
                elif not self._write(line, place):
                    return False
                if ARMED:
                    reach("outbox.written")
                after += 1
                slot = self._slot
                _pack(page, SLOTS[slot], seq, self._start + after, now, self._origin)
                if ARMED:
                    reach("outbox.slotted")
                page[CURRENT] = slot
                self._slot = 1 - slot
                self._seq = seq
                self._ts = now
                self._place = after
                if ARMED:
                    reach("outbox.committed")
            except BaseException:  # a signal handler of the engine may raise anything here; it goes on up
                page[OPEN] = 0  # what is remembered may be wrong
                raise
            finally:
                page[WRITING] = 0
        if page[ASLEEP]:
            self._wake()
        return True

    def _write(self, line: bytes, place: int) -> bool:
        """Write a line where the ring is not mapped. False where the disk is full, or whatever it is: the long way tells."""
        try:
            return os.pwrite(self._fd, line + b"\n", PAGE + place) == len(line) + 1
        except OSError:
            return False

    def _look_for_room(self) -> int:
        """How far lines may go in the ring as it is now: up to the lines that are not acknowledged, and to what may be stored to;
        and not so far that one could be over its limit.
        """
        (acked,) = U64.unpack_from(self._page, ACKED)
        room = acked + self._capacity - self._start
        self._most = min(room, self._allocated, self._place + MAX_EVENT_BYTES + 1)
        return self._most

    def _map(self) -> None:
        """Map the ring, where that is safe."""
        self._allocated = self._capacity
        if not _writes_in_place(self._fd):
            return
        try:
            os.ftruncate(self._fd, PAGE + self._capacity)  # its end, not its blocks: more than a file has is not mapped
            self._ring = mmap.mmap(self._fd, self._capacity, offset=PAGE)
        except OSError:
            return  # a limit of the run's own (ulimit): then it is written
        self._allocated = 0

    def _allocate(self) -> None:
        """Have the disk's room for what comes next, and for more each time."""
        if self._allocated >= min(self._place + _NEAR, self._capacity):
            return
        wanted = min(self._capacity, max(2 * self._allocated, self._place + _AHEAD))
        try:
            os.posix_fallocate(self._fd, PAGE, wanted)
            self._allocated = wanted
        except OSError:
            pass  # the disk is full, or nearly: what finds no room takes the long way

    def _forget(self) -> None:
        """In a child that the engine forked: nothing is usual here."""
        self._usual = frozenset()


def _writes_in_place(fd: int) -> bool:
    """Whether what is allocated is there to be stored to, however often that is done."""
    answer = (ctypes.c_long * 32)()  # struct statfs, of which the first is the type; this is for x86-64 only
    return _libc.fstatfs(fd, answer) == 0 and answer[0] in _WRITE_IN_PLACE
