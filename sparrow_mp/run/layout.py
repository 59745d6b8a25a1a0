"""The first page of an outbox, which every version reads: where things are in it, little endian.

0 magic; 8 slot in force (u8); 9 started (u8); 10 monitor asleep (u8); 11 engine is writing (u8); 12 the short way is open (u8);
16 and 48 the two slots, each seq, end, ts in µs, origin (u64); 80 acked (u64); 88 capacity (u64); 96 how the engine ended (u64):
its wait status and 2³², 0 while it runs. 11 and 12 mean something to the processes of one run only (``turns.py``).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PAGE = 4096
KEPT = 1 << 20
"""How much of the ring stays on the disk when all is acknowledged."""
MAGIC = b"SPRWOUT1"
CURRENT, STARTED, ASLEEP, WRITING, OPEN, ACKED, CAPACITY, ENDED = 8, 9, 10, 11, 12, 80, 88, 96
SLOTS = (16, 48)
SLOT = struct.Struct("<QQQQ")
U64 = struct.Struct("<Q")


class State(NamedTuple):
    """What is committed: the last seq, the logical end, the last time in µs, and the end at which the ring began anew."""

    seq: int
    end: int
    ts: int
    origin: int
