"""What the supervisor keeps in hand for a run that has not ended, beside what the core knows of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sparrow_mp.wire import PROTOCOL
from sparrow_supervisor.core.inputs import Totals
from sparrow_supervisor.link import Link
from sparrow_supervisor.zygote_client import ZygoteClient


@dataclass
class Member:
    """One run: its folder, its socket once its monitor is known, and what its events add up to."""

    run: str
    folder: Path
    endpoint: str
    engine: str = ""
    totals: Totals = field(default_factory=Totals)
    summed: int = 0
    """Up to which event the totals are kept in the index."""
    link: Link | None = None
    monitor_pid: int | None = None
    monitor_fd: int = -1
    zygote: ZygoteClient | None = None
    """Who will tell how its monitor ended; None where that has died."""
    asked: ZygoteClient | None = None
    """Who was asked to fork its monitor: nobody else is, while that lives."""
    protocol: int = PROTOCOL
    """What its monitor speaks: a run outlives an upgrade."""
    last_error: str | None = None
    """What the last event said, where that is an Error: an earlier supervisor may have died before the next."""
    broken: bool = False
    """It broke the protocol: what it still says is not recorded."""
    gaps: int = 0
    """How many frames in a row did not follow the last recorded event."""
    hungry: bool = False
    """It has sent more than it may in one turn: it waits for its next one, whatever its socket says."""
    floods: bool = False
    """It was hungry since somebody last looked."""
    stalled: bool = False
    """The disk is full: nothing is read until what came is recorded."""

    def meet(self, pid: int, pidfd: int, zygote: ZygoteClient | None) -> None:
        """Its monitor is this process."""
        if self.monitor_fd >= 0:
            os.close(self.monitor_fd)
        self.monitor_pid, self.monitor_fd, self.zygote = pid, pidfd, zygote

    def part(self) -> None:
        """Its monitor is gone: nothing is held of it any more."""
        if self.monitor_fd >= 0:
            os.close(self.monitor_fd)
            self.monitor_fd = -1
        if self.link is not None:
            self.link.close()
            self.link = None
