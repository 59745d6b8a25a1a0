"""What the supervisor keeps in hand for a run that has not ended, beside what the core knows of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sparrow_supervisor.core.inputs import Totals
from sparrow_supervisor.link import Link


@dataclass
class Member:
    """One run: its folder, its socket once its monitor is known, and what its events add up to."""

    run: str
    folder: Path
    endpoint: str
    totals: Totals = field(default_factory=Totals)
    link: Link | None = None
    monitor_pid: int | None = None
    monitor_fd: int = -1
    broken: bool = False
    """It broke the protocol: what it still says is not recorded."""
    gaps: int = 0
    """How many frames in a row did not follow the last recorded event."""
    stalled: bool = False
    """The disk is full: nothing is read until what came is recorded."""

    def meet(self, pid: int, pidfd: int) -> None:
        """Its monitor is this process."""
        if self.monitor_fd >= 0:
            os.close(self.monitor_fd)
        self.monitor_pid, self.monitor_fd = pid, pidfd

    def part(self) -> None:
        """Its monitor is gone: nothing is held of it any more."""
        if self.monitor_fd >= 0:
            os.close(self.monitor_fd)
            self.monitor_fd = -1
        if self.link is not None:
            self.link.close()
            self.link = None
